"""What runs beside the calls: looking at the database, telling health, making partitions ahead, pruning."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any

import structlog

from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.ports import Clock
from latchkey_server.domain.secret import Peppers
from latchkey_server.storage.database import Connection, Database
from latchkey_server.storage.migrate import schema_trouble
from latchkey_server.storage.partitions import ensure_partitions
from latchkey_server.storage.peppers import pepper_trouble
from latchkey_server.storage.pruning import prune
from latchkey_server.transport.health import Health

_WATCH_SECONDS = 1.0
_UPKEEP_SECONDS = 3600.0
_KEPT = timedelta(days=1)

log = structlog.get_logger("latchkey")


class Readiness:
    """Why this server can't serve, in one line; None once it can."""

    def __init__(self) -> None:
        self.trouble: str | None = "starting"

    @property
    def ready(self) -> bool:
        """Tell whether calls are answered."""
        return self.trouble is None


async def trouble_of(connection: Connection, peppers: Peppers, clock: Clock) -> str | None:
    """Return what keeps a server from serving on this database, in one line, or None."""
    return await schema_trouble(connection) or await pepper_trouble(connection, peppers, clock())


class Watch:
    """Looks at the database each second and tells health what it sees."""

    def __init__(
        self,
        database: Database,
        peppers: Peppers,
        usage_accepted: timedelta,
        health: Health,
        readiness: Readiness,
        clock: Clock,
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._usage_accepted = usage_accepted
        self._health = health
        self._readiness = readiness
        self._clock = clock
        self._next_upkeep = 0.0

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Look once; a server that was ready stays so in an outage, and its calls say UNAVAILABLE."""
        try:
            async with self._database.connection() as connection:
                trouble = await self._trouble(connection)
            reachable = True
        except LatchkeyError:
            trouble, reachable = "the database is not reachable", False
        if reachable or not self._readiness.ready:
            self._tell(trouble)
        await self._health.set_all(serving=trouble is None)

    async def _trouble(self, connection: Connection) -> str | None:
        """Look at schema and peppers each time: another server may have brought new ones meanwhile."""
        if trouble := await trouble_of(connection, self._peppers, self._clock):
            return trouble
        now = asyncio.get_running_loop().time()
        if now >= self._next_upkeep:
            await ensure_partitions(connection, self._clock(), self._usage_accepted)
            await prune(connection, self._clock() - _KEPT)
            self._next_upkeep = now + _UPKEEP_SECONDS
        return None

    def _tell(self, trouble: str | None) -> None:
        if trouble != self._readiness.trouble:
            if trouble:
                log.error("not serving", reason=trouble)
            else:
                log.info("serving")
        self._readiness.trouble = trouble


async def background(stack: AsyncExitStack, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something beside the server until the stack is unwound; what fails is told and begins again."""

    async def supervised() -> None:
        while True:
            try:
                return await run()
            except Exception as error:
                log.error("background task failed", task=run.__qualname__, error=type(error).__qualname__)
                await asyncio.sleep(_WATCH_SECONDS)

    task = asyncio.create_task(supervised())

    async def stop() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(stop)
