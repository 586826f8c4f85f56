"""Usage events: what is accepted, and which ones are the same (spec §5)."""

from datetime import timedelta, timezone
from typing import Any

import pytest

from latchkey.rules import NANOS
from latchkey_server.domain.errors import InvalidField, OccurredTimeOutOfRange
from latchkey_server.domain.usage import event as usage
from latchkey_server.domain.usage.event import UsageType
from tests.unit.builders import NOW, OTHER_KEY_ID, TICK, at, fields_of, make_event

COUNTS = ("requests", "input_tokens", "output_tokens")
CORRECTIONS = [UsageType.REFUND, UsageType.ADJUSTMENT, UsageType.BLOCKED, UsageType.ERROR]


def refused(**changes: Any) -> list[str]:
    """Return the paths that are refused."""
    with pytest.raises(InvalidField) as caught:
        usage.check_event(make_event(**changes))
    return fields_of(caught)


@pytest.mark.parametrize(
    ("type_", "cost", "accepted"),
    [
        (UsageType.CONSUME, 1, True),
        (UsageType.CONSUME, 0, True),
        (UsageType.CONSUME, -1, False),
        (UsageType.REFUND, 1, False),
        (UsageType.REFUND, 0, True),
        (UsageType.REFUND, -1, True),
        (UsageType.ADJUSTMENT, 1, True),
        (UsageType.ADJUSTMENT, 0, True),
        (UsageType.ADJUSTMENT, -1, True),
        (UsageType.BLOCKED, 1, False),
        (UsageType.BLOCKED, 0, True),
        (UsageType.BLOCKED, -1, False),
        (UsageType.ERROR, 1, False),
        (UsageType.ERROR, 0, True),
        (UsageType.ERROR, -1, False),
    ],
)
def test_a_cost_has_the_sign_that_its_type_allows(type_: UsageType, cost: int, accepted: bool) -> None:
    if accepted:
        usage.check_event(make_event(type=type_, cost=cost))
    else:
        assert refused(type=type_, cost=cost) == ["event.cost"]


@pytest.mark.parametrize("field", COUNTS)
@pytest.mark.parametrize("type_", CORRECTIONS)
def test_only_consume_counts_requests_and_tokens(type_: UsageType, field: str) -> None:
    assert refused(type=type_, **{field: 1}) == ["event.requests"]
    usage.check_event(make_event(type=type_, **{field: 0}))
    usage.check_event(make_event(**{field: 1}))


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "s" * 64, "event_id": "!" + "e" * 126 + "~"},
        {"cost": 1_000_000 * NANOS},
        {"type": UsageType.ADJUSTMENT, "cost": -1_000_000 * NANOS},
        {"requests": 1_000_000_000},
        {"input_tokens": 10**9, "output_tokens": 10**9, "cached_tokens": 10**9},
        {"member": "m" * 128, "model": "m" * 128, "task": "t" * 128, "operation_id": "o" * 64},
        {"member": ""},
        {"metadata": {"a": "x" * 504}},
    ],
)
def test_an_event_within_its_ranges_is_accepted(changes: dict[str, Any]) -> None:
    usage.check_event(make_event(**changes))


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"source": ""}, ["event.source"]),
        ({"source": "a b"}, ["event.source"]),
        ({"source": "s\n"}, ["event.source"]),
        ({"source": "s" * 65}, ["event.source"]),
        ({"event_id": ""}, ["event.event_id"]),
        ({"event_id": "a b"}, ["event.event_id"]),
        ({"event_id": "é"}, ["event.event_id"]),
        ({"event_id": "e\n"}, ["event.event_id"]),
        ({"event_id": "e" * 129}, ["event.event_id"]),
        ({"member": "m" * 129}, ["event.member"]),
        ({"member": "\0"}, ["event.member"]),
        ({"model": "m" * 129}, ["event.model"]),
        ({"task": "t" * 129}, ["event.task"]),
        ({"operation_id": "o" * 65}, ["event.operation_id"]),
        ({"operation_id": "o o"}, ["event.operation_id"]),
        ({"metadata": {"a": "x" * 505}}, ["event.metadata"]),
        ({"metadata": {"a": "\0"}}, ["event.metadata"]),
        ({"requests": -1}, ["event.requests"]),
        ({"requests": 1_000_000_001}, ["event.requests"]),
        ({"input_tokens": -1, "cached_tokens": -1}, ["event.input_tokens", "event.cached_tokens"]),
        ({"output_tokens": 10**9 + 1}, ["event.output_tokens"]),
        ({"input_tokens": 4, "cached_tokens": 5}, ["event.cached_tokens"]),
        ({"cost": 1_000_000 * NANOS + 1}, ["event.cost"]),
        ({"source": "", "event_id": "", "cost": -1}, ["event.source", "event.event_id", "event.cost"]),
    ],
)
def test_an_event_outside_its_ranges_is_refused_by_name(changes: dict[str, Any], fields: list[str]) -> None:
    assert refused(**changes) == fields


