"""Spend caps and their windows in time (spec §3)."""

from datetime import date, datetime, timedelta, timezone

import pytest

from latchkey_server.domain.limits.spend import spend_state, spend_window
from latchkey_server.domain.model import (
    SpendLimit,
    SpendReset,
    SpendState,
)
from tests.unit.builders import NOW, at


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


def test_now_may_be_given_in_any_zone() -> None:
    now = NOW.astimezone(timezone(timedelta(hours=-9)))

    assert spend_window(SpendReset.MONTHLY, now) == spend_window(SpendReset.MONTHLY, NOW)
