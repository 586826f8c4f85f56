"""Verifications counted by outcome: equal ones together, in memory, until they are flushed (spec §5).

Counts are at most once: what a killed process has not flushed is lost, and a flush that is repeated counts once.
"""

import re
from collections.abc import Container, Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from latchkey_server.domain.reporting.buckets import EARLIEST, QUARTER, quarter_of
from latchkey_server.domain.secret import well_formed
from latchkey_server.domain.turns import turn
from latchkey_server.domain.usage.combinations import KeyDay
from latchkey_server.domain.verify.model import Code

COUNTS_MAX, TEXTS_MAX = 200_000, 20_000
"""Different outcomes that a process holds between two flushes: in all, and of one workspace with their free text."""

BEGUN_MAX = 10_000
"""Tallies that count at the same time before they are added to the counts."""

MODEL_MAX = 128
_WORD = re.compile(r"([A-Za-z]{1,8})[_-]")
UNKNOWN: Final = UUID(int=0)
"""Stands for the key of a secret that no key has."""


_SUMMED_AT_ONCE = 128
"""Counts that are summed in a quarter of a millisecond."""


class CountKey(NamedTuple):
    """What equal verifications have in common; ``key_id`` is UNKNOWN for a secret that no key has."""

    workspace_id: UUID
    key_id: UUID
    code: Code
    management_key_id: UUID
    """The calling service."""
    model: str = ""
    tags: tuple[str, ...] = ()
    prefix: str = ""
    """What an unknown secret began with."""
    other: bool = False
    """Whether this is the overflow: model, tags and prefix are then empty."""


class VerificationCombination(NamedTuple):
    """The free text that the counts of a key and day are summed by."""

    management_key_id: UUID
    model: str
    tag: str
    prefix: str


class Outcome(NamedTuple):
    """What the verifications of a quarter of an hour, of whatever key, are summed by.

    Every verification is in one outcome that is not ``tagged``, and in one more for each of its tags. ``other`` marks
    the overflow; model, tag and prefix are then empty.
    """

    quarter: datetime
    code: Code
    management_key_id: UUID
    model: str = ""
    tag: str = ""
    tagged: bool = False
    prefix: str = ""
    other: bool = False


Outcomes = Mapping[Outcome, Mapping[UUID, int]]
"""How many verifications there were, by outcome and key."""


class Tally:
    """The number of equal verifications from one ready answer, between two flushes."""

    __slots__ = ("key", "value")

    def __init__(self, key: CountKey) -> None:
        self.key = key
        self.value = 0


Counts = Mapping[tuple[datetime, CountKey], int]
"""How many verifications there were, by quarter of an hour and what they have in common."""


class VerificationCounter:
    """Counts between two flushes; never fails and never waits.

    Bounded by workspace and in all: beyond the bound of a workspace outcomes lose their free text, beyond the bound of
    all they are dropped.
    """

    def __init__(self, most: int = COUNTS_MAX, texts_most: int = TEXTS_MAX) -> None:
        self._most = most
        self._texts_most = texts_most
        self._held = 0
        self._quarter = self._quarter_end = EARLIEST
        self._counts: dict[UUID, dict[tuple[datetime, CountKey], int]] = {}
        self._begun: list[Tally] = []
        self.dropped = 0

    def count(self, key: CountKey, now: datetime) -> None:
        """Count a verification."""
        self.look(now)
        self._add(key, 1)

    def begin(self, tally: Tally) -> None:
        """Register a tally that was zero and begins to count; it counts in the quarter of the last ``look``."""
        if len(self._begun) >= BEGUN_MAX:
            self._add_tallies()
        self._begun.append(tally)

    def look(self, now: datetime) -> None:
        """Move on to the quarter of an hour that ``now`` lies in."""
        if not self._quarter <= now < self._quarter_end:
            self._add_tallies()
            self._quarter = quarter_of(now)
            self._quarter_end = self._quarter + QUARTER

    def take(self, but: Container[UUID] = ()) -> dict[UUID, Counts]:
        """Return and remove what was counted, by workspace, except of the workspaces in ``but``."""
        self._add_tallies()
        taken = {workspace_id: counts for workspace_id, counts in self._counts.items() if workspace_id not in but}
        for workspace_id, counts in taken.items():
            del self._counts[workspace_id]
            self._held -= len(counts)
        return dict(taken)

    def _add_tallies(self) -> None:
        begun, self._begun = self._begun, []
        for tally in begun:
            self._add(tally.key, tally.value)
            tally.value = 0

    def _add(self, key: CountKey, number: int) -> None:
        counts = self._counts.get(key.workspace_id)
        if counts is None:
            counts = self._counts[key.workspace_id] = {}
        group = (self._quarter, key)
        counted = counts.get(group)
        if counted is None and len(counts) >= self._texts_most:
            group = (self._quarter, key._replace(model="", tags=(), prefix="", other=True))
            counted = counts.get(group)
        if counted is None:
            if self._held >= self._most:
                self.dropped += number
                return
            self._held += 1
        counts[group] = (counted or 0) + number


