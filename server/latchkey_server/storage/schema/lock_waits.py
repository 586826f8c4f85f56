"""Who blocks a migration: looked up from another session, for the one that waits can't ask."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import asyncpg
import structlog

from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.storage.database import Database

_LOOK_SECONDS: Final = 0.25

# Never their queries, which may hold a tenant's data. The state of other users' sessions may be hidden from us.
_BLOCKERS = "SELECT pid, state FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids($1)) ORDER BY pid"

log = structlog.get_logger("latchkey")


class LockWaits:
    """The sessions that a session was last seen waiting for, in words; empty if it was never seen waiting."""

    def __init__(self, database: Database, pid: int, what: str) -> None:
        self.blockers = ""
        self._database = database
        self._pid = pid
        self._what = what

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look repeatedly until the context is left, and log new blockers."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            # A failed look is repeated soon; nothing depends on it.
            with suppress(LatchkeyError, asyncpg.PostgresError):
                await self._look()

    async def _look(self) -> None:
        async with self._database.connection() as connection:
            rows = await connection.fetch(_BLOCKERS, self._pid)
        found = ", ".join(f"process {row['pid']}" + (f" ({row['state']})" if row["state"] else "") for row in rows)
        if found and found != self.blockers:
            self.blockers = found
            log.warning("a migration waits for a lock", migration=self._what, held_by=found)
