"""Buckets on UTC days: their parts lie side by side and make up the buckets, in every zone (spec §5)."""

import itertools
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from latchkey_server.domain.reporting.buckets import QUARTER, Width, buckets
from latchkey_server.domain.reporting.day_parts import QUARTERS, day_parts

START = datetime(2026, 2, 20, tzinfo=UTC)
ZONES = ("UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe", "America/St_Johns")
RANGES = st.tuples(st.integers(0, 60 * 96), st.integers(1, 20 * 96)).map(
    lambda drawn: (START + drawn[0] * QUARTER, START + (drawn[0] + drawn[1]) * QUARTER)
)
WIDTHS = st.sampled_from([width for width in Width if width is not Width.QUARTER])


@given(RANGES, WIDTHS, st.sampled_from(ZONES))
def test_the_parts_are_each_buckets_quarters_in_order(
    range_: tuple[datetime, datetime], width: Width, zone: str
) -> None:
    asked = buckets(*range_, width, ZoneInfo(zone))
    parts = day_parts(asked)

    instants = [
        (datetime.combine(part.day, time(tzinfo=UTC)) + part.start * QUARTER, part.end - part.start, part.bucket)
        for part in parts
    ]
    assert instants[0][0] == range_[0]
    for (begun, quarters, bucket), (following, _, _) in itertools.pairwise(instants):
        assert begun + quarters * QUARTER == following
        assert asked[bucket][0] <= begun < asked[bucket][1]
    assert instants[-1][0] + instants[-1][1] * QUARTER == range_[1]
    assert all(0 <= part.start < part.end <= QUARTERS for part in parts)


@given(st.integers(0, 400))
def test_utc_days_are_whole(days: int) -> None:
    start = START + timedelta(days=days)

    assert all(part.whole for part in day_parts(buckets(start, start + timedelta(days=9), Width.DAY, ZoneInfo("UTC"))))
