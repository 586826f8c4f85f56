"""What events add to the roll-ups: sums by key, and by label, both by quarters of an hour (spec §5).

A quarter is the widest step on which the days of every time zone begin. Free text is bounded: beyond the first 1,000
combinations of member, model and task of a key and UTC day, the rest is summed together as ``other``.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple, TypeVar
from uuid import UUID

from latchkey_server.domain.reporting.buckets import quarter_of
from latchkey_server.domain.usage.combinations import KeyDay
from latchkey_server.domain.usage.event import StoredEvent, UsageType


class UsageCombination(NamedTuple):
    """The free text of an event that roll-ups sum by."""

    member: str
    model: str
    task: str
    other: bool = False
    """Whether it is the overflow; the texts are then empty."""


OTHER = UsageCombination("", "", "", True)


class KeyFacts(NamedTuple):
    """What recording usage needs to know of a key."""

    api_id: UUID
    member: str
    attributed_environment: str
    """The label under which its usage is summed until upkeep has reattributed it."""


class KeyQuarter(NamedTuple):
    """What events add to a key in a quarter of an hour; money in nano-dollars."""

    key_id: UUID
    quarter: datetime
    member: str
    model: str
    task: str
    other: bool
    events: int
    spend: int
    adjustments: int
    requests: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int


class LabelQuarter(NamedTuple):
    """What events add to a label in a quarter of an hour; money in nano-dollars."""

    quarter: datetime
    attributed_environment: str
    api_id: UUID
    model: str
    task: str
    other: bool
    events: int
    spend: int
    adjustments: int
    requests: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int


class RollUps(NamedTuple):
    """What a group of events adds, sorted, so that concurrent groups can't wait for each other in a circle."""

    by_key: list[KeyQuarter]
    by_label: list[LabelQuarter]


Bounded = Mapping[KeyDay, set[UsageCombination]]
"""The tracked combinations of the keys and days that overflow."""

SumKey = tuple[int, datetime, str, str, str]
"""The number of a key's id, a quarter of an hour, and member, model and task.

Flat, and the number instead of the id: ids are hashed and compared in Python, which would take as long as the summing.
"""

Summed = dict[SumKey, list[int]]
"""The seven sums of events by group."""

P = TypeVar("P")


def sum_up(events: Iterable[StoredEvent]) -> Summed:
    """Return the sums of events by group."""
    summed: Summed = {}
    for event, _, _, member, requests in events:
        group = (event.key_id.int, quarter_of(event.occurred_time), member, event.model, event.task)
        sums = summed.get(group)
        if sums is None:
            sums = summed[group] = [0] * 7
        sums[0] += 1
        sums[1 if event.type is UsageType.CONSUME else 2] += event.cost
        sums[3] += requests
        sums[4] += event.input_tokens
        sums[5] += event.output_tokens
        sums[6] += event.cached_tokens
    return summed


def wanted_combinations(summed: Summed, key_ids: Iterable[UUID]) -> dict[KeyDay, dict[UsageCombination, None]]:
    """Return the combinations of each key and day, in the order of the events; ``key_ids`` holds each of their keys."""
    by_number = {key_id.int: key_id for key_id in key_ids}
    wanted: dict[KeyDay, dict[UsageCombination, None]] = {}
    for number, quarter, member, model, task in summed:
        group = (by_number[number], quarter.date())
        wanted.setdefault(group, {})[UsageCombination(member, model, task)] = None
    return wanted


def roll_up(summed: Summed, keys: Mapping[UUID, KeyFacts], bounded: Bounded) -> RollUps:
    """Return what the sums add; ``keys`` knows each of their keys."""
    by_number = {key_id.int: (key_id, facts) for key_id, facts in keys.items()}
    by_label: dict[tuple[datetime, str, UUID, str, str, bool], list[int]] = {}
    by_key = _within_bound(summed, by_number, bounded)
    for (number, quarter, _, model, task, other), sums in by_key.items():
        facts = by_number[number][1]
        _add(by_label, (quarter, facts.attributed_environment, facts.api_id, model, task, other), sums)
    return RollUps(
        [KeyQuarter(by_number[group[0]][0], *group[1:], *sums) for group, sums in sorted(by_key.items())],
        [LabelQuarter(*group, *sums) for group, sums in sorted(by_label.items())],
    )


_Bounded = dict[tuple[int, datetime, str, str, str, bool], list[int]]


def _within_bound(summed: Summed, by_number: Mapping[int, tuple[UUID, KeyFacts]], bounded: Bounded) -> _Bounded:
    """Return the sums with the overflow as ``other``."""
    if not bounded:
        return {(*group, False): sums for group, sums in summed.items()}
    by_key: _Bounded = {}
    for (number, quarter, member, model, task), sums in summed.items():
        tracked = bounded.get((by_number[number][0], quarter.date()))
        combination = UsageCombination(member, model, task)
        if tracked is not None and combination not in tracked:
            combination = OTHER
        _add(by_key, (number, quarter, *combination), sums)
    return by_key


def _add(into: dict[P, list[int]], group: P, sums: list[int]) -> None:
    total = into.get(group)
    if total is None:
        into[group] = sums.copy()
    else:
        for index, added in enumerate(sums):
            total[index] += added
