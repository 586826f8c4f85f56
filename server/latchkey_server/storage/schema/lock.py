"""The one lock under which the schema is changed, by a migration or by upkeep; no tenant's request ever takes it.

It is polled, never waited for: a session that waits in a statement holds its snapshot meanwhile, and CREATE INDEX
CONCURRENTLY, which the holder of the lock may be running, waits until all older snapshots are gone.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from latchkey_server.storage.database import Connection

_LOCK: Final = 0x6C6B_6D69_6772
_ASK_SECONDS: Final = 0.1

_HOLDERS = """
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::bigint << 32 | objid::bigint = $1
"""

log = structlog.get_logger("latchkey")


async def take_schema_lock(connection: Connection) -> bool:
    """Take the lock until the transaction ends, and tell whether it was free."""
    return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK))


@asynccontextmanager
async def schema_transaction(connection: Connection) -> AsyncIterator[None]:
    """Open a transaction that holds the lock."""
    logged = False
    while True:
        async with connection.transaction():
            if await take_schema_lock(connection):
                yield
                return
        logged = logged or await _log_holders(connection)
        await asyncio.sleep(_ASK_SECONDS)


@asynccontextmanager
async def schema_session(connection: Connection) -> AsyncIterator[None]:
    """Hold the lock for a session, which has to be one of its own, not a transaction pooler's."""
    logged = False
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
        logged = logged or await _log_holders(connection)
        await asyncio.sleep(_ASK_SECONDS)
    try:
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def _log_holders(connection: Connection) -> bool:
    pids = [row["pid"] for row in await connection.fetch(_HOLDERS, _LOCK)]
    log.info("waiting for another process that changes the schema", pids=pids)
    return True
