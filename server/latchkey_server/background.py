"""What runs beside the calls: checks of the database, health, the database's upkeep."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any

import structlog

from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.freshness import Instant
from latchkey_server.domain.lateness import own_time
from latchkey_server.domain.secret import Peppers
from latchkey_server.domain.store import Clock
from latchkey_server.storage.database import Connection, Database
from latchkey_server.storage.peppers import pepper_trouble
from latchkey_server.storage.schema.migrate import schema_trouble
from latchkey_server.storage.upkeep.job_lease import JobLease
from latchkey_server.storage.upkeep.maintenance import LeaseLost, Maintenance, Retention, UpkeepResult
from latchkey_server.storage.verify.availability import Availability
from latchkey_server.transport.grpc.health import SERVICES, STALE_SERVICES, Health

_WATCH_SECONDS = 0.5
_LOOK_SECONDS = 1.0
"""How long a check waits for the database: health has to be set in an outage too, above all then."""

_LAG_SECONDS = 0.1
_LAG_TOLD_FROM = 0.25
"""Seconds of lateness that get a line in the log."""

_MAINTAIN_EVERY = timedelta(hours=1)
_REATTRIBUTE_SECONDS = 10.0

log = structlog.get_logger("latchkey")


class Readiness:
    """Why this server can't serve, in one line; None once it can."""

    def __init__(self) -> None:
        self.trouble: str | None = "starting"
        self.ready = False
        """Whether calls are answered; every call reads it."""

    def set(self, trouble: str | None) -> None:
        """Set the trouble, None if there is none."""
        self.trouble, self.ready = trouble, trouble is None


async def trouble_of(connection: Connection, peppers: Peppers, clock: Clock) -> str | None:
    """Return why a server can't serve on this database, in one line, or None."""
    return await schema_trouble(connection) or await pepper_trouble(connection, peppers, clock())


class HealthCheck:
    """Checks schema and peppers repeatedly, and sets health by them and by what the change feed finds."""

    def __init__(
        self,
        database: Database,
        peppers: Peppers,
        availability: Availability,
        stale_if_error: timedelta,
        health: Health,
        readiness: Readiness,
        clock: Clock,
        instant: Callable[[], Instant],
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._availability = availability
        self._stale_if_error = stale_if_error.total_seconds()
        self._health = health
        self._readiness = readiness
        self._clock = clock
        self._instant = instant

    async def run(self) -> None:
        """Check repeatedly until cancelled."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Check once; a server that was ready stays so in an outage, and its calls answer UNAVAILABLE."""
        if not self._availability.lost:
            # Another server may have brought a new schema or pepper meanwhile.
            with suppress(LatchkeyError, TimeoutError):
                async with own_time(_LOOK_SECONDS), self._database.connection() as connection:
                    self._report(await trouble_of(connection, self._peppers, self._clock))
        elif not self._readiness.ready:
            self._report("the database is not reachable")
        await self._health.set(self._serving())

    def _serving(self) -> dict[str, bool]:
        """Return what health says of each service: in an outage, verifications go on for a while."""
        ready = self._readiness.ready
        reached_at = self._availability.reached_at
        outage = 0.0 if not self._availability.lost or reached_at is None else self._instant() - reached_at
        verifying = ready and outage <= self._stale_if_error
        return {
            service: verifying if service in STALE_SERVICES else ready and not self._availability.lost
            for service in SERVICES
        }

    def _report(self, trouble: str | None) -> None:
        if trouble != self._readiness.trouble:
            if trouble:
                log.error("not serving", reason=trouble)
            else:
                log.info("serving")
        self._readiness.set(trouble)


class Upkeep:
    """Does the database's upkeep, on one server at a time: all of it each hour, reattribution within seconds."""

    def __init__(self, database: Database, retention: Retention, readiness: Readiness, clock: Clock) -> None:
        self._database = database
        self._retention = retention
        self._readiness = readiness
        self._clock = clock

    async def run(self) -> None:
        """Do what is due until cancelled; what an outage prevents is done soon after."""
        while True:
            if self._readiness.ready:
                with suppress(LatchkeyError):
                    await self.maintain(_MAINTAIN_EVERY)
                    await self._under_job_lease(
                        "reattribute", timedelta(seconds=_REATTRIBUTE_SECONDS), Maintenance.reattribute
                    )
            await asyncio.sleep(_REATTRIBUTE_SECONDS)

    async def maintain(self, every: timedelta = timedelta(0)) -> UpkeepResult | None:
        """Do all of it; None when another server is at it, or did it less than ``every`` ago.

        Raises DatabaseUnavailable.
        """
        return await self._under_job_lease("maintain", every, Maintenance.run)

    async def _under_job_lease(
        self, name: str, every: timedelta, work: Callable[[Maintenance], Awaitable[object]]
    ) -> UpkeepResult | None:
        job_lease = JobLease(self._database, name)
        if not await job_lease.take(every):
            return None
        maintenance = Maintenance(self._database, self._retention, job_lease.take, self._clock())
        done = False
        try:
            await work(maintenance)
            done = True
        except LeaseLost:
            return None
        finally:
            # In an outage the lease expires by itself.
            with suppress(LatchkeyError):
                await job_lease.give_back(done=done)
        return maintenance.done


class LoopLag:
    """Measures how late the loop comes round; ``observe`` receives seconds."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            await asyncio.sleep(_LAG_SECONDS)
            late = max(0.0, loop.time() - begun - _LAG_SECONDS)
            self._observe(late)
            if late >= _LAG_TOLD_FROM:
                log.warning("the event loop was late", seconds=round(late, 3))


async def background(stack: AsyncExitStack, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something beside the server until the stack is unwound; what fails is logged and begins again."""

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
