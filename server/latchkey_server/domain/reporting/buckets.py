"""Time buckets: the instants that share the truncated local time and the UTC offset, clipped to the range (spec §5).

So adjacent ranges add up in every zone, and a day on which the clocks change has two buckets.
"""

import enum
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from latchkey_server.domain import errors
from latchkey_server.domain.errors import Violation

# No offset can carry a local time of this range out of the calendar.
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
BUCKETS_MAX = 10_000
RANGE_MAX = timedelta(days=5 * 366)
# No zone changes its offset twice within this time, so that looking this often misses nothing.
_STRIDE = timedelta(hours=6)
_SECOND = timedelta(seconds=1)

Bucket = tuple[datetime, datetime]


class Width(enum.IntEnum):
    """How wide buckets are; the numbers are the proto's."""

    NONE = 1
    QUARTER = 2
    HOUR = 3
    DAY = 4
    WEEK = 5
    MONTH = 6


def check_range(start: datetime, end: datetime) -> None:
    """Raise InvalidField unless [start, end) is a range of quarters of an hour of at most 5 years."""
    violations = [
        Violation(field, "must be on a quarter of an hour")
        for field, instant in (("start_time", start), ("end_time", end))
        if (instant - EARLIEST) % QUARTER
    ]
    violations += [
        Violation(field, "must be in the years 1970 to 8999")
        for field, instant in (("start_time", start), ("end_time", end))
        if not EARLIEST <= instant <= LATEST
    ]
    if not start < end:
        violations.append(Violation("end_time", "must be after start_time"))
    elif end - start > RANGE_MAX:
        violations.append(Violation("end_time", "must be at most 5 years after start_time"))
    if violations:
        raise errors.InvalidField(violations)


def time_zone(name: str) -> ZoneInfo:
    """Return the IANA zone of this name, UTC for none; raises InvalidField."""
    if name and name not in _zones():
        raise errors.InvalidField.one("time_zone", "must be an IANA time zone, such as Asia/Kolkata")
    return ZoneInfo(name or "UTC")


def buckets(start: datetime, end: datetime, width: Width, zone: ZoneInfo) -> list[Bucket]:
    """Return the buckets of [start, end) in order, without gaps; raises InvalidField for more than 10,000."""
    if width is Width.NONE:
        return [(start, end)]
    found: list[Bucket] = []
    for segment_start, segment_end in _constant_offsets(start, end, zone):
        offset = _offset(segment_start, zone)
        cursor = segment_start
        while cursor < segment_end:
            local = cursor.astimezone(UTC).replace(tzinfo=None) + offset
            following = (_following(local, width) - offset).replace(tzinfo=UTC)
            found.append((cursor, min(following, segment_end)))
            if len(found) > BUCKETS_MAX:
                raise errors.InvalidField.one("bucket_width", f"makes more than {BUCKETS_MAX:,} buckets")
            cursor = min(following, segment_end)
    return found


def quarter_of(instant: datetime) -> datetime:
    """Return the beginning of the UTC quarter of an hour that an instant lies in."""
    utc = instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    return datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute // 15 * 15, tzinfo=UTC)


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    # These two depend on the machine.
    return frozenset(available_timezones() - {"localtime", "Factory"})


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def _constant_offsets(start: datetime, end: datetime, zone: ZoneInfo) -> Iterator[Bucket]:
    """Yield the stretches of [start, end) in which the zone's offset stays the same."""
    begun = cursor = start
    while cursor < end:
        ahead = min(cursor + _STRIDE, end)
        if _offset(ahead, zone) != _offset(cursor, zone):
            ahead = _transition(cursor, ahead, zone)
            if ahead < end:
                yield begun, ahead
                begun = ahead
        cursor = ahead
    yield begun, end


def _transition(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the first instant in (before, after], to the second, that has the offset of ``after``."""
    while after - before > _SECOND:
        middle = before + (after - before) // _SECOND // 2 * _SECOND
        if _offset(middle, zone) == _offset(after, zone):
            after = middle
        else:
            before = middle
    return after


def _following(local: datetime, width: Width) -> datetime:
    """Return where the bucket that a local time lies in ends."""
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    match width:
        case Width.QUARTER:
            return midnight + ((local - midnight) // QUARTER + 1) * QUARTER
        case Width.HOUR:
            return midnight + timedelta(hours=local.hour + 1)
        case Width.DAY:
            return midnight + timedelta(days=1)
        case Width.WEEK:
            return midnight + timedelta(days=7 - local.weekday())
        case _:
            return (midnight.replace(day=1) + timedelta(days=31)).replace(day=1)
