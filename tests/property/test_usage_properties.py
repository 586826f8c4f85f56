"""Usage events of any content: what makes two the same, and that sums are kept (spec §5)."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from latchkey_server.domain import usage
from latchkey_server.domain.errors import InvalidField, Violation
from latchkey_server.domain.usage import StoredEvent, UsageEvent, UsageType
from tests.unit.builders import make_event, uuid_of

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
STORED = st.builds(usage.stored, EVENTS, TEXT)


@given(EVENTS, EVENTS)
def test_two_events_have_the_same_content_exactly_when_every_field_is_equal(one: UsageEvent, other: UsageEvent) -> None:
    assert (usage.content_hash(one) == usage.content_hash(other)) is (one == other)


@given(EVENTS, st.data())
def test_a_change_of_any_field_is_other_content(event: UsageEvent, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CONTENT)))
    content = {field: getattr(event, field) for field in CONTENT} | {name: data.draw(CONTENT[name])}
    changed = make_event(**content)

    assert (usage.content_hash(event) == usage.content_hash(changed)) is (event == changed)


@given(st.lists(STORED, max_size=20))
def test_roll_ups_keep_every_sum(events: list[StoredEvent]) -> None:
    rollups = usage.roll_up(events)

    assert sum(row.spend + row.adjustments for row in rollups) == sum(item.event.cost for item in events)
    assert sum(row.requests for row in rollups) == sum(item.requests for item in events)
    for name in ("input_tokens", "output_tokens", "cached_tokens"):
        assert sum(getattr(row, name) for row in rollups) == sum(getattr(item.event, name) for item in events)
    consumed = [item.event.cost for item in events if item.event.type is UsageType.CONSUME]
    assert sum(row.spend for row in rollups) == sum(consumed)


@given(st.lists(STORED, max_size=20))
def test_roll_ups_are_one_a_key_and_day_in_order(events: list[StoredEvent]) -> None:
    places = [(row.key_id, row.day) for row in usage.roll_up(events)]

    assert places == sorted({(item.event.key_id, item.event.occurred_time.date()) for item in events})


@given(st.lists(STORED, max_size=8).flatmap(lambda events: st.tuples(st.just(events), st.permutations(events))))
def test_the_order_of_events_makes_no_difference(orders: tuple[list[StoredEvent], list[StoredEvent]]) -> None:
    assert usage.roll_up(orders[1]) == usage.roll_up(orders[0])


@given(EVENTS)
def test_what_is_refused_is_named_by_fields_of_the_event(event: UsageEvent) -> None:
    violations: tuple[Violation, ...] = ()
    try:
        usage.check_event(event)
    except InvalidField as error:
        violations = error.violations

    for violation in violations:
        assert violation.field.removeprefix("event.") in UsageEvent.__slots__
