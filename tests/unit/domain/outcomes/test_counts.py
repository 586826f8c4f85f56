"""Counts of verifications on their way to the database: by outcome and key (spec §5)."""

from datetime import timedelta
from typing import Any

import pytest

from latchkey_server.domain.outcomes.counts import (
    CountKey,
    Outcome,
    VerificationCombination,
    by_outcome,
    combination_of,
    wanted_combinations,
    within,
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


PLAIN = Outcome(QUARTER, Code.VALID, MANAGEMENT_KEY_ID)
LARGE, SMALL, TINY = (PLAIN._replace(model=model) for model in ("large", "small", "tiny"))


async def test_a_count_is_of_one_outcome_and_of_one_more_for_each_of_its_tags() -> None:
    counts = {
        (QUARTER, key(tags=("a", "b", "a"))): 3,
        (QUARTER, key(model="large")): 2,
        (QUARTER, key(key_id=OTHER_KEY_ID, tags=("b",))): 4,
        (QUARTER, key()): 1,
    }

    assert await by_outcome(counts) == {
        PLAIN: {KEY_ID: 4, OTHER_KEY_ID: 4},
        PLAIN._replace(tag="a", tagged=True): {KEY_ID: 3},
        PLAIN._replace(tag="b", tagged=True): {KEY_ID: 3, OTHER_KEY_ID: 4},
        LARGE: {KEY_ID: 2},
    }


async def test_what_is_not_tracked_is_summed_as_other() -> None:
    tracked = {(KEY_ID, DAY): {combination_of(LARGE)}}
    outcomes = {LARGE: {KEY_ID: 1}, SMALL: {KEY_ID: 2, OTHER_KEY_ID: 7}, TINY: {KEY_ID: 3}}

    assert await within(outcomes, tracked) == {
        LARGE: {KEY_ID: 1},
        SMALL: {OTHER_KEY_ID: 7},
        PLAIN._replace(other=True): {KEY_ID: 5},
    }


async def test_where_everything_is_tracked_nothing_changes() -> None:
    outcomes = {LARGE: {KEY_ID: 1}}

    assert await within(outcomes, {}) == outcomes


@pytest.mark.parametrize("days", [0, 1])
async def test_combinations_are_wanted_by_key_and_day_and_none_of_what_is_beyond_them(days: int) -> None:
    later = QUARTER + timedelta(days=days)
    outcomes = {LARGE: {KEY_ID: 1}, SMALL._replace(quarter=later): {KEY_ID: 1}, PLAIN._replace(other=True): {KEY_ID: 1}}

    wanted = await wanted_combinations(outcomes)

    large, small = (VerificationCombination(MANAGEMENT_KEY_ID, model, "", "") for model in ("large", "small"))
    together = {(KEY_ID, DAY): {large: None, small: None}}
    apart = {(KEY_ID, DAY): {large: None}, (KEY_ID, later.date()): {small: None}}
    assert wanted == (apart if days else together)
