"""The client's report: exact money, shares, sparklines, names that can't be mistaken, shapes for machines."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console

from latchkey.cli.export import write_csv, write_json
from latchkey.cli.marks import ASCII, bar, percent, sparkline
from latchkey.cli.money import dollars, usd
from latchkey.cli.names import filter_name, label, shown
from latchkey.cli.plot import draw, picture
from latchkey.cli.ranges import Bucket, between
from latchkey.cli.report import Cell, Dimension, Filter, Measure, Numbers, Part, Question, Report, Row, grouped
from latchkey.cli.table import show

UTC_ZONE = ZoneInfo("UTC")
START = datetime(2026, 11, 20, tzinfo=UTC)
WEEK = between(START, START + timedelta(days=7), UTC_ZONE)
DOLLAR = 1_000_000_000


def numbers(spend: int = 0, adjustments: int = 0, requests: int = 0) -> Numbers:
    told = dict.fromkeys(Measure, 0)
    return told | {
        Measure.SPEND: spend,
        Measure.ADJUSTMENTS: adjustments,
        Measure.NET_SPEND: spend + adjustments,
        Measure.REQUESTS: requests,
    }


def row(parts: Sequence[Part], day: int, spend: int, adjustments: int = 0, *, other: bool = False) -> Row:
    start = START + timedelta(days=day)
    return tuple(parts), other, Cell(start, start + timedelta(days=1), numbers(spend, adjustments, 1))


def environment(text: str) -> tuple[Part]:
    return (Part(Dimension.ENVIRONMENT, text, unlabeled=not text),)


def report_of(rows: Sequence[Row], *by: Dimension, bucket: Bucket = Bucket.DAY, pages: int = 1) -> Report:
    question = Question(WEEK, bucket, by or (Dimension.ENVIRONMENT,))
    totals = dict.fromkeys(Measure, 0)
    for _, _, cell in rows:
        for measure, value in cell.numbers.items():
            totals[measure] += value
    as_of = tuple(START + timedelta(days=6, minutes=page) for page in range(pages))
    return Report(question, grouped(rows, question.order_by), totals, as_of)


STAGES = (
    row(environment("prod"), 1, 3 * DOLLAR),
    row(environment("prod"), 3, 3 * DOLLAR),
    row(environment("staging"), 1, DOLLAR // 2),
    row(environment("unlabeled"), 2, DOLLAR),
    row(environment(""), 2, DOLLAR + 1),
)


def printed(report: Report, width: int = 120) -> str:
    file = io.StringIO()
    show(report, Console(file=file, width=width, highlight=False))
    return file.getvalue()


def test_money_is_printed_exactly_with_cents_at_least() -> None:
    assert [usd(value) for value in (0, 1, -1, 10_000_000, DOLLAR, -1_500_000_000)] == [
        "0.00",
        "0.000000001",
        "-0.000000001",
        "0.01",
        "1.00",
        "-1.50",
    ]
    assert dollars(-1_234_567_890_000_000) == "-$1,234,567.89"
    assert dollars(82_500, 9) == "$0.000082500"


def test_rows_with_one_owner_are_one_group_with_their_sum_and_the_largest_comes_first() -> None:
    groups = grouped(STAGES, Measure.SPEND)

    assert [(group.parts[0].text, group.numbers[Measure.SPEND]) for group in groups] == [
        ("prod", 6 * DOLLAR),
        ("", DOLLAR + 1),
        ("unlabeled", DOLLAR),
        ("staging", DOLLAR // 2),
    ]


def test_the_other_row_comes_last_however_large_it_is() -> None:
    rows = [row((), 0, 9 * DOLLAR, other=True), row(environment("prod"), 0, DOLLAR)]

    assert [group.other for group in grouped(rows, Measure.SPEND)] == [False, True]
    assert [line.split()[0] for line in printed(report_of(rows)).splitlines()[4:6]] == ["prod", "(other)"]


def test_unlabeled_is_told_apart_from_a_label_of_that_name() -> None:
    lines = printed(report_of(STAGES)).splitlines()

    assert any(line.strip().startswith("(unlabeled) ") for line in lines)
    assert any(line.strip().startswith('"unlabeled" ') for line in lines)


def test_what_is_too_many_to_tell_is_told_apart_from_none() -> None:
    rows = [
        row((Part(Dimension.TASK, "", beyond=True),), 0, 2 * DOLLAR),
        row((Part(Dimension.TASK, ""),), 0, DOLLAR),
    ]
    report = report_of(rows, Dimension.TASK)
    out = io.StringIO()
    write_csv(report, out)

    assert [line.strip().split("  ")[0] for line in printed(report).splitlines()[4:6]] == [
        "(too many to tell)",
        "(none)",
    ]
    assert [each["task_other"] for each in csv.DictReader(io.StringIO(out.getvalue()))] == ["true", "false"]


@pytest.mark.parametrize("text", ["(unlabeled)", "Other", "total", "(none)", '"', "a ", "\u202egnp.exe", "a\x1b[2J"])
def test_a_label_that_could_be_mistaken_or_obeyed_is_quoted(text: str) -> None:
    assert label(text).startswith('"')
    assert label(text).isprintable()
    assert json.loads(label(text)) == text


@pytest.mark.parametrize("text", ["prod", "Prod 2", "münchen", "日本", "[red]", "$x^2$"])
def test_any_other_label_is_shown_as_it_is(text: str) -> None:
    assert label(text) == text


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert shown("a\x1b[31mb\r\n") == "a\\u001b[31mb\\r\\n"


def test_a_filter_is_told_in_words() -> None:
    selected = Filter({Dimension.ENVIRONMENT: ("a", "unlabeled"), Dimension.MODEL: ("",)}, unlabeled=True)

    assert filter_name(selected) == 'environment a or "unlabeled" or (unlabeled), model (none)'


def test_the_table_holds_shares_a_line_over_the_days_and_totals() -> None:
    text = printed(report_of(STAGES))
    lines = text.splitlines()

    assert lines[0] == "Usage by environment from 2026-11-20 until 2026-11-27, UTC"
    assert next(line for line in lines if " prod " in line).split()[:3] == ["prod", "$6.000000000", "70.6%"]
    assert "·█·█···" in text
    assert next(line for line in lines if " total " in line).split()[1:3] == ["$8.500000001", "100.0%"]
    assert lines[-1] == "As of 2026-11-26 00:00:00 UTC."
    assert "adjustments" not in text


def test_adjustments_and_the_net_are_shown_where_there_are_any() -> None:
    text = printed(report_of([row(environment("prod"), 1, DOLLAR, -DOLLAR // 4)]))

    assert "-$0.25" in text
    assert "net spend" in text
    assert "$0.75" in text


def test_deleted_and_revoked_keys_are_flagged() -> None:
    key = Part(Dimension.KEY, "key_1", name="web", deleted=True, revoked=True)

    assert "web key_1 [deleted] [revoked]" in printed(report_of([row([key], 1, DOLLAR)], Dimension.KEY))


def test_text_from_the_server_is_never_markup() -> None:
    assert "[bold]x[/bold] :smile:" in printed(report_of([row(environment("[bold]x[/bold] :smile:"), 1, DOLLAR)]))


def test_nothing_recorded_is_said_beside_zeros() -> None:
    text = printed(report_of([]))

    assert "Nothing was recorded in this time." in text
    assert "$0.00" in text


def test_pages_that_are_several_snapshots_are_told() -> None:
    assert "Read in 3 pages until 00:02:00, each a snapshot of its own" in printed(report_of(STAGES, pages=3), 400)


@pytest.mark.parametrize("width", [100, 80, 66, 60, 40])
def test_no_number_is_cut_on_a_narrow_terminal(width: int) -> None:
    text = printed(report_of([row(environment("a" * 32), 1, 123_456_789_012_345_678)]), width)

    assert text.count("$123,456,789.012345678") == 2
    assert "…" not in text


def test_a_pipe_gets_no_colours() -> None:
    assert "\x1b" not in printed(report_of(STAGES))


def test_a_sparkline_tells_nothing_from_little_and_the_largest_fills_the_height() -> None:
    assert sparkline([0, 1, 50, 100], 10) == "·▁▄█"
    assert sparkline([], 10) == ""
    assert sparkline([0, 0], 10) == "··"
    assert sparkline([0, 5, 10], 10, ASCII) == ".=@"


def test_a_sparkline_that_is_too_long_adds_neighbours() -> None:
    assert sparkline([1, 1, 4, 4, 2], 3) == "▂█▂"


def test_a_share_is_never_drawn_as_nothing_while_it_is_something() -> None:
    assert (bar(1, 10**18, 10), percent(1, 10**18)) == ("▏", "<0.1%")
    assert (bar(5, 10, 10), percent(5, 10)) == ("█████", "50.0%")
    assert (bar(-5, 10, 10), percent(-5, 10)) == ("", "")
    assert (bar(0, 0, 10), percent(0, 0)) == ("", "")


def test_json_has_one_shape_and_money_in_decimal_strings() -> None:
    out = io.StringIO()
    write_json(report_of(STAGES), out)
    told = json.loads(out.getvalue())

    assert set(told) == {
        "start_time", "end_time", "time_zone", "bucket_width", "group_by", "order_by", "as_of", "totals", "groups",
    }  # fmt: skip
    assert told["totals"]["spend"] == "8.500000001"
    assert told["groups"][0]["group"] == {"environment": "prod", "unlabeled": False}
    assert [bucket["measures"]["spend"] for bucket in told["groups"][0]["buckets"]] == ["3.00", "3.00"]
    assert told["groups"][1]["group"] == {"environment": "", "unlabeled": True}


def test_json_without_buckets_has_an_empty_list_of_them() -> None:
    out = io.StringIO()
    write_json(report_of(STAGES, bucket=Bucket.NONE), out)

    assert all(group["buckets"] == [] for group in json.loads(out.getvalue())["groups"])


def test_csv_has_a_row_for_each_group_and_bucket_and_the_columns_of_its_dimensions() -> None:
    out = io.StringIO()
    write_csv(report_of([*STAGES, row((), 2, 7, other=True)]), out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))

    assert [(each["environment"], each["unlabeled"], each["other"], each["spend"]) for each in rows] == [
        ("prod", "false", "false", "3.00"),
        ("prod", "false", "false", "3.00"),
        ("", "true", "false", "1.000000001"),
        ("unlabeled", "false", "false", "1.00"),
        ("staging", "false", "false", "0.50"),
        ("", "", "true", "0.000000007"),
    ]
    assert rows[0]["start_time"] == "2026-11-21T00:00:00Z"


def test_csv_of_nothing_is_its_header() -> None:
    out = io.StringIO()
    write_csv(report_of([], Dimension.KEY, Dimension.API), out)

    assert out.getvalue().startswith("start_time,end_time,key_id,key_name,key_deleted,key_revoked,api_id,other,spend,")
    assert out.getvalue().count("\n") == 1


def test_a_picture_names_its_groups_its_unit_and_its_range() -> None:
    rows = [*STAGES, row(environment("_private"), 1, 5), row(environment("$x^2$"), 1, 6, -9)]
    figure = picture(report_of(rows))
    axes = figure.axes[0]
    legend = axes.get_legend()

    assert axes.get_title(loc="left") == "Spend by environment"
    assert axes.get_ylabel() == "spend, USD"
    assert [text.get_text() for text in axes.texts] == ["2026-11-20 until 2026-11-27, UTC · as of 2026-11-26 00:00"]
    assert legend is not None
    names = [text.get_text().splitlines()[0] for text in legend.get_texts()]
    assert sorted(names) == sorted(["prod", "(unlabeled)", '"unlabeled"', "staging", "$x^2$", "_private"])


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml")])
@pytest.mark.parametrize("bucket", [Bucket.NONE, Bucket.DAY, Bucket.MONTH])
@pytest.mark.parametrize("rows", [STAGES, ()])
def test_a_picture_can_be_drawn_of_anything(
    tmp_path: Path, name: str, begins: bytes, bucket: Bucket, rows: Sequence[Row]
) -> None:
    draw(report_of(rows, bucket=bucket), tmp_path / name)

    assert (tmp_path / name).read_bytes().startswith(begins)


def test_the_same_report_is_the_same_picture(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw(report_of(STAGES), tmp_path / name)

    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
