"""What is retained for a day only: changes that every cache has seen, and what a repeated request is recognised by."""

from datetime import datetime
from uuid import UUID

from latchkey_server.storage.database import Connection
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


async def prune(connection: Connection, before: datetime) -> int:
    """Remove what was written before an instant, workspace by workspace, and return how many rows that were."""
    removed = 0
    for row in await connection.fetch("SELECT workspace_id FROM workspace"):
        for statement in (_PRUNE_CHANGES, _PRUNE_ANSWERS, _PRUNE_REPORTS):
            removed += await _prune(connection, statement, row["workspace_id"], before)
    return removed


async def _prune(connection: Connection, statement: str, workspace_id: UUID, before: datetime) -> int:
    removed, last = 0, BATCH
    while last == BATCH:
        last = affected(await connection.execute(statement, workspace_id, before, BATCH))
        removed += last
    return removed
