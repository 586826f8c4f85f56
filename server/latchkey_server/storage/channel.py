"""The channel on which a commit notifies every process that a workspace has changed."""

from typing import Final
from uuid import UUID

from latchkey_server.storage.database import Connection

CHANNEL: Final = "latchkey_change"
_ADDED = "+"


async def notify(connection: Connection, workspace_id: UUID, *, secret_added: bool) -> None:
    """Notify of a change when this transaction commits."""
    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, f"{workspace_id}{_ADDED if secret_added else ''}")


def read_payload(payload: str) -> tuple[UUID, bool]:
    """Return the workspace that has changed, and whether a secret was added; raises ValueError."""
    return UUID(payload.removesuffix(_ADDED)), payload.endswith(_ADDED)
