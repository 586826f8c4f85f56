"""Watching: who receives changes, and what waits for each of them, within a bound (spec §4)."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from latchkey_server.domain.freshness import Instant
from latchkey_server.domain.model import Caller, ChangeKind
from latchkey_server.domain.verify.model import AppliedChange

BACKLOG_MAX: Final = 1_000
"""Events that may wait for one watcher: one that falls further behind loses them and receives RESET."""


@dataclass(frozen=True, slots=True)
class Echo:
    """A watcher's nonce, sent behind everything applied before it; confirmed at an instant."""

    nonce: bytes
    confirmed_at: Instant


@dataclass(frozen=True, slots=True)
class Reset:
    """Everything is to be dropped; what follows begins behind ``revision``."""

    revision: int = 0


Event = AppliedChange | Echo | Reset


class Watch:
    """What waits for one watcher, in order."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self._events: deque[Event] = deque()
        self._woken = asyncio.Event()
        self._put = 0

    def put(self, event: Event) -> None:
        """Add an event; when too many wait, a RESET replaces all of them."""
        if len(self._events) >= BACKLOG_MAX:
            self._events.clear()
            self._events.append(Reset(self._put))
        if isinstance(event, AppliedChange):
            self._put = event.revision
        self._events.append(event)
        self._woken.set()

    def reset(self, revision: int | None = None) -> None:
        """Replace everything that waits by a RESET, at a revision or at the last one that was put."""
        self._put = self._put if revision is None else revision
        self._events.clear()
        self.put(Reset(self._put))

    def begin(self, revision: int) -> None:
        """Drop what waits: its watcher begins from here."""
        self._put = revision
        self._events.clear()

    def wake(self) -> None:
        """Have the watcher check its credential."""
        self._woken.set()

    async def events(self, seconds: float) -> list[Event]:
        """Return what waits, once there is something or the seconds are over."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return []
        self._woken.clear()
        events = list(self._events)
        self._events.clear()
        return events


class Watchers:
    """Everybody who watches, on this process."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()

    @contextmanager
    def watching(self, caller: Caller) -> Iterator[Watch]:
        """Keep a watch until the context is left."""
        watch = Watch(caller)
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    @property
    def everything(self) -> bool:
        """Tell whether somebody watches all workspaces."""
        return any(watch.caller.all_workspaces for watch in self._watches)

    @property
    def workspaces(self) -> set[UUID]:
        """The workspaces that are watched by name."""
        return {watch.caller.workspace_id for watch in self._watches}

    def publish(self, changes: Sequence[AppliedChange]) -> None:
        """Deliver changes to the watchers that may see them."""
        for watch in self._watches:
            for applied in changes:
                _deliver(watch, applied)

    def reset(self, workspace_id: UUID, revision: int) -> None:
        """Have the watchers of a workspace drop everything and go on from a revision."""
        for watch in self._watches:
            if watch.caller.all_workspaces or watch.caller.workspace_id == workspace_id:
                watch.reset(revision)


def _deliver(watch: Watch, applied: AppliedChange) -> None:
    if applied.change.kind is ChangeKind.MANAGEMENT_KEY_CHANGED:
        watch.wake()
    elif visible(watch.caller, applied):
        watch.put(applied)


def visible(caller: Caller, applied: AppliedChange) -> bool:
    """Tell whether a watcher may see a change: none of another workspace, none of a key outside its binding."""
    if not caller.all_workspaces and caller.workspace_id != applied.workspace_id:
        return False
    match applied.change.kind:
        case ChangeKind.MANAGEMENT_KEY_CHANGED:
            return False
        case ChangeKind.API_CHANGED:
            return caller.covers_api(applied.change.target_id)
        case _:
            return applied.api_id is None or caller.covers_api(applied.api_id)
