"""Budgets in time: spend windows, credit refills and the status they amount to (spec §3)."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from latchkey_server.domain.keys.status import key_status
from latchkey_server.domain.limits.credits import credit_state, next_refill
from latchkey_server.domain.limits.spend import spend_state, spend_window
from latchkey_server.domain.model import (
    Balance,
    CreditRefill,
    Credits,
    CreditState,
    KeyFields,
    KeyStatus,
    RefillInterval,
    SpendLimit,
    SpendReset,
    SpendState,
)
from tests.unit.builders import NOW, REVOCATION, TICK, at, make_key, some_credits, some_spend


def daily(amount: int = 10) -> CreditRefill:
    return CreditRefill(RefillInterval.DAILY, amount, 1)


def monthly(day: int, amount: int = 10) -> CreditRefill:
    return CreditRefill(RefillInterval.MONTHLY, amount, day)


@pytest.mark.parametrize(
    ("reset", "now", "start", "end"),
    [
        (SpendReset.DAILY, "2026-03-14T00:00:00", date(2026, 3, 14), "2026-03-15"),
        (SpendReset.DAILY, "2026-03-14T23:59:59.999999", date(2026, 3, 14), "2026-03-15"),
        (SpendReset.DAILY, "2026-12-31T12:00:00", date(2026, 12, 31), "2027-01-01"),
        (SpendReset.WEEKLY, "2026-03-09T00:00:00", date(2026, 3, 9), "2026-03-16"),
        (SpendReset.WEEKLY, "2026-03-15T23:59:59.999999", date(2026, 3, 9), "2026-03-16"),
        (SpendReset.WEEKLY, "2026-01-01T12:00:00", date(2025, 12, 29), "2026-01-05"),
        (SpendReset.MONTHLY, "2026-03-01T00:00:00", date(2026, 3, 1), "2026-04-01"),
        (SpendReset.MONTHLY, "2026-03-31T23:59:59.999999", date(2026, 3, 1), "2026-04-01"),
        (SpendReset.MONTHLY, "2024-02-29T12:00:00", date(2024, 2, 1), "2024-03-01"),
        (SpendReset.MONTHLY, "2026-02-28T12:00:00", date(2026, 2, 1), "2026-03-01"),
        (SpendReset.MONTHLY, "2026-12-31T12:00:00", date(2026, 12, 1), "2027-01-01"),
    ],
)
def test_a_spend_window_is_the_utc_day_monday_week_or_month_of_now(
    reset: SpendReset, now: str, start: date, end: str
) -> None:
    assert spend_window(reset, at(now)) == (start, at(end))


def test_a_cap_without_reset_has_no_window() -> None:
    assert spend_window(SpendReset.NONE, NOW) == (None, None)


def test_a_spend_window_is_computed_in_utc_whatever_the_zone_of_now() -> None:
    kolkata = timezone(timedelta(hours=5, minutes=30))
    now = datetime(2026, 3, 15, 1, tzinfo=kolkata)

    assert spend_window(SpendReset.DAILY, now) == (date(2026, 3, 14), at("2026-03-15"))


def test_spend_is_compared_with_the_cap_of_the_current_window() -> None:
    limit = SpendLimit(100, SpendReset.DAILY)

    assert spend_state(limit, 30, NOW) == SpendState(100, 30, 0, at("2026-03-15"))
    assert spend_state(None, 30, NOW) is None


@pytest.mark.parametrize(
    ("spent", "reserved", "remaining"), [(0, 0, 100), (30, 20, 50), (100, 0, 0), (90, 20, 0), (10**12, 0, 0)]
)
def test_what_may_still_be_spent_is_never_below_zero(spent: int, reserved: int, remaining: int) -> None:
    assert SpendState(100, spent, reserved, None).remaining == remaining


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


STATUSES: list[tuple[KeyStatus, dict[str, Any], dict[str, Any]]] = [
    (KeyStatus.DELETED, {"delete_time": NOW}, {}),
    (KeyStatus.REVOKED, {"revocation": REVOCATION}, {}),
    (KeyStatus.DISABLED, {}, {"enabled": False}),
    (KeyStatus.NOT_YET_VALID, {}, {"not_before_time": NOW + TICK}),
    (KeyStatus.EXPIRED, {}, {"expire_time": NOW}),
]
"""Every status that a fact of the key makes, in the order in which the first applies."""


@pytest.mark.parametrize("first", range(len(STATUSES)))
@pytest.mark.parametrize("second", range(len(STATUSES)))
def test_of_two_statuses_the_earlier_one_applies(first: int, second: int) -> None:
    facts = {**STATUSES[first][1], **STATUSES[second][1]}
    fields = {**STATUSES[first][2], **STATUSES[second][2]}
    key = make_key(KeyFields(**fields), **facts)

    assert key_status(key, some_credits(0), some_spend(100), NOW) is STATUSES[min(first, second)][0]


def test_a_key_that_nothing_refuses_is_active() -> None:
    assert key_status(make_key(), None, None, NOW) is KeyStatus.ACTIVE
    assert key_status(make_key(), some_credits(1), some_spend(99), NOW) is KeyStatus.ACTIVE


@pytest.mark.parametrize(
    ("credits", "spend"),
    [
        (some_credits(0), None),
        (None, some_spend(100)),
        (some_credits(0), some_spend(0)),
        (some_credits(1), some_spend(101)),
        (None, replace(some_spend(60), reserved=40)),
    ],
)
def test_a_key_is_exhausted_when_either_budget_is_used_up(
    credits: CreditState | None, spend: SpendState | None
) -> None:
    assert key_status(make_key(), credits, spend, NOW) is KeyStatus.EXHAUSTED


def test_a_key_is_begun_at_its_not_before_time_and_expired_at_its_expire_time() -> None:
    begun = make_key(KeyFields(not_before_time=NOW, expire_time=NOW + TICK))

    assert key_status(begun, None, None, NOW) is KeyStatus.ACTIVE
    assert key_status(begun, None, None, NOW - TICK) is KeyStatus.NOT_YET_VALID
    assert key_status(begun, None, None, NOW + TICK) is KeyStatus.EXPIRED


def test_extending_the_expiry_revives_the_key() -> None:
    expired = make_key(KeyFields(expire_time=NOW - timedelta(days=1)))
    extended = replace(expired, fields=replace(expired.fields, expire_time=NOW + timedelta(days=1)))

    assert key_status(expired, None, None, NOW) is KeyStatus.EXPIRED
    assert key_status(extended, None, None, NOW) is KeyStatus.ACTIVE


def test_now_may_be_given_in_any_zone() -> None:
    now = NOW.astimezone(timezone(timedelta(hours=-9)))

    assert spend_window(SpendReset.MONTHLY, now) == spend_window(SpendReset.MONTHLY, NOW)
    assert next_refill(daily(), now).tzinfo is UTC
