"""Which timelines of which systems a process has met, so that a former primary is never taken for the database.

After a failover the former primary may still run, or run again, and be reached: by an address that was not changed
yet, or was changed back. What is read there is from before the failover, and what is written there is lost.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from latchkey_server.storage.outages import FORMER_PRIMARY, Unreachable


class Timeline(NamedTuple):
    """One history of one system: a promoted standby begins the next of its system, a new cluster another system."""

    system: int
    number: int

    def __str__(self) -> str:
        return f"{self.system:x}-{self.number:x}"


class Timelines:
    """What a process has met for as long as it lives, shared by all its pools."""

    def __init__(self) -> None:
        self._latest: Timeline | None = None
        self._highest: dict[int, int] = {}
        self._pools: list[Callable[[], Awaitable[None]]] = []

    @contextmanager
    def shared_by(self, renew: Callable[[], Awaitable[None]]) -> Iterator[None]:
        """Call this whenever connections may be open to what is not the database, until the context is left."""
        self._pools.append(renew)
        try:
            yield
        finally:
            self._pools.remove(renew)

    async def meet(self, found: Timeline) -> None:
        """Remember a timeline; raises DatabaseUnavailable if it is below one of the same system that was met."""
        if found.number < self._highest.get(found.system, 0):
            raise Unreachable(FORMER_PRIMARY)
        self._highest[found.system] = found.number
        before, self._latest = self._latest, found
        if before not in (None, found):
            await self.renew()

    async def renew(self) -> None:
        """Have no pool lend a connection again that is open now."""
        for renew in self._pools:
            await renew()
