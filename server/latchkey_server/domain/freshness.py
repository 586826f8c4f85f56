"""How fresh an answer has to be (spec §4, Freshness): pure rules over instants of this process's own clock.

An instant is a number of seconds that never goes backward and goes on while the machine sleeps (``instant`` below). A
record is confirmed at an instant *before* the query was sent that read it or found it unchanged.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import UUID

from latchkey_server.domain.model import Revision

HARD_BOUND: Final = 2.0
"""Seconds: no answer comes from what was not confirmed within them, unless the database is unreachable."""

NEVER: Final = float("-inf")

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

Instant = float


instant: Final[Callable[[], Instant]] = partial(time.clock_gettime, _CLOCK)
"""Return the current instant."""


@dataclass(slots=True, eq=False)
class History:
    """How far this process has followed the changes of one workspace; shared by all that is cached of it.

    ``revision`` is the last change applied, ``highest`` the highest revision seen anywhere. Nothing read before
    revision ``floor`` may be cached. Once ``dropped``, everything that refers to it is dropped too.
    """

    workspace_id: UUID
    revision: int
    confirmed_at: Instant
    highest: int = 0
    floor: int = 0
    entries: int = 0
    used_at: Instant = NEVER
    dropped: bool = False
    serialized: tuple[int, bytes] | None = field(default=None, repr=False)
    """``revision`` and its serialised form; set by transport."""

    def __post_init__(self) -> None:
        self.highest = max(self.highest, self.revision)
        self.floor = max(self.floor, self.revision)

    def drop(self) -> None:
        """Drop everything that refers to this history."""
        self.dropped = True
        self.confirmed_at = NEVER


@dataclass(frozen=True, slots=True)
class Freshness:
    """What one question demands beyond the hard bound: an age in seconds, a revision, or both."""

    max_age: float = HARD_BOUND
    min_revision: Revision | None = None


class Confirmed:
    """What was read at one instant, of a workspace whose history is followed."""

    __slots__ = ()

    read_at: Instant
    revision: int
    history: History
    cached: bool
    """Whether a cache has it, so that changes reach it."""
    footprint: int
    """The bytes that the cache has counted for it."""


def age(known: Confirmed, at: Instant) -> float:
    """Return the seconds since what is known was last confirmed; infinite once it was dropped."""
    history = known.history
    return at - NEVER if history.dropped else at - max(history.confirmed_at, known.read_at)


def confirmed(known: Confirmed, at: Instant) -> bool:
    """Tell whether what is known was confirmed within the hard bound."""
    # The common case first; a dropped history has never been confirmed.
    return at - known.history.confirmed_at <= HARD_BOUND or age(known, at) <= HARD_BOUND


def seen_revision(known: Confirmed) -> int:
    """Return the last revision of the workspace that what is known reflects."""
    return max(known.revision, known.history.revision)


def meets(known: Confirmed, asked: Freshness, at: Instant) -> bool:
    """Tell whether what is known is as fresh as was asked; a revision of another workspace is ignored."""
    wanted = asked.min_revision
    bound = wanted is not None and wanted.workspace_id == known.history.workspace_id
    behind = wanted is not None and bound and seen_revision(known) < wanted.number
    return not behind and age(known, at) <= asked.max_age
