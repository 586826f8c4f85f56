"""Rebuilding: the roll-ups of a day are recomputed from its rows, compared with those stored, and replace them.

There must be no difference, since both change in one transaction; rebuilding finds and repairs one, should a hand or a
fault have altered either. Only days whose rows are retained can be rebuilt.
"""

from datetime import date
from typing import NamedTuple
from uuid import UUID

from latchkey_server.domain.usage.event import UsageType
from latchkey_server.storage.database import Connection, Database
from latchkey_server.storage.usage.columns import NAMES, QUARTER_OF_DAY, SUMMED, SUMS, TEXTS, each, unpacked
from latchkey_server.storage.usage.fence import alone

_WITHIN = (
    "workspace_id = $1 AND {time} >= $2::date::timestamp AT TIME ZONE 'UTC' "
    "AND {time} < ($2::date + 1)::timestamp AT TIME ZONE 'UTC'"
)
_CONSUMED = f"e.type = {int(UsageType.CONSUME)}"
_KEY_GROUP = f"key_id, quarter, {TEXTS}"
_LABEL_GROUP = "quarter, environment, api_id, model, task, other"

_STORED = f"""
    SELECT {_KEY_GROUP}, {NAMES} FROM usage_key_quarter WHERE {_WITHIN.format(time="quarter")}
    UNION ALL
    {unpacked(f"key_id, {QUARTER_OF_DAY}, {TEXTS}", "workspace_id = $1 AND day = $2")}
"""

# The rows do not show which combinations overflow: it is those that the roll-ups do not hold.
_RECOMPUTE = f"""
    CREATE TEMPORARY TABLE recomputed ON COMMIT DROP AS
    WITH tracked AS (
        SELECT DISTINCT key_id, member, model, task FROM ({_STORED}) AS stored WHERE NOT other
    ), summed AS (
        SELECT EXISTS (SELECT FROM ({_STORED}) AS stored WHERE other AND stored.key_id = k.key_id) AS bounded, k.key_id
        FROM (SELECT DISTINCT key_id FROM usage_event WHERE {_WITHIN.format(time="occurred_time")}) AS k
    ), placed AS (
        SELECT e.*, date_bin('15 minutes', e.occurred_time, '2000-01-01 00:00+00') AS quarter,
            s.bounded AND t.key_id IS NULL AS beyond
        FROM usage_event e JOIN summed s USING (key_id) LEFT JOIN tracked t USING (key_id, member, model, task)
        WHERE {_WITHIN.format(time="e.occurred_time").replace("workspace_id", "e.workspace_id")}
    )
    SELECT key_id, quarter, CASE WHEN beyond THEN '' ELSE member END AS member,
        CASE WHEN beyond THEN '' ELSE model END AS model, CASE WHEN beyond THEN '' ELSE task END AS task,
        beyond AS other, count(*) AS events,
        coalesce(sum(e.cost_nanos) FILTER (WHERE {_CONSUMED}), 0) AS spend_nanos,
        coalesce(sum(e.cost_nanos) FILTER (WHERE NOT {_CONSUMED}), 0) AS adjustment_nanos,
        sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
        sum(output_tokens)::bigint AS output_tokens, sum(cached_tokens)::bigint AS cached_tokens
    FROM placed e GROUP BY 1, 2, 3, 4, 5, 6
"""
_BY_LABEL = f"""
    SELECT r.quarter, k.attributed_environment AS environment, k.api_id, r.model, r.task, r.other,
        {each(lambda name: f"sum(r.{name}) AS {name}")}
    FROM recomputed r JOIN key k ON k.workspace_id = $1 AND k.key_id = r.key_id GROUP BY 1, 2, 3, 4, 5, 6
"""
_DIFFERING = "a.events IS NULL OR b.events IS NULL OR " + " OR ".join(f"a.{name} <> b.{name}" for name in SUMS)


def _count_differences(group: str, recomputed: str, stored: str) -> str:
    return f"SELECT count(*) FROM ({recomputed}) AS a FULL JOIN ({stored}) AS b USING ({group}) WHERE {_DIFFERING}"


