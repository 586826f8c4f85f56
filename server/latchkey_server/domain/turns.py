"""Turns on the event loop: long work is done in slices, and between two of them the loop sees to its other calls.

One slice is under way at a time, and then the loop comes round a few times. Whoever has more to do waits for another
turn: workspaces take turns by the time that each has had, and within a workspace its callers one after another. What is
answered without waiting takes no turns.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Final, NamedTuple, TypeVar
from uuid import UUID

T = TypeVar("T")
R = TypeVar("R")

SLICE: Final = 0.00025
"""Seconds for which work goes on before the loop is looked at again."""

ROUNDS: Final = 6
"""How often the loop comes round between two slices: a call that is answered from memory takes about as many."""

WORKSPACES_MAX: Final = 10_000
"""Workspaces whose time is remembered while none of their work waits."""


class Share(NamedTuple):
    """Whose time is taken: a workspace's, and in it a caller's."""

    workspace_id: UUID
    caller_id: UUID


class Turns:
    """Gives turns to the work of one process; ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter, seconds: float = SLICE) -> None:
        self._clock = clock
        self._seconds = seconds
        self._taken = False
        """Whether a slice is under way, or a turn was given that is not taken up yet."""
        self._share: Share | None = None
        self._begun = self._end = float("-inf")
        self._rounds = 0
        self._waiting: dict[UUID, dict[UUID, deque[asyncio.Future[None]]]] = {}
        self._spent: dict[UUID, float] = {}
        """Seconds that workspaces have had, since either was last forgotten."""
        self._virtual: dict[UUID, float] = {}
        """The same, but who comes back after a while begins with what the others have had at least."""
        self._least = 0.0
        self.waited = 0
        """Turns that were waited for."""

    def due(self) -> bool:
        """Tell whether whoever goes on now has to take a turn."""
        return self._share is None or self._clock() >= self._end

    async def take(self, share: Share) -> None:
        """Begin a slice or join the one that is under way; wait for a turn if it is over or others wait."""
        if not self._taken:
            self._taken = True
            self._begin(share)
        elif self._waiting or self.due():
            await self._wait(share)

    def spent(self) -> list[float]:
        """Return the seconds that workspaces have had, the busiest first; none is named."""
        return sorted(self._spent.values(), reverse=True)

    def _begin(self, share: Share) -> None:
        self._share, self._begun = share, self._clock()
        self._end = self._begun + self._seconds
        # Called when the loop has come round: until then nobody else begins.
        asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        """End the slice that is under way, and give the next turn."""
        if self._share is not None:
            self._charge(self._share.workspace_id, self._clock() - self._begun)
            self._share = None
            self._rounds = ROUNDS
        self._rounds -= 1
        if self._rounds > 0:
            asyncio.get_running_loop().call_soon(self._pass_on)
        else:
            self._give()

    def _charge(self, workspace_id: UUID, seconds: float) -> None:
        if len(self._virtual) > WORKSPACES_MAX:
            self._virtual = {of: had for of, had in self._virtual.items() if of in self._waiting}
            self._spent.clear()
        self._virtual[workspace_id] = self._had(workspace_id) + seconds
        self._spent[workspace_id] = self._spent.get(workspace_id, 0.0) + seconds

    def _give(self) -> None:
        """Give a turn to the workspace that has had least time, and in it to the caller that comes next."""
        while self._waiting:
            workspace_id = min(self._waiting, key=self._had)
            self._least = max(self._least, self._had(workspace_id))
            future = self._next_of(workspace_id)
            if not future.done():
                self.waited += 1
                future.set_result(None)
                return
        self._taken = False

    def _next_of(self, workspace_id: UUID) -> "asyncio.Future[None]":
        callers = self._waiting[workspace_id]
        caller_id = next(iter(callers))
        line = callers.pop(caller_id)
        future = line.popleft()
        if line:
            callers[caller_id] = line
        elif not callers:
            del self._waiting[workspace_id]
        return future

    def _had(self, workspace_id: UUID) -> float:
        return self._virtual.get(workspace_id, self._least)

    async def _wait(self, share: Share) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # For time in which it asked for nothing nobody gets turns later.
        self._virtual[share.workspace_id] = max(self._had(share.workspace_id), self._least)
        self._waiting.setdefault(share.workspace_id, {}).setdefault(share.caller_id, deque()).append(future)
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():
                # It was its turn already: another has it now.
                self._give()
            raise
        self._begin(share)


class _Mine(NamedTuple):
    turns: Turns
    share: Share


_mine: ContextVar[_Mine | None] = ContextVar("turns", default=None)


def share_turns(turns: Turns, share: Share) -> None:
    """Have this task, and those that it begins, take their turns under a share."""
    _mine.set(_Mine(turns, share))


async def turn() -> None:
    """Let others have their turn, if this slice has lasted its time; without a share, do nothing."""
    mine = _mine.get()
    if mine is not None and mine.turns.due():
        await mine.turns.take(mine.share)


async def in_slices(convert: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return what ``convert`` makes of each item; others have their turn meanwhile."""
    mine, made = _mine.get(), []
    for item in items:
        if mine is not None and mine.turns.due():
            await mine.turns.take(mine.share)
        made.append(convert(item))
    return made
