"""Credits and their refills in time (spec §3)."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from latchkey_server.domain.limits.credits import credit_state, next_refill
from latchkey_server.domain.model import (
    Balance,
    CreditRefill,
    Credits,
    CreditState,
    RefillInterval,
)
from tests.unit.builders import NOW, TICK, at


def daily(amount: int = 10) -> CreditRefill:
    return CreditRefill(RefillInterval.DAILY, amount, 1)


def monthly(day: int, amount: int = 10) -> CreditRefill:
    return CreditRefill(RefillInterval.MONTHLY, amount, day)


@pytest.mark.parametrize(
    ("refill", "after", "expected"),
    [
        (daily(), "2026-03-14T15:00:00", "2026-03-15"),
        (daily(), "2026-03-14T00:00:00", "2026-03-15"),
        (daily(), "2026-03-13T23:59:59.999999", "2026-03-14"),
        (daily(), "2026-12-31T12:00:00", "2027-01-01"),
        (monthly(15), "2026-03-14T15:00:00", "2026-03-15"),
        (monthly(15), "2026-03-15T00:00:00", "2026-04-15"),
        (monthly(15), "2026-03-14T23:59:59.999999", "2026-03-15"),
        (monthly(1), "2026-12-31T12:00:00", "2027-01-01"),
        (monthly(31), "2026-01-31T12:00:00", "2026-02-28"),
        (monthly(31), "2024-01-31T12:00:00", "2024-02-29"),
        (monthly(31), "2026-02-28T00:00:00", "2026-03-31"),
        (monthly(31), "2026-02-27T12:00:00", "2026-02-28"),
        (monthly(31), "2026-03-31T00:00:00", "2026-04-30"),
        (monthly(30), "2026-01-30T00:00:00", "2026-02-28"),
        (monthly(29), "2026-02-28T00:00:00", "2026-03-29"),
        (monthly(31), "2026-12-31T00:00:00", "2027-01-31"),
    ],
)
def test_the_next_refill_is_a_utc_midnight_and_its_day_is_clamped_to_short_months(
    refill: CreditRefill, after: str, expected: str
) -> None:
    assert next_refill(refill, at(after)) == at(expected)


def test_a_refill_comes_at_midnight_in_utc_whatever_the_zone_of_the_instant() -> None:
    kolkata = timezone(timedelta(hours=5, minutes=30))

    assert next_refill(daily(), datetime(2026, 3, 15, 1, tzinfo=kolkata)) == at("2026-03-15")


def test_a_key_without_credits_has_no_credit_state() -> None:
    assert credit_state(None, Balance(5, NOW), NOW) is None


def test_credits_begin_with_their_amount_and_go_on_with_their_balance() -> None:
    assert credit_state(Credits(100, None), None, NOW) == CreditState(100, None)
    assert credit_state(Credits(100, None), Balance(7, NOW), NOW) == CreditState(7, None)


@pytest.mark.parametrize(("remaining", "after"), [(0, 10), (9, 10), (10, 10), (50, 50)])
def test_a_refill_sets_remaining_to_the_larger_of_remaining_and_amount(remaining: int, after: int) -> None:
    balance = Balance(remaining, at("2026-03-14T12:00:00"))
    now = at("2026-03-15T00:00:00")

    assert credit_state(Credits(1, daily(10)), balance, now) == CreditState(after, at("2026-03-16"))


def test_a_refill_has_no_effect_before_its_midnight() -> None:
    balance = Balance(3, at("2026-03-14T12:00:00"))
    now = at("2026-03-15") - TICK

    assert credit_state(Credits(1, daily(10)), balance, now) == CreditState(3, at("2026-03-15"))


def test_several_missed_refills_act_once() -> None:
    balance = Balance(3, at("2026-01-01T12:00:00"))

    assert credit_state(Credits(1, daily(10)), balance, NOW) == CreditState(10, at("2026-03-15"))


def test_a_refill_that_has_acted_does_not_act_again_the_same_day() -> None:
    settled = at("2026-03-15T00:00:00")

    assert credit_state(Credits(1, daily(10)), Balance(2, settled), settled + timedelta(hours=20)) == CreditState(
        2, at("2026-03-16")
    )


def test_a_monthly_refill_on_the_31st_acts_on_the_last_of_february() -> None:
    balance = Balance(0, at("2026-01-31T12:00:00"))
    credits = Credits(1, monthly(31))

    assert credit_state(credits, balance, at("2026-02-28") - TICK) == CreditState(0, at("2026-02-28"))
    assert credit_state(credits, balance, at("2026-02-28")) == CreditState(10, at("2026-03-31"))


def test_a_refill_without_a_balance_waits_for_the_next_midnight() -> None:
    assert credit_state(Credits(4, daily(10)), None, NOW) == CreditState(4, at("2026-03-15"))


def test_the_instant_may_be_given_in_any_zone() -> None:
    assert next_refill(daily(), NOW.astimezone(timezone(timedelta(hours=-9)))).tzinfo is UTC
