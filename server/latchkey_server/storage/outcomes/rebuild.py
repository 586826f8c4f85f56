"""Rebuilding the verifications by label: from those by key, since nothing else is stored of a verification.

There must be no difference, since both change in one transaction; rebuilding finds and repairs one.
"""

from datetime import UTC, date, timedelta
from uuid import UUID

from latchkey_server.domain.limits.midnight import midnight
from latchkey_server.domain.outcomes.by_label import NO_API
from latchkey_server.storage.database import Connection, Database
from latchkey_server.storage.usage.fence import alone

_WITHIN = "workspace_id = $1 AND quarter >= $2 AND quarter < $3"
_GROUP = "quarter, environment, api_id, code, management_key_id, model, tag, tagged, prefix, other"
_SUMMED = f"""
    SELECT v.quarter, coalesce(k.attributed_environment, '') AS environment, coalesce(k.api_id, '{NO_API}') AS api_id,
        v.code, v.management_key_id, v.model, v.tag, v.tagged, v.prefix, v.other,
        sum(v.verifications)::bigint AS verifications
    FROM (SELECT * FROM verification_key_quarter WHERE {_WITHIN}) AS v
    LEFT JOIN key k ON k.workspace_id = v.workspace_id AND k.key_id = v.key_id
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
"""
_DIFFERENCES = f"""
    SELECT count(*) FROM ({_SUMMED}) AS a
    FULL JOIN (SELECT {_GROUP}, verifications FROM verification_label_quarter WHERE {_WITHIN}) AS b USING ({_GROUP})
    WHERE a.verifications IS DISTINCT FROM b.verifications
"""
_REMOVE = f"DELETE FROM verification_label_quarter WHERE {_WITHIN}"
_PUT = (
    f"INSERT INTO verification_label_quarter (workspace_id, {_GROUP}, verifications) SELECT $1, * FROM ({_SUMMED}) AS s"
)
_SPAN = """
    SELECT min(first) AS first, max(last) AS last FROM (
        SELECT min(quarter) AS first, max(quarter) AS last FROM verification_key_quarter WHERE workspace_id = $1
        UNION ALL
        SELECT min(quarter), max(quarter) FROM verification_label_quarter WHERE workspace_id = $1
    ) AS spans
"""


async def counted_days(connection: Connection, workspace_id: UUID) -> list[date]:
    """Return the UTC days from the first to the last with counts of verifications of a workspace."""
    span = await connection.fetchrow(_SPAN, workspace_id)
    if span is None or span["first"] is None:
        return []
    first, last = (span[name].astimezone(UTC).date() for name in ("first", "last"))
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


async def rebuild_counts(database: Database, workspace_id: UUID, day: date, *, write: bool) -> int:
    """Return how many counts by label of a day are not what those by key say; with ``write`` they are replaced.

    Comparing takes one snapshot and blocks nobody; writing has the workspace's counts to itself.
    """
    start = midnight(day)
    where = (workspace_id, start, start + timedelta(days=1))
    if not write:
        async with database.connection() as connection:
            return int(await connection.fetchval(_DIFFERENCES, *where))
    async with alone(database, workspace_id) as connection:
        differences = int(await connection.fetchval(_DIFFERENCES, *where))
        if differences:
            for statement in (_REMOVE, _PUT):
                await connection.execute(statement, *where)
        return differences