_DIFFERENCES = {
    "by key": _count_differences(
        _KEY_GROUP,
        "SELECT * FROM recomputed WHERE $1::uuid IS NOT NULL AND $2::date IS NOT NULL",
        f"SELECT {_KEY_GROUP}, {SUMMED} FROM ({_STORED}) AS stored GROUP BY {_KEY_GROUP}",
    ),
    "by label": _count_differences(
        _LABEL_GROUP,
        _BY_LABEL,
        f"SELECT {_LABEL_GROUP}, {NAMES} FROM usage_label_quarter "
        f"WHERE {_WITHIN.format(time='quarter')} AND events <> 0",
    ),
    "by day": _count_differences(
        f"key_id, {TEXTS}",
        f"SELECT key_id, {TEXTS}, {each(lambda name: f'{name}[cardinality({name})] AS {name}')} "
        "FROM usage_key_day_running WHERE workspace_id = $1 AND day = $2",
        f"SELECT key_id, {TEXTS}, {NAMES} FROM usage_key_day WHERE workspace_id = $1 AND day = $2",
    ),
}
_TOTALS = f"""
    SELECT count(*) FROM (
        SELECT key_id, {SUMMED} FROM usage_key_day WHERE workspace_id = $1 GROUP BY key_id
    ) AS a FULL JOIN (
        SELECT key_id, {NAMES} FROM usage_key_total WHERE workspace_id = $1
    ) AS b USING (key_id) WHERE {_DIFFERING}
"""
_OUT_OF_TOTALS = f"""
    UPDATE usage_key_total t SET {each(lambda name: f"{name} = t.{name} - d.{name}")}
    FROM (SELECT key_id, {SUMMED} FROM usage_key_day WHERE workspace_id = $1 AND day = $2 GROUP BY key_id) AS d
    WHERE t.workspace_id = $1 AND t.key_id = d.key_id
"""
_REMOVE = (
    _OUT_OF_TOTALS,
    f"DELETE FROM usage_key_quarter WHERE {_WITHIN.format(time='quarter')}",
    "DELETE FROM usage_key_day WHERE workspace_id = $1 AND day = $2",
    "DELETE FROM usage_key_day_running WHERE workspace_id = $1 AND day = $2",
    f"DELETE FROM usage_label_quarter WHERE {_WITHIN.format(time='quarter')}",
)
_PUT = (
    f"INSERT INTO usage_key_quarter (workspace_id, {_KEY_GROUP}, {NAMES}) SELECT $1, {_KEY_GROUP}, {NAMES} "
    "FROM recomputed",
    f"INSERT INTO usage_label_quarter (workspace_id, {_LABEL_GROUP}, {NAMES}) SELECT $1, * FROM ({_BY_LABEL}) AS l",
)


class Differences(NamedTuple):
    """How many roll-ups of a day were not what its rows say."""

    by_key: int
    by_label: int
    by_day: int

    totals: int = 0

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return any(self)

    @property
    def summary(self) -> str:
        """The numbers in words."""
        return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in self._asdict().items() if number)


async def rebuild_day(database: Database, workspace_id: UUID, day: date, *, write: bool) -> Differences:
    """Return how the roll-ups of a day differ from its rows; with ``write`` they are replaced, and packed later.

    Comparing takes one snapshot and blocks nobody; writing has the workspace's usage to itself.
    """
    if not write:
        async with database.transaction(snapshot=True, readonly=False) as connection:
            return await _differences(connection, workspace_id, day)
    async with alone(database, workspace_id) as connection:
        differences = await _differences(connection, workspace_id, day)
        if differences:
            for statement in _REMOVE:
                await connection.execute(statement, workspace_id, day)
            for statement in _PUT:
                await connection.execute(statement, workspace_id)
        return differences


async def wrong_totals(connection: Connection, workspace_id: UUID) -> int:
    """Return how many keys have totals that are not the sums of their days."""
    return int(await connection.fetchval(_TOTALS, workspace_id))


async def _differences(connection: Connection, workspace_id: UUID, day: date) -> Differences:
    """Return what differs on a day; zeros for one whose rows retention has dropped, as this transaction sees it."""
    if await connection.fetchval("SELECT EXISTS (SELECT FROM usage_retained WHERE first_day > $1)", day):
        return Differences(0, 0, 0)
    await connection.execute(_RECOMPUTE, workspace_id, day)
    return Differences(*[await _count(connection, statement, workspace_id, day) for statement in _DIFFERENCES.values()])


async def _count(connection: Connection, statement: str, workspace_id: UUID, day: date) -> int:
    arguments = [workspace_id, day] if "$2" in statement else [workspace_id]
    return int(await connection.fetchval(statement, *arguments))
