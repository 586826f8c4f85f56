"""The client's rules for money, ranges, names and lines, for any input."""

import csv
import io
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from hypothesis import assume, example, given
from hypothesis import strategies as st

from latchkey.cli.events import FIELDS, Reading
from latchkey.cli.importing import Tally, batches
from latchkey.cli.lines import csv_records, json_records
from latchkey.cli.marks import bar, sparkline
from latchkey.cli.money import dollars, parse_usd, places_needed, usd
from latchkey.cli.names import NONE, OTHER, UNLABELED, label, shown
from latchkey.cli.ranges import QUARTER, Bucket, between, slot, slots
from latchkey.money import money_of, nanos_of

NANOS = st.integers(-(10**24) + 1, 10**24 - 1)
ZONES = st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe", "America/Havana"]).map(
    ZoneInfo
)
INSTANTS = st.integers(0, 2**31).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
READING = Reading({}, {"source": "s", "key_id": "k", "occurred_time": "2026-11-22T12:00:00Z"}, ZoneInfo("UTC"))


@given(NANOS)
def test_money_that_is_printed_and_read_again_is_the_same(nanos: int) -> None:
    assert parse_usd(usd(nanos)) == nanos
    assert Decimal(usd(nanos)) == Decimal(nanos).scaleb(-9)


@given(NANOS, st.integers(0, 9))
def test_money_is_printed_with_the_places_asked_for_or_needed(nanos: int, places: int) -> None:
    assert len(usd(nanos, places).partition(".")[2]) == max(2, places, places_needed(nanos))
    assert parse_usd(dollars(nanos, places).replace("$", "").replace(",", "")) == nanos


@given(NANOS)
def test_money_on_the_wire_has_one_sign_and_is_the_same_when_read(nanos: int) -> None:
    money = money_of(nanos)

    assert nanos_of(money) == nanos
    assert money.units * money.nanos >= 0
    assert abs(money.nanos) < 10**9


@example("1E-2000000")
@example("0E+99")
@given(st.text(max_size=50) | st.from_regex(r"[-+]?[0-9]{0,20}\.?[0-9]{0,12}([eE][-+]?[0-9]{1,9})?", fullmatch=True))
def test_a_text_is_an_exact_amount_or_refused(text: str) -> None:
    try:
        nanos = parse_usd(text)
    except ValueError:
        return
    assert Decimal(text.strip()) == Decimal(usd(nanos))


@given(INSTANTS, st.integers(1, 10**8), ZONES, st.sampled_from([each for each in Bucket if each is not Bucket.NONE]))
def test_every_instant_of_a_range_has_a_slot_in_order(
    start: datetime, seconds: int, zone: ZoneInfo, bucket: Bucket
) -> None:
    assume(bucket not in (Bucket.QUARTER, Bucket.HOUR) or seconds < 10**6)
    covered = between(start, start + timedelta(seconds=seconds), zone)
    every = slots(covered, bucket)

    assert covered.start <= start < start + timedelta(seconds=seconds) <= covered.end
    assert all(edge.timestamp() % QUARTER.total_seconds() == 0 for edge in (covered.start, covered.end))
    assert every == sorted(set(every))
    assert slot(start, bucket, zone) in every
    assert slot(covered.end - timedelta(microseconds=1), bucket, zone) in every


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_names_never_look_alike_unless_they_are(one: str, other: str) -> None:
    assert (label(one) == label(other)) is (one == other)
    assert label(one) not in (UNLABELED, NONE, OTHER)
    assert label(one).isprintable()


@given(st.text())
def test_nothing_that_is_shown_commands_a_terminal(text: str) -> None:
    assert shown(text).isprintable()
    assert shown(shown(text)) == shown(text)


@given(st.lists(st.integers(-(10**18), 10**18), max_size=200), st.integers(1, 60))
def test_a_sparkline_fits_and_shows_something_wherever_there_is_something(values: list[int], most: int) -> None:
    line = sparkline(values, most)

    assert len(line) <= most
    assert ("█" in line) is any(each != "·" for each in line)


@given(st.integers(1, 10**30), st.integers(1, 10**30), st.integers(1, 60))
def test_a_bar_fits_its_width_and_is_never_nothing(value: int, whole: int, width: int) -> None:
    assert 1 <= len(bar(value, whole, width)) <= width


VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), max_size=8)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=12), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_lines_have_as_many_names_as_lines_and_the_same_ones_each_time(
    rows: list[tuple[str, str]], quoting: int
) -> None:
    def names(quoted: int) -> list[str]:
        out = io.StringIO()
        writer = csv.writer(out, quoting=csv.QUOTE_ALL if quoted == csv.QUOTE_ALL else csv.QUOTE_MINIMAL)
        writer.writerows([("model", "task"), *rows])
        sent = batches(csv_records(io.BytesIO(out.getvalue().encode())), READING, Tally(), lambda: 0)
        return [event.event_id for batch in sent for event in batch.events]

    told = names(quoting)
    assert len(set(told)) == len(rows)
    assert told == names(csv.QUOTE_ALL)
    assert Counter(name.split("-")[0] for name in told).total() == len(rows)


@given(st.binary(max_size=400))
def test_any_bytes_are_records_or_told_and_never_an_error(content: bytes) -> None:
    for read in (csv_records, json_records):
        for record in read(io.BytesIO(b"model,task\n" + content)):
            assert record.line >= 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
def test_any_json_line_is_an_event_or_rejected_with_a_reason(fields: dict[str, object]) -> None:
    tally = Tally()
    sent = list(batches(json_records(io.BytesIO(json.dumps(fields).encode())), READING, tally, lambda: 0))

    assert sum(len(batch.events) for batch in sent) + tally.counts["REJECTED"] == 1
    assert len(tally.problems) == tally.counts["REJECTED"]
    for batch in sent:
        assert all(event.SerializeToString() for event in batch.events)
