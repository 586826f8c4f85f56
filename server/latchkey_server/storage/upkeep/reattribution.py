"""Reattribution: moving the usage and verifications of retagged keys to their current label, in roll-ups by label.

Until then each report corrects for them. Each transaction moves some keys, for a moment behind a fence; between two
such moments everybody records.
"""

import time
from uuid import UUID

from latchkey_server.storage.database import Connection, Database
from latchkey_server.storage.outcomes.reattribution import move_verifications
from latchkey_server.storage.usage.fence import alone
from latchkey_server.storage.usage.reattribution import move_usage

MOMENT, TOGETHER = 0.5, 50
"""Seconds after which no further keys are moved in one transaction, and how many are moved by one statement."""

_REATTRIBUTED = "UPDATE key SET attributed_environment = $3 WHERE workspace_id = $1 AND key_id = ANY($2)"


async def reattribute_some(database: Database, workspace_id: UUID) -> int:
    """Move retagged keys of a workspace for a moment, in one transaction, and return how many those were."""
    moved, end = 0, time.monotonic() + MOMENT
    async with alone(database, workspace_id) as connection:
        while time.monotonic() < end and (keys := await _reattribute_alike(connection, workspace_id)):
            moved += keys
    return moved


async def _reattribute_alike(connection: Connection, workspace_id: UUID) -> int:
    """Move keys between the same labels together, so that each row of a label is written once; return their number."""
    key = await connection.fetchrow(
        "SELECT environment, attributed_environment, api_id FROM key "
        "WHERE workspace_id = $1 AND environment <> attributed_environment ORDER BY key_id LIMIT 1",
        workspace_id,
    )
    if key is None:
        return 0
    way = (key["attributed_environment"], key["environment"], key["api_id"])
    rows = await connection.fetch(
        "SELECT key_id FROM key WHERE workspace_id = $1 AND environment <> attributed_environment "
        "AND attributed_environment = $2 AND environment = $3 AND api_id = $4 "
        "ORDER BY key_id LIMIT $5 FOR NO KEY UPDATE",
        workspace_id,
        *way,
        TOGETHER,
    )
    key_ids = [row["key_id"] for row in rows]
    await move_usage(connection, workspace_id, key_ids, way)
    await move_verifications(connection, workspace_id, key_ids, way)
    await connection.execute(_REATTRIBUTED, workspace_id, key_ids, key["environment"])
    return len(key_ids)


async def retagged_workspaces(database: Database) -> list[UUID]:
    """Return the workspaces with retagged keys."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT DISTINCT workspace_id FROM key WHERE environment <> attributed_environment"
        )
        return [row["workspace_id"] for row in rows]
