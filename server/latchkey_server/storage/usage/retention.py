"""Retention: daily partitions of events are dropped whole. Roll-ups outlive them; identities have their own time."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import asyncpg

from latchkey_server.domain.limits.midnight import midnight
from latchkey_server.storage.database import Database
from latchkey_server.storage.schema.lock import take_schema_lock
from latchkey_server.storage.sql import affected
from latchkey_server.storage.usage.partitions import existing_days, partition_of

BATCH = 5_000
"""Identities, or stranded events, removed by one statement."""

_LOCK_WAIT = "500ms"
"""How long dropping waits for readers; later ones wait behind it meanwhile."""

_RETAINED = (
    "INSERT INTO usage_retained AS u (first_day) VALUES ($1) "
    "ON CONFLICT (one) DO UPDATE SET first_day = greatest(u.first_day, excluded.first_day)"
)
_FORGET = """
    DELETE FROM usage_event_id WHERE workspace_id = $1 AND id_hash IN (
        SELECT id_hash FROM usage_event_id WHERE workspace_id = $1 AND occurred_time < $2 LIMIT $3
    )
"""
_DROP_STRANDED = """
    DELETE FROM usage_event_default WHERE workspace_id = $1 AND (occurred_time, id_hash) IN (
        SELECT occurred_time, id_hash FROM usage_event_default
        WHERE workspace_id = $1 AND occurred_time < $2 LIMIT $3
    )
"""


def first_retained_day(now: datetime, retained: timedelta) -> date:
    """Return the first UTC day whose events are retained."""
    return (now.astimezone(UTC) - retained).date()


async def days_to_drop(database: Database, before: date) -> list[date]:
    """Return the days before a day that have a partition, oldest first."""
    async with database.connection() as connection:
        return sorted(day for day in await existing_days(connection) if day < before)


async def drop_day(database: Database, day: date) -> bool:
    """Drop a day's events and tell whether that was done; a long report or a migration may prevent it."""
    try:
        async with database.transaction() as connection:
            if not await take_schema_lock(connection):
                return False
            await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
            await connection.execute(f"DROP TABLE IF EXISTS {partition_of(day)}")
            await connection.execute(_RETAINED, day + timedelta(days=1))
    except asyncpg.LockNotAvailableError:
        return False
    return True


async def drop_stranded(database: Database, workspace_id: UUID, before: date) -> int:
    """Remove a portion of the events before a day that no daily partition was made for, and return how many."""
    return await _delete(database, _DROP_STRANDED, workspace_id, before)


async def forget_identities(database: Database, workspace_id: UUID, before: date) -> int:
    """Remove a portion of the identities of events before a day, and return how many that were."""
    return await _delete(database, _FORGET, workspace_id, before)


async def _delete(database: Database, statement: str, workspace_id: UUID, before: date) -> int:
    async with database.connection() as connection:
        return affected(await connection.execute(statement, workspace_id, midnight(before), BATCH))
