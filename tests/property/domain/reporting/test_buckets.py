"""Buckets of any range, against every quarter of an hour looked at by itself (spec §5)."""

from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from zoneinfo import ZoneInfo

from hypothesis import example, given, settings
from hypothesis import strategies as st

from latchkey_server.domain.reporting.buckets import BUCKETS_MAX, QUARTER, Bucket, Width, buckets

EPOCH = datetime(2015, 1, 1, tzinfo=UTC)
CHANGES = [
    datetime(2026, 3, 8, 7, tzinfo=UTC),
    datetime(2026, 11, 1, 6, tzinfo=UTC),
    datetime(2026, 4, 4, 15, tzinfo=UTC),
    datetime(2026, 10, 3, 15, 30, tzinfo=UTC),
]
"""When the clocks change in New York and on Lord Howe."""

ZONES = st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe"]).map(ZoneInfo)
WIDTHS = st.sampled_from([width for width in Width if width is not Width.NONE])
STARTS = st.one_of(
    st.builds(lambda quarters: EPOCH + quarters * QUARTER, st.integers(0, 20 * 365 * 96)),
    st.builds(lambda change, quarters: change + quarters * QUARTER, st.sampled_from(CHANGES), st.integers(-200, 200)),
)
LENGTHS = st.integers(1, 400) | st.integers(1, 7_000)


def identity(instant: datetime, width: Width, zone: ZoneInfo) -> tuple[datetime, timedelta]:
    """Return what the instants of one bucket share: the truncated local time and the UTC offset."""
    local = instant.astimezone(zone).replace(tzinfo=None, fold=0)
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    match width:
        case Width.QUARTER:
            return local.replace(minute=local.minute // 15 * 15), offset
        case Width.HOUR:
            return local.replace(minute=0), offset
        case Width.DAY:
            return local.replace(hour=0, minute=0), offset
        case Width.WEEK:
            return local.replace(hour=0, minute=0) - timedelta(days=local.weekday()), offset
        case _:
            return local.replace(day=1, hour=0, minute=0), offset


def brute_force(start: datetime, quarters: int, width: Width, zone: ZoneInfo) -> list[Bucket]:
    """Return the buckets by grouping each quarter of an hour by what it shares."""
    steps = [start + number * QUARTER for number in range(quarters)]
    groups = [list(group) for _, group in groupby(steps, lambda step: identity(step, width, zone))]
    return [(group[0], group[-1] + QUARTER) for group in groups]


@settings(max_examples=150)
@given(STARTS, LENGTHS, WIDTHS, ZONES)
@example(CHANGES[0] - 8 * QUARTER, 96, Width.DAY, ZoneInfo("America/New_York"))
@example(CHANGES[1] - 8 * QUARTER, 96, Width.HOUR, ZoneInfo("America/New_York"))
@example(CHANGES[2] - 8 * QUARTER, 96, Width.HOUR, ZoneInfo("Australia/Lord_Howe"))
@example(CHANGES[3] - 8 * QUARTER, 96, Width.QUARTER, ZoneInfo("Australia/Lord_Howe"))
def test_a_bucket_is_the_instants_that_share_truncated_local_time_and_offset(
    start: datetime, quarters: int, width: Width, zone: ZoneInfo
) -> None:
    assert buckets(start, start + quarters * QUARTER, width, zone) == brute_force(start, quarters, width, zone)


@settings(max_examples=50)
@given(STARTS, st.integers(1, 5 * 365 * 96), st.sampled_from([Width.DAY, Width.WEEK, Width.MONTH]), ZONES)
def test_buckets_cover_any_range_without_gaps_and_neighbours_differ(
    start: datetime, quarters: int, width: Width, zone: ZoneInfo
) -> None:
    end = start + quarters * QUARTER

    found = buckets(start, end, width, zone)

    assert (found[0][0], found[-1][1]) == (start, end)
    assert len(found) <= BUCKETS_MAX
    for bucket in found:
        assert bucket[0] < bucket[1]
        assert identity(bucket[1] - QUARTER, width, zone) == identity(bucket[0], width, zone)
    for before, after in pairwise(found):
        assert after[0] == before[1]
        assert identity(before[0], width, zone) != identity(after[0], width, zone)


@given(STARTS, LENGTHS, st.integers(1, 400), WIDTHS, ZONES)
def test_adjacent_ranges_add_up(start: datetime, first: int, second: int, width: Width, zone: ZoneInfo) -> None:
    middle = start + first * QUARTER
    end = middle + second * QUARTER

    def edges(*ranges: Bucket) -> set[datetime]:
        return {edge for range_ in ranges for bucket in buckets(*range_, width, zone) for edge in bucket}

    assert edges((start, end)) | {middle} == edges((start, middle), (middle, end))


@given(STARTS, LENGTHS, ZONES)
def test_without_a_width_the_range_is_one_bucket(start: datetime, quarters: int, zone: ZoneInfo) -> None:
    end = start + quarters * QUARTER

    assert buckets(start, end, Width.NONE, zone) == [(start, end)]
