"""Moving the usage of retagged keys to their current label, in the roll-up by label."""

from collections.abc import Sequence
from uuid import UUID

from latchkey_server.storage.database import Connection
from latchkey_server.storage.usage.columns import ADDED, NAMES, QUARTER_OF_DAY, SUMMED, TEXTS, each, unpacked

_LABEL_GROUP = "quarter, environment, api_id, model, task, other"

_USED = f"""
    used AS MATERIALIZED (
        SELECT quarter, model, task, other, {SUMMED} FROM (
            SELECT quarter, {TEXTS}, {NAMES} FROM usage_key_quarter WHERE workspace_id = $1 AND key_id = ANY($2)
            UNION ALL
            {unpacked(f"{QUARTER_OF_DAY} AS quarter, {TEXTS}", "workspace_id = $1 AND key_id = ANY($2)")}
        ) AS parts GROUP BY quarter, model, task, other
    )
"""
_MOVE = f"""
    WITH {_USED}, taken AS (
        UPDATE usage_label_quarter l SET {each(lambda name: f"{name} = l.{name} - u.{name}")}
        FROM used u
        WHERE l.workspace_id = $1 AND l.quarter = u.quarter AND l.environment = $3 AND l.api_id = $5
            AND l.model = u.model AND l.task = u.task AND l.other = u.other
    ), added AS (
        INSERT INTO usage_label_quarter AS r (workspace_id, {_LABEL_GROUP}, {NAMES})
        SELECT $1, quarter, $4, $5, model, task, other, {NAMES} FROM used
        ON CONFLICT (workspace_id, {_LABEL_GROUP}) DO UPDATE SET {ADDED}
    )
    SELECT min(quarter) AS first, max(quarter) AS last FROM used
"""
_EMPTIED = """
    DELETE FROM usage_label_quarter
    WHERE workspace_id = $1 AND quarter BETWEEN $2 AND $3 AND environment = $4 AND events = 0
"""


async def move_usage(
    connection: Connection, workspace_id: UUID, key_ids: Sequence[UUID], way: tuple[str, str, UUID]
) -> None:
    """Move the usage of keys from one label to another; ``way`` is both labels and the keys' api."""
    [moved] = await connection.fetch(_MOVE, workspace_id, key_ids, *way)
    if moved["first"] is not None:
        await connection.execute(_EMPTIED, workspace_id, moved["first"], moved["last"], way[0])
