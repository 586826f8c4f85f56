"""Which combinations of free text are tracked: the first 1,000 of a key and UTC day (spec §5).

The tracked ones are those in the roll-ups, so that the bound holds over all servers and through restarts. A process
remembers what it has seen there: combinations never go away, and most events bring a known one.
"""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from datetime import date
from typing import Generic, TypeVar
from uuid import UUID

COMBINATIONS_MAX = 1_000
"""Combinations that are tracked for a key and a UTC day (spec §5)."""

ALONE_FROM = 100
"""With so many combinations of a key and day, new ones are admitted by one transaction at a time; with fewer, ten
transactions would have to add a hundred each at the same moment to exceed the bound."""

REMEMBERED_MAX = 200_000
"""Combinations that a process remembers."""

FEW = 8
"""So many combinations of a key and day are likely to be another's too."""

KeyDay = tuple[UUID, date]
"""A key and a UTC day."""

C = TypeVar("C", bound=Hashable)

Wanted = Mapping[KeyDay, Mapping[C, None]]
"""The combinations of each key and day, in the order in which they came."""


def admitted(known: set[C], wanted: Iterable[C], most: int = COMBINATIONS_MAX) -> set[C]:
    """Return the known combinations and the first of the wanted ones, up to ``most`` in all."""
    tracked = set(known)
    for combination in wanted:
        if len(tracked) >= most:
            break
        tracked.add(combination)
    return tracked


def undecided(wanted: Wanted[C], remembered: Mapping[KeyDay, set[C]]) -> list[KeyDay]:
    """Return the keys and days with a combination that is neither known to be tracked nor known to overflow."""
    return [
        key_day
        for key_day, combinations in wanted.items()
        if len(remembered[key_day]) < COMBINATIONS_MAX and not combinations.keys() <= remembered[key_day]
    ]


def contended(wanted: Wanted[C], found: Mapping[KeyDay, set[C]]) -> list[KeyDay]:
    """Return the keys and days of ``found`` near the bound: others may be admitting combinations at this moment."""
    return [
        key_day
        for key_day, known in found.items()
        if len(admitted(known, wanted[key_day])) > max(ALONE_FROM, len(known))
    ]


def bounded(wanted: Wanted[C], tracked: Mapping[KeyDay, set[C]]) -> dict[KeyDay, set[C]]:
    """Return the tracked combinations of those keys and days for which a wanted one overflows."""
    return {key_day: known for key_day, known in tracked.items() if not wanted[key_day].keys() <= known}


Lock = Callable[[UUID, Sequence[UUID]], Awaitable[None]]
LookUp = Callable[[UUID, Sequence[KeyDay]], Awaitable[Mapping[KeyDay, set[C]]]]


class CombinationMemory(Generic[C]):
    """Remembers tracked combinations, up to a bound; what is forgotten is looked up again."""

    def __init__(self, most: int = REMEMBERED_MAX) -> None:
        self._most = most
        self._number = 0
        self._known: dict[UUID, dict[KeyDay, set[C]]] = {}
        self._alike: dict[frozenset[C], set[C]] = {}

    def of(self, workspace_id: UUID, key_days: Iterable[KeyDay]) -> dict[KeyDay, set[C]]:
        """Return what is remembered of each key and day."""
        known = self._known.get(workspace_id, {})
        return {key_day: known.get(key_day, set()) for key_day in key_days}

    async def admit(
        self, workspace_id: UUID, wanted: Wanted[C], look_up: LookUp[C], lock: Lock
    ) -> dict[KeyDay, set[C]]:
        """Return the tracked combinations of the keys and days, except those whose wanted ones are all remembered.

        ``look_up`` finds what the roll-ups hold, ``lock`` makes others wait before they admit combinations of keys. The
        caller passes the result to ``remember`` once it is committed.
        """
        remembered = self.of(workspace_id, wanted)
        open_ = undecided(wanted, remembered)
        found = dict(await look_up(workspace_id, open_)) if open_ else {}
        if near := contended(wanted, found):
            await lock(workspace_id, sorted({key_id for key_id, _ in near}))
            found |= await look_up(workspace_id, near)
        full = {key_day: known for key_day, known in remembered.items() if len(known) >= COMBINATIONS_MAX}
        return full | {key_day: admitted(known, wanted[key_day]) for key_day, known in found.items()}

    def remember(self, workspace_id: UUID, tracked: Mapping[KeyDay, set[C]]) -> None:
        """Remember what was committed."""
        known = self._known.setdefault(workspace_id, {})
        for key_day, combinations in tracked.items():
            self._number += len(combinations) - len(known.get(key_day, ()))
            known[key_day] = self._shared(combinations)
        if self._number > self._most:
            self._known.clear()
            self._alike.clear()
            self._number = 0

    def _shared(self, combinations: set[C]) -> set[C]:
        """Return the one set that stands for all equal ones: most keys have a few, the same as others."""
        if len(combinations) > FEW:
            return combinations
        return self._alike.setdefault(frozenset(combinations), combinations)
