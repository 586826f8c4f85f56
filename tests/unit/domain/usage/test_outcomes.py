"""What becomes of reported events: each by itself, identity before time and key (spec §5)."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from latchkey_server.domain.errors import InvalidField, KeyNotFound, OccurredTimeOutOfRange, UsageConflict
from latchkey_server.domain.usage.event import Outcome, content_hash, id_hash
from latchkey_server.domain.usage.outcomes import (
    ReportedItem,
    Window,
    checked,
    first_of_each,
    outcomes,
    refused,
    sort_out,
)
from latchkey_server.domain.usage.rollups import KeyFacts
from tests.unit.builders import API_ID, KEY_ID, NOW, OTHER_API_ID, OTHER_KEY_ID, make_caller, make_event, stored

WINDOW = Window(NOW - timedelta(days=35), NOW + timedelta(minutes=5))
KEYS = {KEY_ID: KeyFacts(API_ID, "ada", "prod")}
OLD = NOW - timedelta(days=36)


def sorted_out(items: Sequence[ReportedItem], **caller: Any) -> list[Any]:
    return [sort_out(make_caller(**caller), KEYS, WINDOW, checked(item)) for item in items]


def told(items: Sequence[ReportedItem], recorded: dict[bytes, bytes] | None = None) -> list[tuple[str, str | None]]:
    [results] = outcomes([sorted_out(items)], recorded or {})
    return [(result.outcome.name, type(result.error).__name__ if result.error else None) for result in results]


@pytest.mark.parametrize(
    ("sent", "of_key", "stamped"), [(None, "ada", "ada"), ("", "ada", ""), ("bob", "ada", "bob"), (None, "", "")]
)
def test_an_events_member_is_the_one_sent_else_the_keys(sent: str | None, of_key: str, stamped: str) -> None:
    keys = {KEY_ID: KeyFacts(API_ID, of_key, "")}
    ready = sort_out(make_caller(), keys, WINDOW, checked(make_event(member=sent)))

    assert ready.stored == stored(make_event(member=sent), stamped)


def test_a_new_event_is_new_and_its_repetition_a_duplicate_or_a_conflict() -> None:
    assert told([make_event(), make_event(), make_event(cost=1)]) == [
        (Outcome.NEW.name, None),
        (Outcome.DUPLICATE.name, None),
        (Outcome.CONFLICT.name, UsageConflict.__name__),
    ]


def test_a_repetition_in_another_submission_of_the_group_is_one_too() -> None:
    first, second = outcomes([sorted_out([make_event()]), sorted_out([make_event()])], {})

    assert (first[0].outcome, second[0].outcome) == (Outcome.NEW, Outcome.DUPLICATE)


def test_what_is_recorded_is_compared_before_time_and_key() -> None:
    same, other = make_event(occurred_time=OLD), make_event(event_id="2", key_id=OTHER_KEY_ID)
    recorded = {id_hash("gateway", "evt-1"): content_hash(same), id_hash("gateway", "2"): b"other content"}

    assert told([same, other], recorded) == [("DUPLICATE", None), ("CONFLICT", "UsageConflict")]


def test_a_bad_event_is_rejected_alone_and_takes_no_identity() -> None:
    wrong, unknown, old = make_event(cost=-1), make_event(key_id=OTHER_KEY_ID), make_event(occurred_time=OLD)

    assert told([wrong, unknown, old, make_event()]) == [
        ("REJECTED", InvalidField.__name__),
        ("REJECTED", KeyNotFound.__name__),
        ("REJECTED", OccurredTimeOutOfRange.__name__),
        ("NEW", None),
    ]


def test_a_key_outside_the_callers_binding_is_as_unknown() -> None:
    [bound] = sorted_out([make_event()], api_ids=frozenset({OTHER_API_ID}))

    assert isinstance(bound.error, KeyNotFound)


def test_the_first_recordable_event_of_an_identity_is_the_one_to_record() -> None:
    groups = [sorted_out([make_event(key_id=OTHER_KEY_ID), make_event(cost=1)]), sorted_out([make_event(cost=2)])]

    fresh = first_of_each(groups)

    assert [item.event.cost for item in fresh.values()] == [1]
    assert refused(groups) == {id_hash("gateway", "evt-1")}
