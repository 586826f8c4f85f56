"""Budgets in time: spend windows, credit refills, and the status that they and a key's facts amount to.

Nothing here is ever reset by a job: windows and refills are computed from ``now``, in UTC (spec §3).
"""

import calendar
from datetime import UTC, date, datetime, time, timedelta

from latchkey.rules import begun, unexpired
from latchkey_server.domain.model import (
    Balance,
    CreditRefill,
    Credits,
    CreditState,
    Key,
    KeyStatus,
    RefillInterval,
    SpendLimit,
    SpendReset,
    SpendState,
)


def spend_window(reset: SpendReset, now: datetime) -> tuple[date | None, datetime | None]:
    """Return the first day and the end of the window that ``now`` lies in; (None, None) for a cap without reset."""
    today = now.astimezone(UTC).date()
    match reset:
        case SpendReset.NONE:
            return None, None
        case SpendReset.DAILY:
            start, end = today, today + timedelta(days=1)
        case SpendReset.WEEKLY:
            start = today - timedelta(days=today.weekday())
            end = start + timedelta(days=7)
        case SpendReset.MONTHLY:
            start = today.replace(day=1)
            end = (start + timedelta(days=31)).replace(day=1)
    return start, _midnight(end)


def spend_state(limit: SpendLimit | None, spent: int, now: datetime) -> SpendState | None:
    """Return how far a cap is used, given the net spend of the current window in nano-dollars."""
    if limit is None:
        return None
    _, end = spend_window(limit.reset, now)
    return SpendState(limit=limit.amount, spent=spent, reserved=0, window_end=end)


def next_refill(refill: CreditRefill, after: datetime) -> datetime:
    """Return the first refill strictly after an instant; a monthly day is clamped to short months."""
    today = after.astimezone(UTC).date()
    if refill.interval is RefillInterval.DAILY:
        return _midnight(today + timedelta(days=1))
    due = _clamped(today, refill.day_of_month)
    if _midnight(due) <= after:
        due = _clamped(today.replace(day=1) + timedelta(days=31), refill.day_of_month)
    return _midnight(due)


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


def key_status(key: Key, credits: CreditState | None, spend: SpendState | None, now: datetime) -> KeyStatus:
    """Return what the key's facts and budgets amount to at one instant; the first that applies."""
    fields = key.fields
    if key.delete_time is not None:
        return KeyStatus.DELETED
    if key.revocation is not None:
        return KeyStatus.REVOKED
    if not fields.enabled:
        return KeyStatus.DISABLED
    if not begun(fields.not_before_time, now):
        return KeyStatus.NOT_YET_VALID
    if not unexpired(fields.expire_time, now):
        return KeyStatus.EXPIRED
    if (credits and credits.remaining <= 0) or (spend and spend.remaining <= 0):
        return KeyStatus.EXHAUSTED
    return KeyStatus.ACTIVE


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _clamped(day: date, day_of_month: int) -> date:
    last = calendar.monthrange(day.year, day.month)[1]
    return day.replace(day=min(day_of_month, last))
