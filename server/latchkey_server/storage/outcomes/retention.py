"""Retention of the counts of verifications: by whole quarters of an hour, by key and by label at once."""

from datetime import date
from uuid import UUID

from latchkey_server.domain.limits.midnight import midnight
from latchkey_server.storage.database import Database
from latchkey_server.storage.sql import affected
from latchkey_server.storage.usage.fence import alone

BATCH = 5_000
"""About how many counts by key are removed by one statement."""

_FORGET_COUNTS = """
    WITH by_label AS (DELETE FROM verification_label_quarter WHERE workspace_id = $1 AND quarter <= $2)
    DELETE FROM verification_key_quarter WHERE workspace_id = $1 AND quarter <= $2
"""
_PORTION_OF_COUNTS = """
    SELECT max(quarter) FROM (
        SELECT quarter FROM verification_key_quarter WHERE workspace_id = $1 AND quarter < $2 ORDER BY quarter LIMIT $3
    ) AS oldest
"""


async def forget_counts(database: Database, workspace_id: UUID, before: date) -> int:
    """Remove a portion of the verification counts before a day, and return how many of them were by key.

    Whole quarters, so that the counts by key and by label agree at any moment.
    """
    async with database.connection() as connection:
        last = await connection.fetchval(_PORTION_OF_COUNTS, workspace_id, midnight(before), BATCH)
    if last is None:
        return 0
    async with alone(database, workspace_id) as connection:
        return affected(await connection.execute(_FORGET_COUNTS, workspace_id, last))
