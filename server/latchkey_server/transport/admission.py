"""Admission: how much each caller may have under way at a time on one server process."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Final, NoReturn
from urllib.parse import unquote
from uuid import UUID

from lru import LRU

from latchkey_server.domain import errors
from latchkey_server.domain.freshness import Instant
from latchkey_server.domain.model import Caller
from latchkey_server.transport.answer_size import ANSWER_MAX

CALLS: Final = "calls"
STREAMS: Final = "streams"
REQUEST_BYTES: Final = "request bytes"

ITEM_BYTES: Final = 4 * 1024
"""Room that an item takes until it is answered: nearly every answer has less."""

ADDRESSES_MAX: Final = 10_000
"""Addresses whose unknown credentials are remembered."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller may have under way at a time; bytes are those of frames that are not answered yet."""

    calls: int = 1_000
    """Calls that are not answered from memory at once."""
    request_bytes: int = 64 * 1024 * 1024
    """Bytes of their requests."""
    streams: int = 64
    frame_bytes: int = 16 * 1024 * 1024
    frame_bytes_of_all: int = 128 * 1024 * 1024


class Admission:
    """Counts what each caller has under way."""

    def __init__(self, limits: Limits) -> None:
        self._most = {CALLS: limits.calls, STREAMS: limits.streams, REQUEST_BYTES: limits.request_bytes}
        self._under_way: Counter[tuple[UUID, str]] = Counter()
        self.frames = FrameRoom(limits.frame_bytes, limits.frame_bytes_of_all)
        self.refused: Counter[str] = Counter()
        """Refusals, by what there was too much of."""

    @contextmanager
    def admit(self, caller: Caller, what: str, request: int = 0) -> Iterator[None]:
        """Count one more of ``what``, CALLS or STREAMS, with the bytes of its request, until the context is left.

        Raises ShareExceeded. A caller with nothing under way may always send one request.
        """
        caller_id = caller.management_key_id
        if self._under_way[caller_id, what] >= self._most[what]:
            self._refuse(what)
        held = self._under_way[caller_id, REQUEST_BYTES]
        if request and held and held + request > self._most[REQUEST_BYTES]:
            self._refuse(REQUEST_BYTES)
        taken = ((what, 1), (REQUEST_BYTES, request))
        for name, number in taken:
            self._under_way[caller_id, name] += number
        try:
            yield
        finally:
            for name, number in taken:
                self._under_way[caller_id, name] -= number
                if not self._under_way[caller_id, name]:
                    del self._under_way[caller_id, name]

    def _refuse(self, what: str) -> NoReturn:
        self.refused[what] += 1
        raise errors.ShareExceeded(what, self._most[what])


def room_for(items: Sequence[bytes]) -> int:
    """Return the room in bytes that the items of a frame or batch take until they are answered."""
    return min(len(items) * ITEM_BYTES, ANSWER_MAX) + sum(map(len, items))


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    caller_id: UUID
    size: int
    given: "asyncio.Future[None]"


class FrameRoom:
    """Room in bytes for frames and batches that are not answered yet: so much for each caller, and so much for all.

    Whoever finds none waits, and reads no further frame meanwhile. A caller of whom nothing is in it always finds room.
    """

    def __init__(self, most: int, most_of_all: int) -> None:
        self._most = most
        self._most_of_all = most_of_all
        self._of: Counter[UUID] = Counter()
        self._waiting: list[_Waiting] = []
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
        """Take room for a frame, once there is some; frames of one caller come in the order in which they asked."""
        if not any(waiting.caller_id == caller_id for waiting in self._waiting) and self._fits(caller_id, size):
            self._take(caller_id, size)
            return
        waiting = _Waiting(caller_id, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            await waiting.given
        except asyncio.CancelledError:
            if waiting.given.cancelled():
                self._waiting.remove(waiting)
                # Who asked behind it may fit.
                self._give()
            else:
                self.leave(caller_id, size)
            raise

    def leave(self, caller_id: UUID, size: int) -> None:
        """Give room back."""
        self.bytes -= size
        self._of[caller_id] -= size
        if not self._of[caller_id]:
            del self._of[caller_id]
        self._give()

    def _give(self) -> None:
        """Give room to those that wait, in order; behind a frame that does not fit its caller's others wait too."""
        blocked: set[UUID] = set()
        for waiting in list(self._waiting):
            if waiting.given.done():
                continue
            if waiting.caller_id not in blocked and self._fits(waiting.caller_id, waiting.size):
                self._waiting.remove(waiting)
                self._take(waiting.caller_id, waiting.size)
                waiting.given.set_result(None)
            else:
                blocked.add(waiting.caller_id)

    def _take(self, caller_id: UUID, size: int) -> None:
        self._of[caller_id] += size
        self.bytes += size

    def _fits(self, caller_id: UUID, size: int) -> bool:
        mine = self._of.get(caller_id, 0)
        return not mine or (mine + size <= self._most and self.bytes + size <= self._most_of_all)


@dataclass(slots=True)
class LookUp:
    """A look-up of a credential; whoever makes it says whether somebody has it."""

    known: bool = True


class UnknownCredentials:
    """A bucket of look-ups for each address that sends credentials that nobody has: each of them costs a query.

    ``each_second`` are added each second, up to twice as many. Known ones are given back, and what is cached is not
    looked up. While its bucket is empty an address has one look-up at a time.
    """

    def __init__(self, each_second: float) -> None:
        self._each_second = each_second
        self._left: LRU[str, tuple[float, Instant]] = LRU(ADDRESSES_MAX)
        self._alone: set[str] = set()
        self.refused = 0

    @contextmanager
    def looking_up(self, peer: str, at: Instant) -> Iterator[LookUp]:
        """Take a look-up out of the bucket of a peer's address; raises ShareExceeded."""
        address, look_up = address_of(peer), LookUp()
        tokens = self._tokens(address, at)
        if tokens >= 1:
            self._left[address] = (tokens - 1, at)
            yield look_up
            if look_up.known:
                self._left[address] = (self._tokens(address, at) + 1, at)
            return
        if address in self._alone:
            self.refused += 1
            raise errors.ShareExceeded("unknown credentials of its address", int(2 * self._each_second))
        self._alone.add(address)
        try:
            yield look_up
        finally:
            self._alone.discard(address)

    def _tokens(self, address: str, at: Instant) -> float:
        full = 2 * self._each_second
        left, since = self._left.get(address, (full, at))
        return min(full, left + max(0.0, at - since) * self._each_second)


def address_of(peer: str) -> str:
    """Return a peer, as gRPC names it, without its port; of an IPv6 address the /64, which one sender has whole."""
    address = peer.rpartition(":")[0]
    kind, _, host = unquote(address).partition(":")
    try:
        return str(IPv6Network((host.strip("[]"), 64), strict=False)) if kind == "ipv6" else address
    except ValueError:
        return address
