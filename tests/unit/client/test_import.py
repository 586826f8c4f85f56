"""What becomes of a file's lines on their way into ReportUsage."""

import io
import json
from collections.abc import Sequence
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from google.protobuf.json_format import MessageToDict

from latchkey.cli.events import Reading, event_of, ignored, lacking, priced, source_of
from latchkey.cli.importing import BYTES_MAX, EVENTS_MAX, PROBLEMS_SHOWN, Batch, Tally, batches
from latchkey.cli.lines import LINE_MAX, HeaderError, LineError, Record, csv_header, csv_records, json_records
from latchkey.money import nanos_of
from latchkey.v1 import usage_pb2

UTC_ZONE = ZoneInfo("UTC")
READING = Reading({}, {"source": "tests", "key_id": "key_1"}, UTC_ZONE)
TIME = "2026-11-22T12:00:00Z"


def from_csv(text: str | bytes) -> list[Record]:
    return list(csv_records(io.BytesIO(text.encode() if isinstance(text, str) else text)))


def from_json(text: str | bytes) -> list[Record]:
    return list(json_records(io.BytesIO(text.encode() if isinstance(text, str) else text)))


def event(reading: Reading = READING, /, **fields: object) -> usage_pb2.UsageEvent:
    return event_of({"occurred_time": TIME, **fields}, "made", reading)


def wrong(**fields: object) -> str:
    with pytest.raises(LineError) as raised:
        event(**fields)
    return str(raised.value)


def read(records: Sequence[Record], reading: Reading = READING) -> tuple[list[Batch], Tally]:
    tally = Tally()
    return list(batches(records, reading, tally, lambda: 0)), tally


def ids(text: str) -> list[str]:
    found, _ = read(from_csv(text))
    return [each.event_id for batch in found for each in batch.events]


def test_every_field_of_an_event_can_be_a_column() -> None:
    told = event(
        source="s", event_id="e", key_id="key_2", type="refund", member="m", model="mo", task="t", requests="2",
        input_tokens="3", output_tokens="4", cached_tokens="1", cost="-0.25", operation_id="o",
        metadata='{"a": [1, null, "x"]}', occurred_time="2026-11-22T12:00:00.1234567+05:30",
    )  # fmt: skip

    assert MessageToDict(told, preserving_proto_field_name=True) == {
        "source": "s", "event_id": "e", "key_id": "key_2", "type": "USAGE_TYPE_REFUND", "member": "m", "model": "mo",
        "task": "t", "requests": "2", "input_tokens": "3", "output_tokens": "4", "cached_tokens": "1",
        "cost": {"currency_code": "USD", "nanos": -250_000_000}, "occurred_time": "2026-11-22T06:30:00.123456Z",
        "operation_id": "o", "metadata": {"a": [1.0, None, "x"]},
    }  # fmt: skip


def test_what_a_line_lacks_is_as_given_for_all_and_consumes() -> None:
    told = event(Reading({"model": "Model"}, {"source": "s", "key_id": "key_1", "task": "t"}, UTC_ZONE), Model="m")

    assert (told.source, told.key_id, told.model, told.task, told.event_id) == ("s", "key_1", "m", "t", "made")
    assert told.type == usage_pb2.USAGE_TYPE_CONSUME
    assert not told.HasField("requests")
    assert not told.HasField("cost")
    assert not told.HasField("member")


def test_a_line_of_its_own_mind_wins_over_what_is_given_for_all() -> None:
    assert event(key_id="key_2").key_id == "key_2"


def test_a_time_without_an_offset_is_of_the_zone_and_is_shifted() -> None:
    reading = Reading({}, {"key_id": "k"}, ZoneInfo("Asia/Kolkata"), shift=timedelta(days=1))

    assert event(reading, occurred_time="2026-11-22 05:30:00").occurred_time.ToJsonString() == "2026-11-23T00:00:00Z"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"occurred_time": "2026-11-22"}, "occurred_time: '2026-11-22' is no instant"),
        ({"occurred_time": "2026-11-22T23:59:60Z"}, "is no instant"),
        ({"occurred_time": None}, "occurred_time is missing"),
        ({"input_tokens": "5.5"}, "input_tokens: '5.5' is no whole number"),
        ({"input_tokens": "\u0661"}, "is no whole number"),
        ({"input_tokens": str(2**63)}, "is no whole number"),
        ({"input_tokens": True}, "is no whole number"),
        ({"requests": "1e3"}, "is no whole number"),
        ({"cost": "free"}, "cost: 'free' is not an amount of dollars"),
        ({"cost": "nan"}, "is not an amount"),
        ({"cost": "1_0"}, "is not an amount"),
        ({"cost": "0.0000000001"}, "is finer than a nano-dollar"),
        ({"cost": "1e999999999"}, "is too many dollars"),
        ({"type": "SPEND"}, "type: 'SPEND' is none of CONSUME, REFUND"),
        ({"type": "UNSPECIFIED"}, "is none of"),
        ({"metadata": "[1]"}, "is no JSON object"),
        ({"metadata": "{"}, "is no JSON object"),
        ({"model": ["m"]}, "model: "),
        ({"model": "\ud800"}, "holds half a character"),
    ],
)
def test_a_value_that_is_wrong_is_told_by_its_field(fields: dict[str, object], why: str) -> None:
    assert why in wrong(**fields)


