"""The peppers that the stored hashes were made with: recognised by a check value, never stored themselves."""

import hmac
from datetime import datetime

from latchkey_server.domain.secret import Peppers
from latchkey_server.storage.database import Connection


async def pepper_trouble(connection: Connection, peppers: Peppers, now: datetime) -> str | None:
    """Return why this server can't serve, in one line, or None after registering a new current pepper.

    It registers only if it knows all others: a server with wrong peppers must not stop those with the right ones.
    """
    rows = await connection.fetch("SELECT pepper_id, check_value FROM pepper ORDER BY pepper_id")
    for row in rows:
        pepper_id = row["pepper_id"]
        if pepper_id not in peppers.keys:
            return f"pepper {pepper_id!r} is in use by this database and not in LATCHKEY_PEPPERS"
        if not hmac.compare_digest(peppers.check_value(pepper_id), row["check_value"]):
            return f"pepper {pepper_id!r} in LATCHKEY_PEPPERS is not the one that this database uses"
    if peppers.current not in {row["pepper_id"] for row in rows}:
        await _register(connection, peppers, now)
    return None


async def _register(connection: Connection, peppers: Peppers, now: datetime) -> None:
    await connection.execute(
        "INSERT INTO pepper (pepper_id, check_value, create_time) VALUES ($1, $2, $3) "
        "ON CONFLICT (pepper_id) DO NOTHING",
        peppers.current,
        peppers.check_value(peppers.current),
        now,
    )
