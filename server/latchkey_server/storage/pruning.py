"""What is kept for a day only: changes that every cache has long seen, and answers of requests that may be replayed."""

from datetime import datetime

from latchkey_server.storage.database import Connection

_KEPT_FOR_A_DAY = ("change", "answered_request")


async def prune(connection: Connection, before: datetime) -> int:
    """Remove what was written before an instant, workspace by workspace, and return how many rows that were."""
    removed = 0
    for row in await connection.fetch("SELECT workspace_id FROM workspace"):
        for table in _KEPT_FOR_A_DAY:
            status = await connection.execute(
                f"DELETE FROM {table} WHERE workspace_id = $1 AND create_time < $2", row["workspace_id"], before
            )
            removed += int(status.rpartition(" ")[2])
    return removed
