"""Counts of verifications on their way to the database: rows, sorted and one a group (spec §5)."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from latchkey_server.domain.outcomes.counts import (
    CountKey,
    CountRow,
    VerificationCombination,
    rows_of,
    summed,
    wanted_combinations,
)
from latchkey_server.domain.reporting.buckets import quarter_of
from latchkey_server.domain.verify.model import Code
from tests.unit.builders import KEY_ID, MANAGEMENT_KEY_ID, NOW, OTHER_KEY_ID, WORKSPACE_ID

QUARTER = quarter_of(NOW)
DAY = QUARTER.date()


def key(**changes: Any) -> CountKey:
    facts: dict[str, Any] = {
        "workspace_id": WORKSPACE_ID,
        "key_id": KEY_ID,
        "code": Code.VALID,
        "management_key_id": MANAGEMENT_KEY_ID,
    }
    return CountKey(**{**facts, **changes})


def row(**changes: Any) -> CountRow:
    plain = CountRow(QUARTER, KEY_ID, Code.VALID, MANAGEMENT_KEY_ID, "", "", False, "", False, 1)
    return plain._replace(**changes)


def test_a_count_is_one_row_and_one_more_for_each_of_its_tags() -> None:
    rows = rows_of({(QUARTER, key(tags=("a", "b", "a"))): 3, (QUARTER, key(model="large")): 2})

    assert rows == [
        row(verifications=3),
        row(tag="a", tagged=True, verifications=3),
        row(tag="b", tagged=True, verifications=3),
        row(model="large", verifications=2),
    ]


def test_rows_of_one_group_become_one_and_come_in_one_order() -> None:
    earlier = row(quarter=QUARTER - timedelta(hours=1), verifications=7)
    rows = [row(verifications=2), row(key_id=OTHER_KEY_ID), row(verifications=5), row(model="large"), earlier]

    found = summed(rows, {})

    assert found == [earlier, row(verifications=7), row(model="large"), row(key_id=OTHER_KEY_ID)]
    assert summed(list(reversed(rows)), {}) == found


def test_ids_are_ordered_by_their_numbers_whatever_kind_they_are_of() -> None:
    ids = [UUID(int=number) for number in (3, 1, 2**127, 2)]

    assert [item.key_id.int for item in summed([row(key_id=key_id) for key_id in ids], {})] == [1, 2, 3, 2**127]


def test_what_is_not_tracked_is_summed_as_other() -> None:
    tracked = {(KEY_ID, DAY): {VerificationCombination(MANAGEMENT_KEY_ID, "large", "", "")}}
    rows = [row(model="large"), row(model="small", verifications=2), row(model="tiny", verifications=3)]

    assert summed(rows, tracked) == [row(verifications=5, other=True), row(model="large")]


@pytest.mark.parametrize("days", [0, 1])
def test_combinations_are_wanted_by_key_and_day_and_none_of_what_is_beyond_them(days: int) -> None:
    later = QUARTER + timedelta(days=days)
    rows = [row(model="large"), row(quarter=later, model="small"), row(other=True)]

    wanted = wanted_combinations(rows)

    large, small = (VerificationCombination(MANAGEMENT_KEY_ID, model, "", "") for model in ("large", "small"))
    together = {(KEY_ID, DAY): {large: None, small: None}}
    apart = {(KEY_ID, DAY): {large: None}, (KEY_ID, later.date()): {small: None}}
    assert wanted == (apart if days else together)
