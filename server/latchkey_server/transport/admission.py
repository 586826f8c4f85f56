"""Admission: how much each caller may have under way at a time on one server process."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from lru import LRU

from latchkey_server.domain import errors
from latchkey_server.domain.freshness import Instant
from latchkey_server.domain.model import Caller
from latchkey_server.transport.answer_size import ANSWER_MAX

CALLS: Final = "calls"
STREAMS: Final = "streams"

ITEM_BYTES: Final = 4 * 1024
"""Room that an item takes until it is answered: nearly every answer has less."""

ADDRESSES_MAX: Final = 10_000
"""Addresses whose unknown credentials are remembered."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller may have under way at a time; bytes are those of frames that are not answered yet."""

    calls: int = 1_000
    """Calls that are not answered from memory at once."""
    streams: int = 64
    frame_bytes: int = 16 * 1024 * 1024
    frame_bytes_of_all: int = 128 * 1024 * 1024


class Admission:
    """Counts what each caller has under way."""

    def __init__(self, limits: Limits) -> None:
        self._most = {CALLS: limits.calls, STREAMS: limits.streams}
        self._under_way: Counter[tuple[UUID, str]] = Counter()
        self.frames = FrameRoom(limits.frame_bytes, limits.frame_bytes_of_all)
        self.refused: Counter[str] = Counter()
        """Refusals, by what there was too much of."""

    @contextmanager
    def admit(self, caller: Caller, what: str) -> Iterator[None]:
        """Count one more of ``what``, CALLS or STREAMS, until the context is left; raises ShareExceeded."""
        mine = (caller.management_key_id, what)
        if self._under_way[mine] >= self._most[what]:
            self.refused[what] += 1
            raise errors.ShareExceeded(what, self._most[what])
        self._under_way[mine] += 1
        try:
            yield
        finally:
            self._under_way[mine] -= 1
            if not self._under_way[mine]:
                del self._under_way[mine]


def room_for(items: Sequence[bytes]) -> int:
    """Return the room in bytes that the items of a frame or batch take until they are answered."""
    return min(len(items) * ITEM_BYTES, ANSWER_MAX) + sum(map(len, items))


class FrameRoom:
    """Room in bytes for frames and batches that are not answered yet: so much for each caller, and so much for all.

    Whoever finds none waits, and reads no further frame meanwhile. A caller of whom nothing is in it always finds room.
    """

    def __init__(self, most: int, most_of_all: int) -> None:
        self._most = most
        self._most_of_all = most_of_all
        self._of: Counter[UUID] = Counter()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.bytes = 0

    @asynccontextmanager
    async def held(self, caller_id: UUID, size: int) -> AsyncIterator[None]:
        """Hold room until the context is left, once there is some."""
        await self.enter(caller_id, size)
        try:
            yield
        finally:
            self.leave(caller_id, size)

    async def enter(self, caller_id: UUID, size: int) -> None:
        """Take room for a frame, once there is some."""
        while not self._fits(caller_id, size):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        self._of[caller_id] += size
        self.bytes += size

    def leave(self, caller_id: UUID, size: int) -> None:
        """Give room back."""
        self.bytes -= size
        self._of[caller_id] -= size
        if not self._of[caller_id]:
            del self._of[caller_id]
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _fits(self, caller_id: UUID, size: int) -> bool:
        mine = self._of.get(caller_id, 0)
        return not mine or (mine + size <= self._most and self.bytes + size <= self._most_of_all)


class UnknownCredentials:
    """A bucket of look-ups for each address that sends credentials that nobody has: each of them costs a query.

    ``each_second`` are added each second, up to twice as many. Known ones take nothing out, and what is cached is not
    looked up; but a credential that is not cached has to wait too while the bucket of its address is empty.
    """

    def __init__(self, each_second: float) -> None:
        self._each_second = each_second
        self._left: LRU[str, tuple[float, Instant]] = LRU(ADDRESSES_MAX)
        self.refused = 0

    def require(self, peer: str, at: Instant) -> None:
        """Raise ShareExceeded while the bucket of a peer's address is empty."""
        if self._tokens(_address(peer), at) < 1:
            self.refused += 1
            raise errors.ShareExceeded("unknown credentials of its address", int(2 * self._each_second))

    def spend(self, peer: str, at: Instant) -> None:
        """Note that a peer sent a credential that nobody has."""
        address = _address(peer)
        self._left[address] = (self._tokens(address, at) - 1, at)

    def _tokens(self, address: str, at: Instant) -> float:
        full = 2 * self._each_second
        left, since = self._left.get(address, (full, at))
        return min(full, left + (at - since) * self._each_second)


def _address(peer: str) -> str:
    """Return a peer, as gRPC names it, without its port."""
    return peer.rpartition(":")[0]
