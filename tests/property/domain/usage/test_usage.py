"""Usage events of any content: what makes two the same, and that sums are preserved (spec §5)."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from latchkey_server.domain.errors import InvalidField, Violation
from latchkey_server.domain.reporting.buckets import quarter_of
from latchkey_server.domain.usage import event as usage
from latchkey_server.domain.usage.combinations import COMBINATIONS_MAX, KeyDay, admitted, bounded
from latchkey_server.domain.usage.event import StoredEvent, UsageEvent, UsageType
from latchkey_server.domain.usage.rollups import KeyFacts, RollUps, roll_up, sum_up, wanted_combinations
from tests.unit.builders import API_ID, make_event, stored, uuid_of

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=3)
COUNTS = st.integers(0, 3)
CONTENT: dict[str, st.SearchStrategy[Any]] = {
    "key_id": st.builds(uuid_of, st.integers(1, 3)),
    "type": st.sampled_from(UsageType),
    "occurred_time": st.timedeltas(timedelta(0), timedelta(days=3)).map(
        lambda passed: datetime(2026, 3, 13, tzinfo=UTC) + passed
    ),
    "member": st.none() | TEXT,
    "model": TEXT,
    "task": TEXT,
    "requests": st.none() | COUNTS,
    "input_tokens": COUNTS,
    "output_tokens": COUNTS,
    "cached_tokens": COUNTS,
    "cost": st.integers(-3, 3),
    "operation_id": TEXT,
    "metadata": st.none() | st.dictionaries(TEXT, COUNTS, max_size=2),
}
EVENTS = st.fixed_dictionaries(CONTENT).map(lambda content: make_event(**content))
STORED = st.builds(stored, EVENTS, TEXT)


def rolled_up(events: Sequence[StoredEvent], most: int = COMBINATIONS_MAX) -> RollUps:
    keys = {item.event.key_id: KeyFacts(API_ID, "", f"label {item.event.key_id.int % 2}") for item in events}
    summed = sum_up(events)
    wanted = wanted_combinations(summed, keys)
    tracked = {place: admitted(set(), wanted[place], most) for place in wanted}
    return roll_up(summed, keys, bounded(wanted, tracked))


@given(EVENTS, EVENTS)
def test_two_events_have_the_same_content_exactly_when_every_field_is_equal(one: UsageEvent, other: UsageEvent) -> None:
    assert (usage.content_hash(one) == usage.content_hash(other)) is (one == other)


@given(EVENTS, st.data())
def test_a_change_of_any_field_is_other_content(event: UsageEvent, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CONTENT)))
    content = {field: getattr(event, field) for field in CONTENT} | {name: data.draw(CONTENT[name])}
    changed = make_event(**content)

    assert (usage.content_hash(event) == usage.content_hash(changed)) is (event == changed)


@given(st.lists(STORED, max_size=20), st.integers(1, 4))
def test_roll_ups_keep_every_sum_however_few_combinations_are_kept_apart(events: list[StoredEvent], most: int) -> None:
    by_key, by_label = rolled_up(events, most)

    for rows in (by_key, by_label):
        assert sum(row.events for row in rows) == len(events)
        assert sum(row.spend + row.adjustments for row in rows) == sum(item.event.cost for item in events)
        assert sum(row.requests for row in rows) == sum(item.requests for item in events)
        for name in ("input_tokens", "output_tokens", "cached_tokens"):
            assert sum(getattr(row, name) for row in rows) == sum(getattr(item.event, name) for item in events)
        consumed = [item.event.cost for item in events if item.event.type is UsageType.CONSUME]
        assert sum(row.spend for row in rows) == sum(consumed)


@given(st.lists(STORED, max_size=20), st.integers(1, 4))
def test_no_more_combinations_are_kept_apart_than_may_be(events: list[StoredEvent], most: int) -> None:
    apart: dict[KeyDay, set[tuple[str, ...]]] = {}
    for row in rolled_up(events, most).by_key:
        if not row.other:
            apart.setdefault((row.key_id, row.quarter.date()), set()).add((row.member, row.model, row.task))

    assert all(len(combinations) <= most for combinations in apart.values())


@given(st.lists(STORED, max_size=20))
def test_roll_ups_are_in_order_and_one_a_place(events: list[StoredEvent]) -> None:
    by_key, by_label = rolled_up(events)

    assert [row[:6] for row in by_key] == sorted({row[:6] for row in by_key})
    assert [row[:6] for row in by_label] == sorted({row[:6] for row in by_label})
    assert {row.quarter for row in by_key} == {quarter_of(item.event.occurred_time) for item in events}


@given(st.lists(STORED, max_size=8).flatmap(lambda events: st.tuples(st.just(events), st.permutations(events))))
def test_the_order_of_events_makes_no_difference(orders: tuple[list[StoredEvent], list[StoredEvent]]) -> None:
    assert rolled_up(orders[1]) == rolled_up(orders[0])


@given(EVENTS)
def test_what_is_refused_is_named_by_fields_of_the_event(event: UsageEvent) -> None:
    violations: tuple[Violation, ...] = ()
    try:
        usage.check_event(event)
    except InvalidField as error:
        violations = error.violations

    for violation in violations:
        assert violation.field.removeprefix("event.") in UsageEvent._fields


@given(EVENTS)
def test_the_content_of_an_event_is_hashed_as_it_ever_was(event: UsageEvent) -> None:
    """As compact JSON with sorted keys: what was recorded under it is compared with for ever."""
    content = [
        str(event.key_id),
        int(event.type),
        event.member,
        event.model,
        event.task,
        event.requests,
        event.input_tokens,
        event.output_tokens,
        event.cached_tokens,
        event.cost,
        event.occurred_time.astimezone(UTC).isoformat(timespec="microseconds"),
        event.operation_id,
        event.metadata,
    ]
    text = json.dumps(content, separators=(",", ":"), sort_keys=True)

    assert usage.content_hash(event) == hashlib.sha256(text.encode()).digest()[:16]
