"""Rebuilding everything that can be: roll-ups of usage from its rows, counts by label from those by key."""

from collections.abc import AsyncIterator
from datetime import date
from uuid import UUID

from latchkey_server.storage.database import Connection, Database
from latchkey_server.storage.outcomes.rebuild import counted_days, rebuild_counts
from latchkey_server.storage.usage.partitions import existing_days
from latchkey_server.storage.usage.rebuild import Differences, rebuild_day, wrong_totals


async def rebuild_usage(database: Database, *, write: bool) -> AsyncIterator[tuple[UUID, str, Differences]]:
    """Rebuild every day of every workspace whose rows are retained, and its verifications; yield the differences."""
    async with database.connection() as connection:
        days = sorted(await existing_days(connection) | await _stranded_days(connection))
        rows = await connection.fetch("SELECT workspace_id FROM workspace ORDER BY workspace_id")
    for workspace_id in [row["workspace_id"] for row in rows]:
        for day in days:
            yield workspace_id, str(day), await rebuild_day(database, workspace_id, day, write=write)
        async with database.connection() as connection:
            wrong = await wrong_totals(connection, workspace_id)
            counted = await counted_days(connection, workspace_id)
        yield workspace_id, "all days", Differences(0, 0, 0, wrong)
        for day in counted:
            wrong = await rebuild_counts(database, workspace_id, day, write=write)
            yield workspace_id, f"{day} verifications", Differences(0, wrong, 0)


async def _stranded_days(connection: Connection) -> set[date]:
    rows = await connection.fetch(
        "SELECT DISTINCT (occurred_time AT TIME ZONE 'UTC')::date AS day FROM usage_event_default"
    )
    return {row["day"] for row in rows}
