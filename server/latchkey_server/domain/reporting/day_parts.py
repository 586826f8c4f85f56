"""How buckets lie on UTC days: what roll-ups by day answer whole, and where they have to be cut (spec §5)."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from latchkey_server.domain.reporting.buckets import QUARTER, Bucket

_DAY = timedelta(days=1)
QUARTERS = _DAY // QUARTER


class DayPart(NamedTuple):
    """The quarters of an hour [``start``, ``end``) of a UTC day, and the number of their bucket."""

    day: date
    start: int
    end: int
    bucket: int

    @property
    def whole(self) -> bool:
        """Tell whether it is the whole day."""
        return self.end - self.start == QUARTERS


def day_parts(buckets: Sequence[Bucket]) -> list[DayPart]:
    """Return the parts of UTC days that make up the buckets, in order."""
    return [part for number, bucket in enumerate(buckets) for part in _parts(bucket, number)]


def _parts(bucket: Bucket, number: int) -> list[DayPart]:
    start, end = (instant.astimezone(UTC) for instant in bucket)
    parts = []
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    while midnight < end:
        first, last = (_quarter(instant, midnight) for instant in (start, end))
        if first < last:
            parts.append(DayPart(midnight.date(), first, last, number))
        midnight += _DAY
    return parts


def _quarter(instant: datetime, midnight: datetime) -> int:
    """Return the quarter of the day that an instant lies in, clamped to the day."""
    return min(max((instant - midnight) // QUARTER, 0), QUARTERS)