def test_an_event_is_accepted_from_the_earliest_to_the_latest_instant() -> None:
    event = make_event()

    usage.check_time(event, NOW, NOW)
    for window in ((NOW + TICK, NOW + timedelta(days=1)), (NOW - timedelta(days=1), NOW - TICK)):
        with pytest.raises(OccurredTimeOutOfRange):
            usage.check_time(event, *window)


def test_a_refused_time_comes_with_the_accepted_window() -> None:
    with pytest.raises(OccurredTimeOutOfRange) as caught:
        usage.check_time(make_event(), at("2026-04-01"), at("2026-05-06"))

    assert caught.value.details == {"earliest": "2026-04-01T00:00:00Z", "latest": "2026-05-06T00:00:00Z"}


@pytest.mark.parametrize(
    ("type_", "sent", "counted"),
    [(UsageType.CONSUME, None, 1), (UsageType.CONSUME, 0, 0), (UsageType.CONSUME, 7, 7)]
    + [(type_, None, 0) for type_ in CORRECTIONS],
)
def test_requests_default_to_1_for_consume_only(type_: UsageType, sent: int | None, counted: int) -> None:
    assert usage.default_requests(make_event(type=type_, requests=sent)) == counted


def test_an_identity_is_16_bytes_of_source_and_event_id() -> None:
    pairs = [("a", "bc"), ("ab", "c"), ("a", "b"), ("b", "a"), ("A", "bc")]

    assert {len(usage.id_hash(*pair)) for pair in pairs} == {16}
    assert len({usage.id_hash(*pair) for pair in pairs}) == len(pairs)
    assert usage.id_hash("a", "bc") == usage.id_hash("a", "bc")


def test_content_does_not_depend_on_the_identity() -> None:
    assert usage.content_hash(make_event(source="other", event_id="evt-2")) == usage.content_hash(make_event())
    assert len(usage.content_hash(make_event())) == 16


@pytest.mark.parametrize(
    "changes",
    [
        {"key_id": OTHER_KEY_ID},
        {"type": UsageType.ADJUSTMENT},
        {"member": "ada"},
        {"member": ""},
        {"model": "small"},
        {"task": "chat"},
        {"requests": 1},
        {"requests": 0},
        {"input_tokens": 1},
        {"output_tokens": 1},
        {"cached_tokens": 1},
        {"cost": 1},
        {"occurred_time": NOW + TICK},
        {"operation_id": "o"},
        {"metadata": {}},
        {"metadata": {"a": 1}},
    ],
    ids=str,
)
def test_each_field_as_it_was_sent_makes_other_content(changes: dict[str, Any]) -> None:
    assert usage.content_hash(make_event()) != usage.content_hash(make_event(**changes))


def test_every_field_is_part_of_the_identity_or_of_the_content() -> None:
    changed: dict[str, Any] = {
        "source": "other",
        "event_id": "evt-2",
        "key_id": OTHER_KEY_ID,
        "type": UsageType.REFUND,
        "occurred_time": NOW + TICK,
        "member": "ada",
        "model": "small",
        "task": "chat",
        "requests": 1,
        "input_tokens": 1,
        "output_tokens": 1,
        "cached_tokens": 1,
        "cost": 1,
        "operation_id": "o",
        "metadata": {},
    }

    def seen(event: usage.UsageEvent) -> tuple[bytes, bytes]:
        return usage.id_hash(event.source, event.event_id), usage.content_hash(event)

    assert set(usage.UsageEvent._fields) == set(changed)
    for name, value in changed.items():
        assert seen(make_event()) != seen(make_event()._replace(**{name: value})), name


def test_values_never_slip_from_one_field_into_the_next() -> None:
    assert usage.content_hash(make_event(model="a", task="")) != usage.content_hash(make_event(model="", task="a"))
    assert usage.content_hash(make_event(input_tokens=1)) != usage.content_hash(make_event(output_tokens=1))


def test_content_is_the_same_for_the_same_instant_and_the_same_metadata_in_another_order() -> None:
    kolkata = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    one = make_event(metadata={"a": 1, "b": {"c": 2, "d": 3}})
    other = make_event(occurred_time=kolkata, metadata={"b": {"d": 3, "c": 2}, "a": 1})

    assert usage.content_hash(other) == usage.content_hash(one)
