"""Verifications counted by outcome: equal ones together, in memory, until they are flushed (spec §5).

Counts are at most once: what a killed process has not flushed is lost, and a flush that is repeated counts once.
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from latchkey_server.domain.reporting.buckets import EARLIEST, QUARTER, quarter_of
from latchkey_server.domain.secret import well_formed
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


class CountRow(NamedTuple):
    """How many equal verifications there were in a quarter of an hour.

    Every verification is in one row that is not ``tagged``, and in one more for each of its tags. ``other`` marks the
    overflow; model, tag and prefix are then empty.
    """

    quarter: datetime
    key_id: UUID
    code: Code
    management_key_id: UUID
    model: str
    tag: str
    tagged: bool
    prefix: str
    other: bool
    verifications: int = 0


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


def rows_of(counts: Counts) -> list[CountRow]:
    """Return counts as rows, nothing summed yet."""
    rows = []
    for (quarter, (_, key_id, code, caller, model, tags, prefix, other)), count in counts.items():
        rows.append(CountRow(quarter, key_id, code, caller, model, "", False, prefix, other, count))
        if tags:
            rows += [
                CountRow(quarter, key_id, code, caller, model, tag, True, prefix, False, count)
                for tag in dict.fromkeys(tags)
            ]
    return rows


def combination_of(row: CountRow) -> VerificationCombination:
    """Return the free text of a row."""
    return VerificationCombination(row.management_key_id, row.model, row.tag, row.prefix)


def key_day_of(row: CountRow) -> KeyDay:
    """Return the key and the UTC day of a row."""
    return row.key_id, row.quarter.date()


def wanted_combinations(rows: Iterable[CountRow]) -> dict[KeyDay, dict[VerificationCombination, None]]:
    """Return the combinations of each key and day, in the order of the rows."""
    wanted: dict[KeyDay, dict[VerificationCombination, None]] = {}
    quarter, day = EARLIEST, EARLIEST.date()
    for row in rows:
        if row.other:
            continue
        # Nearly all rows are of one quarter.
        if row.quarter is not quarter:
            quarter, day = row.quarter, row.quarter.date()
        combinations = wanted.get((row.key_id, day))
        if combinations is None:
            combinations = wanted[row.key_id, day] = {}
        combinations[combination_of(row)] = None
    return wanted


def summed(rows: Sequence[CountRow], bounded: Mapping[KeyDay, set[VerificationCombination]]) -> list[CountRow]:
    """Return the rows summed, sorted; of keys and days in ``bounded``, untracked combinations become ``other``."""
    sums: dict[_GroupKey, CountRow] = {}
    for row in rows:
        counted = row
        if bounded and combination_of(row) not in bounded.get(key_day_of(row), (combination_of(row),)):
            counted = row._replace(model="", tag="", prefix="", other=True)
        key = _group_key(counted)
        # Nearly every row is alone in its group: to make one anew is what takes the time.
        if (same := sums.get(key)) is not None:
            counted = counted._replace(verifications=same.verifications + row.verifications)
        sums[key] = counted
    return [sums[key] for key in sorted(sums)]


_GroupKey = tuple[datetime, int, Code, int, str, str, bool, str, bool]


def _group_key(row: CountRow) -> _GroupKey:
    """Return the group key of a row, which orders rows too; ids are compared by their numbers, far faster."""
    quarter, key_id, code, caller, model, tag, tagged, prefix, other, _ = row
    return quarter, key_id.int, code, caller.int, model, tag, tagged, prefix, other
