"""Spend caps in time: windows are computed from ``now``, in UTC, and never reset by a job (spec §3)."""

from datetime import UTC, date, datetime, timedelta

from latchkey_server.domain.limits.midnight import midnight
from latchkey_server.domain.model import SpendLimit, SpendReset, SpendState


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
        case _:
            start = today.replace(day=1)
            end = (start + timedelta(days=31)).replace(day=1)
    return start, midnight(end)


def spend_state(limit: SpendLimit | None, spent: int, now: datetime) -> SpendState | None:
    """Return how far a cap is used, given the net spend of the current window in nano-dollars."""
    if limit is None:
        return None
    _, end = spend_window(limit.reset_interval, now)
    return SpendState(limit=limit.amount, spent=spent, reserved=0, window_end=end)
