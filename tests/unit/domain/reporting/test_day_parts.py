"""Parts of UTC days, to the quarter of an hour."""

from datetime import timedelta

from latchkey_server.domain.reporting.day_parts import DayPart, day_parts
from tests.unit.builders import at


def test_a_bucket_across_midnight_has_a_part_on_both_days() -> None:
    start, end = at("2026-03-14 23:30"), at("2026-03-15 00:15")

    assert day_parts([(start, end)]) == [DayPart(start.date(), 94, 96, 0), DayPart(end.date(), 0, 1, 0)]


def test_a_bucket_within_a_quarter_has_no_part_as_in_zones_of_old_whose_offset_was_no_quarter() -> None:
    start = at("2026-03-14 12:00")

    assert day_parts([(start, start + timedelta(seconds=30))]) == []
