"""Daily partitions of usage events, created ahead of the events that need them."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from latchkey_server.domain.limits.midnight import midnight
from latchkey_server.storage.database import Connection
from latchkey_server.storage.schema.lock import schema_transaction

AHEAD = timedelta(days=3)
_PREFIX = "usage_event_"


def days_needed(now: datetime, back: timedelta) -> Iterator[date]:
    """Yield the UTC days for which an event may be accepted now or in the next days."""
    day, last = (now.astimezone(UTC) - back).date(), (now.astimezone(UTC) + AHEAD).date()
    while day <= last:
        yield day
        day += timedelta(days=1)


async def ensure_partitions(connection: Connection, now: datetime, back: timedelta) -> int:
    """Create the partitions that are missing and return how many that were.

    A day that already has events in the default partition keeps them there: attaching would have to move them.
    """
    if not await _missing(connection, now, back):
        return 0
    async with schema_transaction(connection):
        created = 0
        for day in await _missing(connection, now, back):
            if not await _stranded(connection, day):
                await _create(connection, day)
                created += 1
        return created


async def _missing(connection: Connection, now: datetime, back: timedelta) -> list[date]:
    existing = await existing_days(connection)
    return [day for day in days_needed(now, back) if day not in existing]


async def existing_days(connection: Connection) -> set[date]:
    """Return the UTC days that have a partition."""
    rows = await connection.fetch(
        "SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid "
        "WHERE inhparent = 'usage_event'::regclass AND c.relname ~ '^usage_event_[0-9]{8}$'"
    )
    return {date.fromisoformat(row["relname"].removeprefix(_PREFIX)) for row in rows}


def partition_of(day: date) -> str:
    """Return the name of a day's partition."""
    return f"{_PREFIX}{day:%Y%m%d}"


async def _create(connection: Connection, day: date) -> None:
    """Attach a table: creating the partition in place would wait for every report and make all others wait."""
    await connection.execute(f"CREATE TABLE {partition_of(day)} (LIKE usage_event INCLUDING ALL)")
    await connection.execute(
        f"ALTER TABLE usage_event ATTACH PARTITION {partition_of(day)} "
        f"FOR VALUES FROM ('{day} 00:00+00') TO ('{day + timedelta(days=1)} 00:00+00')"
    )


async def _stranded(connection: Connection, day: date) -> bool:
    start = midnight(day)
    found = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM usage_event_default WHERE occurred_time >= $1 AND occurred_time < $2)",
        start,
        start + timedelta(days=1),
    )
    return bool(found)
