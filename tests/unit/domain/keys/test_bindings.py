"""Lists and reports of a caller that is bound to some apis, and the range of a list without one (spec §5, §6)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from latchkey_server.domain.keys.commands import bound_filter
from latchkey_server.domain.keys.ports import KeyFilter
from latchkey_server.domain.usage.query import default_range
from tests.unit.builders import API_ID, NOW, OTHER_API_ID, make_caller

BOUND = make_caller(api_ids=frozenset({API_ID}))


def test_an_unbound_caller_lists_what_it_asks_for() -> None:
    wanted = KeyFilter(api_ids=frozenset({OTHER_API_ID}), member="ada")

    assert bound_filter(make_caller(), wanted) == wanted
    assert bound_filter(make_caller(), KeyFilter()) == KeyFilter()


@pytest.mark.parametrize("asked", [(), (API_ID,), (API_ID, OTHER_API_ID)])
def test_a_bound_caller_lists_the_keys_of_its_apis_only(asked: tuple[UUID, ...]) -> None:
    wanted = replace(KeyFilter(member="ada"), api_ids=frozenset(asked))

    assert bound_filter(BOUND, wanted) == KeyFilter(api_ids=frozenset({API_ID}), member="ada")


def test_a_bound_caller_that_asks_for_other_apis_lists_nothing() -> None:
    assert bound_filter(BOUND, KeyFilter(api_ids=frozenset({OTHER_API_ID}))) is None


AHEAD = NOW + timedelta(minutes=5)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, (AHEAD - DAY, AHEAD)),
        (NOW - 9 * DAY, None, (NOW - 9 * DAY, AHEAD)),
        (None, NOW - 9 * DAY, (NOW - 10 * DAY, NOW - 9 * DAY)),
        (NOW - 9 * DAY, NOW - 8 * DAY, (NOW - 9 * DAY, NOW - 8 * DAY)),
    ],
)
def test_events_are_listed_for_the_24_hours_up_to_5_minutes_from_now_unless_told_otherwise(
    start: datetime | None, end: datetime | None, expected: tuple[datetime, datetime]
) -> None:
    assert default_range(start, end, NOW) == expected


def test_events_up_to_the_first_instant_of_the_calendar_have_a_range_too() -> None:
    first = datetime.min.replace(tzinfo=UTC)

    assert default_range(None, first, NOW) == (first, first)
