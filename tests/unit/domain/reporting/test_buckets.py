"""Time buckets: what their edges are where clocks change, and what may be asked for (spec §5)."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from latchkey_server.domain.errors import InvalidField
from latchkey_server.domain.reporting import buckets
from latchkey_server.domain.reporting.buckets import Width
from tests.unit.builders import TICK, at, fields_of

HOUR = timedelta(hours=1)
NEW_YORK = ZoneInfo("America/New_York")
KOLKATA = ZoneInfo("Asia/Kolkata")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")


def cut(start: str, end: str, width: Width, zone: ZoneInfo) -> list[datetime]:
    """Return the edges of the buckets."""
    found = buckets.buckets(at(start), at(end), width, zone)
    assert [bucket[0] for bucket in found[1:]] == [bucket[1] for bucket in found[:-1]]
    return [found[0][0], *(bucket[1] for bucket in found)]


def edges(*texts: str) -> list[datetime]:
    return list(map(at, texts))


def test_without_a_width_the_range_is_one_bucket() -> None:
    assert buckets.buckets(at("2026-01-01"), at("2028-01-01"), Width.NONE, NEW_YORK) == [
        (at("2026-01-01"), at("2028-01-01"))
    ]


def test_buckets_are_clipped_to_the_range() -> None:
    assert cut("2026-03-14T12:15", "2026-03-16T00:45", Width.DAY, ZoneInfo("UTC")) == edges(
        "2026-03-14T12:15", "2026-03-15", "2026-03-16", "2026-03-16T00:45"
    )


def test_weeks_begin_on_monday_and_months_on_the_first_of_local_time() -> None:
    assert cut("2026-03-07T18:30", "2026-03-16T18:30", Width.WEEK, KOLKATA) == edges(
        "2026-03-07T18:30", "2026-03-08T18:30", "2026-03-15T18:30", "2026-03-16T18:30"
    )
    assert cut("2024-01-31T18:30", "2024-03-31T18:30", Width.MONTH, KOLKATA) == edges(
        "2024-01-31T18:30", "2024-02-29T18:30", "2024-03-31T18:30"
    )


def test_hours_of_a_half_hour_zone_begin_on_local_hours() -> None:
    assert cut("2026-03-14T00:00", "2026-03-14T02:00", Width.HOUR, KOLKATA) == edges(
        "2026-03-14T00:00", "2026-03-14T00:30", "2026-03-14T01:30", "2026-03-14T02:00"
    )


def test_a_day_on_which_clocks_go_forward_has_two_buckets() -> None:
    assert cut("2026-03-08T05:00", "2026-03-09T04:00", Width.DAY, NEW_YORK) == edges(
        "2026-03-08T05:00", "2026-03-08T07:00", "2026-03-09T04:00"
    )


def test_a_day_on_which_clocks_go_back_has_two_buckets() -> None:
    assert cut("2026-11-01T04:00", "2026-11-02T05:00", Width.DAY, NEW_YORK) == edges(
        "2026-11-01T04:00", "2026-11-01T06:00", "2026-11-02T05:00"
    )


def test_the_hour_that_clocks_repeat_is_two_buckets() -> None:
    assert cut("2026-11-01T05:00", "2026-11-01T07:00", Width.HOUR, NEW_YORK) == edges(
        "2026-11-01T05:00", "2026-11-01T06:00", "2026-11-01T07:00"
    )


def test_clocks_that_change_by_half_an_hour_make_half_hour_buckets() -> None:
    assert cut("2026-04-04T13:30", "2026-04-04T15:30", Width.HOUR, LORD_HOWE) == edges(
        "2026-04-04T13:30", "2026-04-04T14:00", "2026-04-04T15:00", "2026-04-04T15:30"
    )
    assert cut("2026-10-03T14:30", "2026-10-03T17:00", Width.HOUR, LORD_HOWE) == edges(
        "2026-10-03T14:30", "2026-10-03T15:30", "2026-10-03T16:00", "2026-10-03T17:00"
    )


def test_a_clock_change_at_the_edge_of_the_range_makes_no_bucket() -> None:
    change = "2026-03-08T07:00"

    assert cut("2026-03-08T05:00", change, Width.DAY, NEW_YORK) == edges("2026-03-08T05:00", change)
    assert cut(change, "2026-03-09T04:00", Width.DAY, NEW_YORK) == edges(change, "2026-03-09T04:00")


def test_two_changes_in_one_range_are_both_seen() -> None:
    assert cut("2026-01-01T05:00", "2026-04-01T04:00", Width.MONTH, NEW_YORK) == edges(
        "2026-01-01T05:00", "2026-02-01T05:00", "2026-03-01T05:00", "2026-03-08T07:00", "2026-04-01T04:00"
    )


def test_at_most_10000_buckets_are_made() -> None:
    start, utc = at("2026-01-01"), ZoneInfo("UTC")

    assert len(buckets.buckets(start, start + 10_000 * buckets.QUARTER, Width.QUARTER, utc)) == 10_000
    with pytest.raises(InvalidField) as caught:
        buckets.buckets(start, start + 10_001 * buckets.QUARTER, Width.QUARTER, utc)
    assert fields_of(caught) == ["bucket_width"]


@pytest.mark.parametrize("minutes", [0, 15, 30, 45])
def test_a_range_is_on_quarters_of_an_hour(minutes: int) -> None:
    start = at("2026-03-14") + timedelta(minutes=minutes)

    buckets.check_range(start, start + buckets.QUARTER)


@pytest.mark.parametrize("off", [TICK, timedelta(seconds=1), timedelta(minutes=1), timedelta(minutes=14), -TICK])
def test_a_range_off_the_quarters_is_refused_by_name(off: timedelta) -> None:
    start, end = at("2026-03-14"), at("2026-03-15")

    for range_, fields in (
        ((start + off, end), ["start_time"]),
        ((start, end + off), ["end_time"]),
        ((start + off, end + off), ["start_time", "end_time"]),
    ):
        with pytest.raises(InvalidField) as caught:
            buckets.check_range(*range_)
        assert fields_of(caught) == fields


@pytest.mark.parametrize("length", [timedelta(0), -HOUR, timedelta(days=5 * 366, minutes=15)])
def test_a_range_that_is_empty_or_longer_than_5_years_is_refused(length: timedelta) -> None:
    start = at("2026-01-01")

    with pytest.raises(InvalidField) as caught:
        buckets.check_range(start, start + length)

    assert fields_of(caught) == ["end_time"]


def test_a_range_may_be_5_years_long() -> None:
    buckets.check_range(at("2023-01-01"), at("2028-01-01"))


@pytest.mark.parametrize("width", list(Width))
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize("end", ["0001-01-02", "9999-12-31T23:45"])
def test_a_range_at_an_end_of_the_calendar_is_cut_or_refused(width: Width, zone: str, end: str) -> None:
    start = at(end) - timedelta(hours=12 if end.startswith("9999") else 24)

    try:
        buckets.check_range(start, at(end))
        found = buckets.buckets(start, at(end), width, buckets.time_zone(zone))
    except InvalidField:
        return

    assert (found[0][0], found[-1][1]) == (start, at(end))


@pytest.mark.parametrize("name", ["UTC", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe", "Etc/GMT+5"])
def test_a_zone_is_known_by_its_iana_name(name: str) -> None:
    assert buckets.time_zone(name).key == name


def test_no_zone_means_utc() -> None:
    assert buckets.time_zone("").key == "UTC"
    assert datetime(2026, 7, 1, tzinfo=UTC).astimezone(buckets.time_zone("")).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "name",
    [
        "Mars/Olympus",
        "utc",
        "localtime",
        "+05:30",
        "EDT",
        "../UTC",
        "/etc/localtime",
        "UTC\0",
        " UTC",
        "x" * 9_999,
        "Asia",
    ],
)
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidField) as caught:
        buckets.time_zone(name)

    assert fields_of(caught) == ["time_zone"]