def counted_model(model: str | None) -> str:
    """Return a model as it is counted: empty if it was not sent, is too long or not printable."""
    return model if model and len(model) <= MODEL_MAX and model.isprintable() else ""


def shown_prefix(secret: str) -> str:
    """Return what may be shown of an unknown secret, which may be valid elsewhere.

    The prefix of a well-formed one; else what stands before the first `_` or `-`, if that is a short word.
    """
    if well_formed(secret):
        return secret.rpartition("_")[0]
    word = _WORD.match(secret)
    return word[1] if word else ""


async def by_outcome(counts: Counts) -> dict[Outcome, dict[UUID, int]]:
    """Return counts by outcome and key; others have their turn meanwhile."""
    outcomes: dict[Outcome, dict[UUID, int]] = {}
    # Most kinds of verifications are of many keys: what is made for the first of them serves the others.
    alike: dict[tuple[datetime, Code, UUID, str, tuple[str, ...], str, bool], list[dict[UUID, int]]] = {}
    for number, ((quarter, (_, key_id, code, caller, model, tags, prefix, other)), count) in enumerate(counts.items()):
        if not number % _SUMMED_AT_ONCE:
            await turn()
        kind = (quarter, code, caller, model, tags, prefix, other)
        summed = alike.get(kind)
        if summed is None:
            plain = Outcome(quarter, code, caller, model, prefix=prefix, other=other)
            kinds = [plain, *(plain._replace(tag=tag, tagged=True) for tag in dict.fromkeys(tags))]
            summed = alike[kind] = [outcomes.setdefault(outcome, {}) for outcome in kinds]
        for by_key in summed:
            by_key[key_id] = by_key.get(key_id, 0) + count
    return outcomes


def combination_of(outcome: Outcome) -> VerificationCombination:
    """Return the free text of an outcome."""
    return VerificationCombination(outcome.management_key_id, outcome.model, outcome.tag, outcome.prefix)


async def wanted_combinations(
    outcomes: Mapping[Outcome, Iterable[UUID]],
) -> dict[KeyDay, dict[VerificationCombination, None]]:
    """Return the combinations of each key and day, in the order of the outcomes; others have their turn meanwhile."""
    wanted: dict[KeyDay, dict[VerificationCombination, None]] = {}
    for outcome, by_key in outcomes.items():
        if outcome.other:
            continue
        await turn()
        day, combination = outcome.quarter.date(), combination_of(outcome)
        for key_id in by_key:
            wanted.setdefault((key_id, day), {})[combination] = None
    return wanted


async def within(outcomes: Outcomes, bounded: Mapping[KeyDay, set[VerificationCombination]]) -> Outcomes:
    """Return the outcomes with those combinations as ``other`` that are not tracked of keys and days in ``bounded``.

    Others have their turn meanwhile.
    """
    if not bounded:
        return outcomes
    found: dict[Outcome, dict[UUID, int]] = {}
    for outcome, by_key in outcomes.items():
        await turn()
        day, combination = outcome.quarter.date(), combination_of(outcome)
        other = outcome._replace(model="", tag="", prefix="", other=True)
        for key_id, count in by_key.items():
            tracked = bounded.get((key_id, day))
            summed = found.setdefault(outcome if tracked is None or combination in tracked else other, {})
            summed[key_id] = summed.get(key_id, 0) + count
    return found