def test_a_long_wrong_value_is_told_by_its_beginning() -> None:
    assert len(wrong(cost="x" * 10_000)) < 200
    assert len(wrong(requests="x" * 10_000)) < 200


def test_prices_are_dollars_a_million_and_make_the_cost_of_lines_without_one() -> None:
    prices = {"input_tokens": 150_000_000, "output_tokens": 600_000_000}
    reading = Reading({}, READING.constants, UTC_ZONE, prices)

    assert nanos_of(event(reading, input_tokens="374", output_tokens="44").cost) == 374 * 150 + 44 * 600
    assert nanos_of(event(reading, input_tokens="374", cost="1").cost) == 1_000_000_000
    assert not event(reading, type="ERROR").HasField("cost")


def test_cached_tokens_cost_as_input_unless_they_have_a_price_and_a_price_rounds_to_the_nearest() -> None:
    assert priced(10, 0, 4, {"input_tokens": 1_000_000}) == 10
    assert priced(10, 0, 4, {"input_tokens": 1_000_000, "cached_tokens": 250_000}) == 7
    assert priced(1, 0, 0, {"input_tokens": 499_999}) == 0
    assert priced(1, 0, 0, {"input_tokens": 500_000}) == 1


def test_a_price_that_makes_more_dollars_than_there_are_is_told() -> None:
    reading = Reading({}, READING.constants, UTC_ZONE, {"input_tokens": 10**24})

    with pytest.raises(LineError, match=r"cost: .* is too many dollars"):
        event(reading, input_tokens=str(2**62))


def test_a_line_without_an_event_id_is_named_by_its_content_and_how_often_it_came() -> None:
    first = ids(f"occurred_time,cost\n{TIME},1\n{TIME},2\n{TIME},1\n")

    assert len(set(first)) == 3
    assert first[0].split("-")[0] == first[2].split("-")[0]
    assert [name.split("-")[1] for name in first] == ["1", "1", "2"]
    assert all(len(name) <= 128 and name.isascii() for name in first)


def test_a_name_depends_on_the_values_and_not_on_how_they_are_written() -> None:
    plain = f"occurred_time,cost\n{TIME},1\n"

    assert ids(plain) == ids(f'\ufeffoccurred_time,cost\r\n"{TIME}","1"\r\n') == ids(plain.rstrip("\n"))


def test_mending_a_bad_line_renames_no_other() -> None:
    broken, mended = (f"occurred_time,cost\n{TIME},1\n{TIME},{cost}\n{TIME},1\n" for cost in ("bad", "3"))

    assert ids(broken) == [ids(mended)[0], ids(mended)[2]]


def test_a_line_that_names_itself_keeps_its_name() -> None:
    assert ids(f"occurred_time,event_id\n{TIME},a\n{TIME},\n")[0] == "a"


def test_a_bad_line_is_told_by_its_number_and_stops_no_other() -> None:
    text = f'occurred_time,model\n{TIME},"two\nlines"\n{TIME}\nnever,m\n{TIME},"ok"x\n\n{TIME},last\n'
    found, tally = read(from_csv(text))

    assert [(problem.line, problem.outcome) for problem in tally.problems] == [
        (4, "REJECTED"),
        (5, "REJECTED"),
        (6, "REJECTED"),
    ]
    assert found[0].lines == [2, 8]
    assert [each.model for each in found[0].events] == ["two\nlines", "last"]


def test_json_lines_are_read_exactly_and_by_number() -> None:
    text = b'{"cost": 0.1, "requests": 3}\n\nnope\n[1]\n{"cost": NaN}\n"x"\n\xff\n{"cost": 1e-9}'
    records = from_json(text)

    assert [record.line for record in records] == [1, 3, 4, 5, 6, 7, 8]
    assert [isinstance(record.fields, LineError) for record in records] == [False, *[True] * 5, False]
    good = records[0].fields
    assert not isinstance(good, LineError)
    assert nanos_of(event(**dict(good)).cost) == 100_000_000


