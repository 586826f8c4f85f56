"""Credits in time: refills are computed on use from ``now``, in UTC, and never made by a job (spec §3)."""

import calendar
from datetime import UTC, date, datetime, timedelta

from latchkey_server.domain.limits.midnight import midnight
from latchkey_server.domain.model import Balance, CreditRefill, Credits, CreditState, RefillInterval


def next_refill(refill: CreditRefill, after: datetime) -> datetime:
    """Return the first refill strictly after an instant; a monthly day is clamped to short months."""
    today = after.astimezone(UTC).date()
    if refill.interval is RefillInterval.DAILY:
        return midnight(today + timedelta(days=1))
    due = _clamped(today, refill.day_of_month)
    if midnight(due) <= after:
        due = _clamped(today.replace(day=1) + timedelta(days=31), refill.day_of_month)
    return midnight(due)


def credit_state(credits: Credits | None, balance: Balance | None, now: datetime) -> CreditState | None:
    """Return what remains of the credits now: a refill that has come due sets max(remaining, amount)."""
    if credits is None:
        return None
    remaining = balance.remaining if balance else credits.amount
    if credits.refill is None:
        return CreditState(remaining, None)
    if balance and next_refill(credits.refill, balance.settled_time) <= now:
        remaining = max(remaining, credits.refill.amount)
    return CreditState(remaining, next_refill(credits.refill, now))


def _clamped(day: date, day_of_month: int) -> date:
    last = calendar.monthrange(day.year, day.month)[1]
    return day.replace(day=min(day_of_month, last))
