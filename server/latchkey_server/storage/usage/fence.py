"""The fence: it gives one transaction a workspace's usage and verifications to itself, though others never pause.

Whoever records holds the workspace's row in KEY SHARE. Such locks are granted ahead of anybody who waits for a
stronger one, so that group after group would keep it waiting for ever. Groups that begin see the fence and stay out
until the transaction that raised it has ended; should that never happen, the fence expires.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from latchkey_server.domain.usage.ports import UsageFenced
from latchkey_server.storage.database import Connection, Database

_ENTER = """
    SELECT true FROM workspace
    WHERE workspace_id = $1 AND (usage_fence IS NULL OR usage_fence <= now()) FOR KEY SHARE
"""
_EXISTS = "SELECT EXISTS (SELECT FROM workspace WHERE workspace_id = $1)"
_RAISE = "UPDATE workspace SET usage_fence = now() + interval '5 seconds' WHERE workspace_id = $1"
_LOWER = "UPDATE workspace SET usage_fence = NULL WHERE workspace_id = $1"


async def enter(connection: Connection, workspace_id: UUID) -> None:
    """Begin to record, until this transaction ends; raises UsageFenced."""
    entered = await connection.fetchval(_ENTER, workspace_id)
    # An unknown workspace has no labels to move, and must not be waited for.
    if not entered and await connection.fetchval(_EXISTS, workspace_id):
        raise UsageFenced


@asynccontextmanager
async def alone(database: Database, workspace_id: UUID) -> AsyncIterator[Connection]:
    """Lend a transaction during which nobody else records usage or verifications of the workspace."""
    async with database.connection() as connection:
        await connection.execute(_RAISE, workspace_id)
    async with database.transaction() as connection:
        await connection.execute("SELECT FROM workspace WHERE workspace_id = $1 FOR UPDATE", workspace_id)
        yield connection
        await connection.execute(_LOWER, workspace_id)
