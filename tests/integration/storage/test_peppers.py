"""Peppers: a server that has others than its database was written with does not serve (spec §7)."""

import base64

from latchkey_server.domain.secret import Peppers
from latchkey_server.opening import utc_now
from latchkey_server.storage.database import open_database
from latchkey_server.storage.peppers import pepper_trouble

ONE, OTHER = base64.b64encode(b"one" * 8), base64.b64encode(b"other" * 8)


async def test_peppers_are_known_again_by_what_they_make_and_never_stored(dsn: str) -> None:
    asked = [
        Peppers({"p1": ONE}, "p1"),
        Peppers({"p1": ONE}, "p1"),
        Peppers({"p1": OTHER}, "p1"),
        Peppers({"p2": OTHER}, "p2"),
        Peppers({"p1": ONE, "p2": OTHER}, "p2"),
        Peppers({"p1": ONE}, "p1"),
    ]
    async with open_database(dsn, pool_size=1, timeout=30) as database, database.connection() as connection:
        troubles = [await pepper_trouble(connection, peppers, utc_now()) for peppers in asked]
        stored = await connection.fetch("SELECT pepper_id, check_value FROM pepper ORDER BY pepper_id")

    assert troubles == [
        None,
        None,
        "pepper 'p1' in LATCHKEY_PEPPERS is not the one that this database uses",
        "pepper 'p1' is in use by this database and not in LATCHKEY_PEPPERS",
        None,
        "pepper 'p2' is in use by this database and not in LATCHKEY_PEPPERS",
    ]
    assert [row["pepper_id"] for row in stored] == ["p1", "p2"]
    assert not {row["check_value"] for row in stored} & {ONE, OTHER}
