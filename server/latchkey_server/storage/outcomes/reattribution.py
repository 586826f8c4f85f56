"""Reattributing verifications: moving the counts of retagged keys to their current label, together with usage."""

from collections.abc import Sequence
from uuid import UUID

from latchkey_server.storage.database import Connection

_ALIKE = ("quarter", "code", "management_key_id", "model", "tag", "tagged", "prefix", "other")
_NAMES = ", ".join(_ALIKE)
_MOVE = f"""
    WITH counted AS MATERIALIZED (
        SELECT {_NAMES}, sum(verifications) AS verifications FROM verification_key_quarter
        WHERE workspace_id = $1 AND key_id = ANY($2) GROUP BY {_NAMES}
    ), taken AS (
        UPDATE verification_label_quarter l SET verifications = l.verifications - c.verifications
        FROM counted c
        WHERE l.workspace_id = $1 AND l.environment = $3 AND l.api_id = $5
            AND {" AND ".join(f"l.{name} = c.{name}" for name in _ALIKE)}
    ), added AS (
        INSERT INTO verification_label_quarter AS l (workspace_id, environment, api_id, {_NAMES}, verifications)
        SELECT $1, $4, $5, {_NAMES}, verifications FROM counted
        ON CONFLICT (workspace_id, environment, api_id, {_NAMES})
        DO UPDATE SET verifications = l.verifications + excluded.verifications
    )
    SELECT min(quarter) AS first, max(quarter) AS last FROM counted
"""
_EMPTIED = """
    DELETE FROM verification_label_quarter
    WHERE workspace_id = $1 AND quarter BETWEEN $2 AND $3 AND environment = $4 AND verifications = 0
"""


async def move_verifications(
    connection: Connection, workspace_id: UUID, key_ids: Sequence[UUID], way: tuple[str, str, UUID]
) -> None:
    """Move the counts of keys from one label to another; ``way`` is both labels and the keys' api."""
    [moved] = await connection.fetch(_MOVE, workspace_id, key_ids, *way)
    if moved["first"] is not None:
        await connection.execute(_EMPTIED, workspace_id, moved["first"], moved["last"], way[0])
