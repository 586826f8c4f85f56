"""Look-up batching: look-ups that wait at the same moment become one query.

A look-up only joins a query that has not been sent yet: its result was read after it asked. A lone look-up is sent at
once. While others are under way, more are likely to come: a look-up then waits a little for them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

Fetch = Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]

FLIGHTS_MAX = 2
"""Queries under way at once: while they are, the next one fills up."""

BATCH_MAX = 100
ENOUGH = 48
"""So many look-ups don't wait for more."""

LINGER_SECONDS = 0.01
"""How long a look-up waits for others at most, and how long after a query it expects any."""


class LookupBatcher(Generic[K, V]):
    """Looks keys up through ``fetch``, many at a time, each once."""

    def __init__(self, fetch: Fetch[K, V], linger: float = LINGER_SECONDS) -> None:
        self._fetch = fetch
        self._linger = linger
        self._waiting: dict[K, asyncio.Future[V | None]] = {}
        self._flights: dict[asyncio.Task[None], dict[K, asyncio.Future[V | None]]] = {}
        self._due: asyncio.Handle | None = None
        self._waiting_since = 0.0
        self._busy_until = 0.0

    async def find(self, key: K) -> V | None:
        """Return what ``fetch`` finds for a key, or None; raises what it raises."""
        return await asyncio.shield(self._wait(key))

    async def find_all(self, keys: Sequence[K]) -> dict[K, V]:
        """Return what ``fetch`` finds for keys, the unknown ones left out; raises what it raises."""
        waits = {key: self._wait(key) for key in keys}
        found = {key: await asyncio.shield(wait) for key, wait in waits.items()}
        return {key: value for key, value in found.items() if value is not None}

    def fail(self, error: Callable[[], Exception]) -> None:
        """Fail all waiting look-ups, and cancel the queries under way."""
        for batch in (self._waiting, *self._flights.values()):
            for future in batch.values():
                if not future.done():
                    future.set_exception(error())
        self._waiting.clear()
        for flight in self._flights:
            flight.cancel()

    def _wait(self, key: K) -> asyncio.Future[V | None]:
        future = self._waiting.get(key)
        if future is None:
            loop = asyncio.get_running_loop()
            if not self._waiting:
                self._waiting_since = loop.time()
            future = self._waiting[key] = loop.create_future()
            # Its caller may have given up by the time it fails.
            future.add_done_callback(_retrieve)
            if self._due is None or len(self._waiting) == ENOUGH:
                self._look_again(0.0)
        return future

    def _look_again(self, seconds: float) -> None:
        if self._due is not None:
            self._due.cancel()
        loop = asyncio.get_running_loop()
        self._due = loop.call_later(seconds, self._launch) if seconds else loop.call_soon(self._launch)

    def _launch(self) -> None:
        self._due = None
        while self._waiting and len(self._flights) < FLIGHTS_MAX:
            if (remaining := self._remaining()) > 0:
                self._look_again(remaining)
                return
            keys = list(self._waiting)[:BATCH_MAX]
            batch = {key: self._waiting.pop(key) for key in keys}
            flight = asyncio.create_task(self._fly(batch))
            self._flights[flight] = batch
            flight.add_done_callback(self._land)

    def _remaining(self) -> float:
        """Return for how many seconds the waiting look-ups should wait for others."""
        now = asyncio.get_running_loop().time()
        if len(self._waiting) >= ENOUGH or not (self._flights or now < self._busy_until):
            return 0.0
        return self._waiting_since + self._linger - now

    def _land(self, flight: asyncio.Task[None]) -> None:
        del self._flights[flight]
        self._busy_until = asyncio.get_running_loop().time() + self._linger
        if self._due is None:
            self._launch()

    async def _fly(self, batch: dict[K, asyncio.Future[V | None]]) -> None:
        try:
            found = await self._fetch(list(batch))
        except BaseException as error:
            for future in batch.values():
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for key, future in batch.items():
            if not future.done():
                future.set_result(found.get(key))


def _retrieve(future: "asyncio.Future[V | None]") -> None:
    if not future.cancelled():
        future.exception()
