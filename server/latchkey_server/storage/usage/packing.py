"""Packing: turns days that are over from rows by quarter of an hour into a row a day and its running sums.

Recording adds to one small table; days that are over are stored as reports read them. A late event is packed into its
day the same way.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from latchkey_server.storage.database import Connection, Database
from latchkey_server.storage.usage.columns import ADDED, NAMES, SUMMED, TEXTS, each, unpacked

KEYS, ROWS = 100, 20_000
"""Keys packed by one transaction, and their rows unless the first key alone has more: no locks are held for long."""

_SETTLED = timedelta(hours=1)
"""How long after its end a day is packed: until then many events still arrive."""

_DAY = "(quarter AT TIME ZONE 'UTC')::date"
_INDEX = "(extract(epoch FROM quarter - date_trunc('day', quarter, 'UTC')) / 900)::smallint"
_GROUP = f"key_id, day, {TEXTS}"

# What is packed of a day already is unpacked from its running sums, joined with what came late, and summed anew.
_PACK = f"""
    WITH gone AS (
        DELETE FROM usage_key_quarter
        WHERE workspace_id = $1 AND key_id > $2 AND key_id <= $3 AND quarter < $4
        RETURNING key_id, {_DAY} AS day, {_INDEX} AS at, {TEXTS}, {NAMES}
    ), days AS (
        SELECT {_GROUP}, {SUMMED} FROM gone GROUP BY {_GROUP}
    ), whole AS (
        INSERT INTO usage_key_day AS r (workspace_id, {_GROUP}, {NAMES})
        SELECT $1, {_GROUP}, {NAMES} FROM days
        ON CONFLICT (workspace_id, {_GROUP}) DO UPDATE SET {ADDED}
    ), lives AS (
        INSERT INTO usage_key_total AS r (workspace_id, key_id, {NAMES})
        SELECT $1, key_id, {SUMMED} FROM days GROUP BY key_id
        ON CONFLICT (workspace_id, key_id) DO UPDATE SET {ADDED}
    ), unpacked AS (
        {unpacked(f"{_GROUP}, u.at", f"workspace_id = $1 AND ({_GROUP}) IN (SELECT {_GROUP} FROM days)")}
    ), quarters AS (
        SELECT {_GROUP}, at, {SUMMED}
        FROM (SELECT {_GROUP}, at, {NAMES} FROM gone UNION ALL SELECT {_GROUP}, at, {NAMES} FROM unpacked) AS both_of
        GROUP BY {_GROUP}, at
    ), running AS (
        SELECT {_GROUP}, at, {each(lambda name: f"sum({name}) OVER upto AS {name}")} FROM quarters
        WINDOW upto AS (PARTITION BY {_GROUP} ORDER BY at)
    ), packed AS (
        INSERT INTO usage_key_day_running (workspace_id, {_GROUP}, quarters, {NAMES})
        SELECT $1, {_GROUP}, array_agg(at ORDER BY at), {each(lambda name: f"array_agg({name} ORDER BY at)")}
        FROM running GROUP BY {_GROUP}
        ON CONFLICT (workspace_id, {_GROUP})
        DO UPDATE SET quarters = excluded.quarters, {each(lambda name: f"{name} = excluded.{name}")}
    )
    SELECT count(*) FROM gone
"""

# By the primary key: what was packed before leaves no rows to skip.
_LAST_OF_NEXT = """
    SELECT key_id FROM (
        SELECT key_id, rows, sum(rows) OVER (ORDER BY key_id) AS upto FROM (
            SELECT key_id, count(*) AS rows FROM usage_key_quarter
            WHERE workspace_id = $1 AND key_id > $2 AND quarter < $3 GROUP BY key_id ORDER BY key_id LIMIT $4
        ) AS following
    ) AS counted WHERE upto <= $5 OR upto = rows ORDER BY key_id DESC LIMIT 1
"""


def over_before(now: datetime) -> datetime:
    """Return the instant before which all UTC days are packed."""
    return (now - _SETTLED).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


async def pack_some(
    database: Database, workspace_id: UUID, after: UUID, before: datetime, rows: int = ROWS
) -> UUID | None:
    """Pack days of the next keys of a workspace and return the last of these keys, or None when there is none."""
    async with database.transaction() as connection:
        await _lock(connection, workspace_id)
        last: UUID | None = await connection.fetchval(_LAST_OF_NEXT, workspace_id, after, before, KEYS, rows)
        if last is not None:
            await connection.execute("SET LOCAL work_mem = '64MB'")
            await connection.fetchval(_PACK, workspace_id, after, last, before)
        return last


async def _lock(connection: Connection, workspace_id: UUID) -> None:
    """Make every other packing of the workspace wait; recording goes on, for it takes no more than KEY SHARE."""
    await connection.execute("SELECT FROM workspace WHERE workspace_id = $1 FOR NO KEY UPDATE", workspace_id)
