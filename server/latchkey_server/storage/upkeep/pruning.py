"""What is retained for a day only: changes that every cache has seen, and what a repeated request is recognised by."""

from datetime import datetime
from uuid import UUID

from latchkey_server.storage.database import Database
from latchkey_server.storage.sql import affected

BATCH = 1_000
"""Rows removed by one statement, so that none holds its locks for long."""

# Changes grow with their revision: the oldest come first by the primary key, and need no index by time.
_PRUNE_CHANGES = """
    DELETE FROM change WHERE workspace_id = $1 AND create_time < $2 AND revision IN (
        SELECT revision FROM change WHERE workspace_id = $1 ORDER BY revision LIMIT $3
    )
"""
_PRUNE_ANSWERS = """
    DELETE FROM answered_request WHERE workspace_id = $1 AND (caller_id, method, request_id) IN (
        SELECT caller_id, method, request_id FROM answered_request
        WHERE workspace_id = $1 AND create_time < $2 ORDER BY create_time LIMIT $3
    )
"""
_PRUNE_REPORTS = """
    DELETE FROM verification_report WHERE workspace_id = $1 AND client_id IN (
        SELECT client_id FROM verification_report
        WHERE workspace_id = $1 AND report_time < $2 ORDER BY report_time LIMIT $3
    )
"""


async def prune_some(database: Database, workspace_id: UUID, before: datetime) -> int:
    """Remove some of what a workspace wrote before an instant, and return how many rows; 0 once there are none."""
    async with database.connection() as connection:
        for statement in (_PRUNE_CHANGES, _PRUNE_ANSWERS, _PRUNE_REPORTS):
            if removed := affected(await connection.execute(statement, workspace_id, before, BATCH)):
                return removed
    return 0
