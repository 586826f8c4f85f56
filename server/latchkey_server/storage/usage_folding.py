"""Folding: moving what a retagged key used, and its verifications, to its label of now, in the roll-ups by label.

Until that is done each report does it on the way. Some keys at a time, for a moment; nobody records for the workspace
meanwhile, and everybody does between two moments.
"""

import time
from uuid import UUID

from latchkey_server.storage.database import Connection, Database
from latchkey_server.storage.usage_columns import ADDED, NAMES, SUMMED, TEXTS, each
from latchkey_server.storage.usage_fence import alone
from latchkey_server.storage.verification_folding import move_verifications

MOMENT, TOGETHER = 0.5, 50
"""Seconds after which no further keys are moved in one transaction, and how many are moved by one statement."""

_LABEL_PLACE = "quarter, environment, api_id, model, task, other"

_USED = f"""
    used AS MATERIALIZED (
        SELECT quarter, model, task, other, {SUMMED} FROM (
            SELECT quarter, {TEXTS}, {NAMES} FROM usage_key_quarter WHERE workspace_id = $1 AND key_id = ANY($2)
            UNION ALL
            SELECT day::timestamp AT TIME ZONE 'UTC' + u.at * interval '15 minutes', {TEXTS},
                {each(lambda name: f"u.{name} - lag(u.{name}, 1, 0) OVER before AS {name}")}
            FROM usage_key_day_running, unnest(quarters, {NAMES}) WITH ORDINALITY AS u(at, {NAMES}, number)
            WHERE workspace_id = $1 AND key_id = ANY($2)
            WINDOW before AS (PARTITION BY key_id, day, {TEXTS} ORDER BY u.number)
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
        INSERT INTO usage_label_quarter AS r (workspace_id, {_LABEL_PLACE}, {NAMES})
        SELECT $1, quarter, $4, $5, model, task, other, {NAMES} FROM used
        ON CONFLICT (workspace_id, {_LABEL_PLACE}) DO UPDATE SET {ADDED}
    ), folded AS (
        UPDATE key SET folded_environment = $4 WHERE workspace_id = $1 AND key_id = ANY($2)
    )
    SELECT min(quarter) AS first, max(quarter) AS last FROM used
"""
_EMPTIED = """
    DELETE FROM usage_label_quarter
    WHERE workspace_id = $1 AND quarter BETWEEN $2 AND $3 AND environment = $4 AND events = 0
"""


async def fold_some(database: Database, workspace_id: UUID) -> int:
    """Move retagged keys of a workspace for a moment, in one transaction, and return how many those were."""
    moved, end = 0, time.monotonic() + MOMENT
    async with alone(database, workspace_id) as connection:
        while time.monotonic() < end and (keys := await _fold_alike(connection, workspace_id)):
            moved += keys
    return moved


async def _fold_alike(connection: Connection, workspace_id: UUID) -> int:
    """Move keys that go the same way together, so that each row of a label is written once, and return their number."""
    key = await connection.fetchrow(
        "SELECT environment, folded_environment, api_id FROM key "
        "WHERE workspace_id = $1 AND environment <> folded_environment ORDER BY key_id LIMIT 1",
        workspace_id,
    )
    if key is None:
        return 0
    way = (key["folded_environment"], key["environment"], key["api_id"])
    rows = await connection.fetch(
        "SELECT key_id FROM key WHERE workspace_id = $1 AND environment <> folded_environment "
        "AND folded_environment = $2 AND environment = $3 AND api_id = $4 ORDER BY key_id LIMIT $5 FOR NO KEY UPDATE",
        workspace_id,
        *way,
        TOGETHER,
    )
    key_ids = [row["key_id"] for row in rows]
    moved = await connection.fetchrow(_MOVE, workspace_id, key_ids, *way)
    if moved is not None and moved["first"] is not None:
        await connection.execute(_EMPTIED, workspace_id, moved["first"], moved["last"], key["folded_environment"])
    await move_verifications(connection, workspace_id, key_ids, way)
    return len(key_ids)


async def retagged_workspaces(database: Database) -> list[UUID]:
    """Return the workspaces with keys that are to be moved."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT DISTINCT workspace_id FROM key WHERE environment <> folded_environment")
        return [row["workspace_id"] for row in rows]
