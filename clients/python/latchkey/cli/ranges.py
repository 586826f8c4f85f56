"""The time that a report covers, and how it is divided: quarter hours, in a zone, with the clock as a parameter."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from enum import StrEnum
from zoneinfo import ZoneInfo

QUARTER = timedelta(minutes=15)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Last(StrEnum):
    """A stretch of time that ends with the hour or day in which we are."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Bucket(StrEnum):
    """How a range is divided."""

    NONE = "none"
    QUARTER = "15m"
    HOUR = "1h"
    DAY = "1d"
    WEEK = "1w"
    MONTH = "1mo"


DAYS_OF = {Last.WEEK: 7, Last.MONTH: 30}
BY = {
    Bucket.QUARTER: "by quarter hour",
    Bucket.HOUR: "by hour",
    Bucket.DAY: "by day",
    Bucket.WEEK: "by week",
    Bucket.MONTH: "by month",
}
STEPS = {Bucket.QUARTER: QUARTER, Bucket.HOUR: HOUR, Bucket.DAY: DAY, Bucket.WEEK: 7 * DAY}
_SUITS = ((3 * HOUR, Bucket.QUARTER), (2 * DAY, Bucket.HOUR), (93 * DAY, Bucket.DAY), (750 * DAY, Bucket.WEEK))


@dataclass(frozen=True, slots=True)
class Range:
    """The instants in [``start``, ``end``), both on a quarter of an hour, shown in ``zone``."""

    start: datetime
    end: datetime
    zone: ZoneInfo


def last(stretch: Last, now: datetime, zone: ZoneInfo) -> Range:
    """Return the last 24 hours, this one included, or the last whole days of the zone, today included."""
    local = now.astimezone(zone)
    if stretch is Last.DAY:
        hour = local.replace(minute=0, second=0, microsecond=0).astimezone(UTC)
        return between(hour - 23 * HOUR, hour + HOUR, zone)
    tomorrow = local.date() + DAY
    return between(_midnight(tomorrow - DAYS_OF[stretch] * DAY, zone), _midnight(tomorrow, zone), zone)


def given(start: datetime | None, end: datetime | None, now: datetime, zone: ZoneInfo) -> Range:
    """Return the range between two instants; without an end it goes to now, without a start it takes a week."""
    end = end or now
    return between(start or end - 7 * DAY, end, zone)


def between(start: datetime, end: datetime, zone: ZoneInfo) -> Range:
    """Return the shortest range of quarter hours that holds both; raises ValueError if the end is not behind."""
    if end <= start:
        raise ValueError("the range ends before it begins")
    return Range(_floor(start), -(-(end - EPOCH) // QUARTER) * QUARTER + EPOCH, zone)


def moment(text: str, zone: ZoneInfo) -> datetime:
    """Return the instant that a date (its midnight) or a date and time names, in the zone unless it has an offset."""
    try:
        parsed = datetime.fromisoformat(text.strip().upper())
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a date such as 2026-11-22 or an instant such as 2026-11-22T12:00Z") from None


def suitable(covered: Range) -> Bucket:
    """Return the width that divides a range into a readable number of buckets."""
    length = covered.end - covered.start
    return next((bucket for longest, bucket in _SUITS if length <= longest), Bucket.MONTH)


def slot(instant: datetime, bucket: Bucket, zone: ZoneInfo) -> datetime:
    """Return the local time, truncated to the bucket's width, under which an instant is drawn.

    The hour that occurs twice when clocks go back is drawn once.
    """
    local = instant.astimezone(zone).replace(tzinfo=None)
    midnight = datetime.combine(local.date(), time())
    if bucket is Bucket.MONTH:
        return midnight.replace(day=1)
    if bucket is Bucket.WEEK:
        return midnight - local.weekday() * DAY
    return midnight + (local - midnight) // STEPS[bucket] * STEPS[bucket]


def slots(covered: Range, bucket: Bucket) -> list[datetime]:
    """Return the local time of every slot of a range, in order, those in which nothing happened too."""
    at, end = slot(covered.start, bucket, covered.zone), slot(covered.end - QUARTER, bucket, covered.zone)
    found = []
    while at <= end:
        found.append(at)
        at = _next_month(at) if bucket is Bucket.MONTH else at + STEPS[bucket]
    return found


def _next_month(first: datetime) -> datetime:
    return (first + 31 * DAY).replace(day=1)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _floor(instant: datetime) -> datetime:
    return (instant - EPOCH) // QUARTER * QUARTER + EPOCH


def instant_text(instant: datetime, zone: ZoneInfo) -> str:
    """Return an instant of a range as people read it: a date, with the time if it is no midnight."""
    local = instant.astimezone(zone)
    return f"{local:%Y-%m-%d}" if local.time() == time() else f"{local:%Y-%m-%d %H:%M}"


def rfc3339(instant: datetime, zone: timezone | ZoneInfo) -> str:
    """Return an instant as machines read it, with its offset in the zone."""
    return instant.astimezone(zone).isoformat().replace("+00:00", "Z")