def test_a_nested_line_is_refused_and_not_fatal() -> None:
    assert isinstance(from_json("[" * 100_000)[0].fields, LineError)
    assert "is no JSON object" in wrong(metadata='{"a":' * 300 + "1" + "}" * 300)


def test_a_line_that_is_too_long_is_skipped_and_the_next_ones_are_read() -> None:
    long = "x" * (3 * LINE_MAX)
    for records in (from_csv(f"model\na\n{long}\nb\n"), from_json(f'{{"a": 1}}\n{long}\n{{"a": 2}}')):
        assert [isinstance(record.fields, LineError) for record in records] == [False, True, False]
    assert str(from_csv(f"model\n{long}\n")[0].fields) == "the line is longer than 262,144 bytes"


def test_an_unclosed_quote_is_told_with_what_it_swallowed() -> None:
    (record,) = from_csv('model,task\n"a,b\nc,d\n')

    assert record.line == 2
    assert "what stands until line 3 is lost with it" in str(record.fields)


@pytest.mark.parametrize("header", [b"a,b,a\n", b'"a\n', b"\xff\n", b"x" * (2 * LINE_MAX)])
def test_a_header_that_is_none_is_refused(header: bytes) -> None:
    with pytest.raises(HeaderError):
        csv_header(io.BytesIO(header))


def test_the_columns_are_checked_before_anything_is_sent() -> None:
    foreign = Reading({"occurred_time": "When"}, {"source": "s"}, UTC_ZONE)

    assert lacking(["When", "key_id"], foreign) == []
    assert ignored(["When", "key_id", "Colour"], foreign) == ["Colour"]
    assert [why.split(";")[0] for why in lacking(["Then"], foreign)] == [
        "there is no column 'When'",
        "no column is key_id",
    ]


@pytest.mark.parametrize(
    ("name", "source"),
    [("usage.csv", "import:usage.csv"), ("nützung\n.csv", "import:n_tzung_.csv"), ("x" * 99, "import:" + "x" * 57)],
)
def test_the_source_is_the_files_name_as_a_source_may_be(name: str, source: str) -> None:
    assert source_of(name) == source


def test_a_batch_is_bounded_in_events_and_in_bytes() -> None:
    small = [Record(at, f"{at:064x}", {"occurred_time": TIME}) for at in range(2 * EVENTS_MAX + 1)]
    large = [Record(at, f"{at:064x}", {"occurred_time": TIME, "model": "x" * 200_000}) for at in range(20)]

    assert [len(batch.events) for batch in read(small)[0]] == [EVENTS_MAX, EVENTS_MAX, 1]
    found = read(large)[0]
    assert sum(len(batch.events) for batch in found) == 20
    assert all(sum(each.ByteSize() for each in batch.events) <= BYTES_MAX for batch in found)


def test_a_long_stretch_of_bad_lines_gives_way_to_what_is_in_flight() -> None:
    bad = [Record(at, "", LineError("bad")) for at in range(2 * EVENTS_MAX + 1)]
    found, tally = read(bad)

    assert [(batch.seen, len(batch.events)) for batch in found] == [(EVENTS_MAX, 0), (EVENTS_MAX, 0), (1, 0)]
    assert tally.counts["REJECTED"] == 2 * EVENTS_MAX + 1


def test_the_summary_tells_the_first_problems_and_counts_the_rest() -> None:
    tally = Tally()
    for line in reversed(range(30)):
        tally.count("REJECTED", line, "why")
    tally.count("NEW", 99)

    told = list(tally.lines())
    assert told[0] == "31 lines: 1 new, 0 duplicate, 0 conflict, 30 rejected"
    assert told[1:-1] == [f"  line {line}: rejected: why" for line in range(PROBLEMS_SHOWN)]
    assert told[-1] == "  … and 20 more"


def test_a_file_is_never_read_whole() -> None:
    class Endless(io.BytesIO):
        """A file without an end."""

        def readline(self, size: int | None = -1, /) -> bytes:
            return (json.dumps({"occurred_time": TIME, "key_id": "k"}) + "\n").encode()

    found = batches(json_records(Endless()), READING, Tally(), lambda: 0)

    assert len(next(found).events) == EVENTS_MAX
    assert len(next(found).events) == EVENTS_MAX
