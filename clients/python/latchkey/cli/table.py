"""A report as a table for people: exact money in columns, shares as bars, time as a sparkline."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from latchkey.cli.marks import Marks, bar, marks_for, percent, sparkline
from latchkey.cli.money import dollars, places_needed
from latchkey.cli.names import OTHER, filter_name, flags, part_name
from latchkey.cli.ranges import BY, Bucket, instant_text
from latchkey.cli.report import MONEY, Group, Measure, Numbers, Part, Report
from latchkey.cli.series import series

WIDE = 10_000
"""The width of an output that has none, such as a pipe."""

BAR_WIDTH = 10
SHARE_WIDTH = len("100.0% ") + BAR_WIDTH
NAME_WIDTH = 20
_TITLES = {
    Measure.INPUT_TOKENS: "tokens in",
    Measure.OUTPUT_TOKENS: "tokens out",
    Measure.CACHED_TOKENS: "of them cached",
}
SPARKLINE_MOST = 31
_ALWAYS = (Measure.SPEND, Measure.REQUESTS, Measure.INPUT_TOKENS, Measure.OUTPUT_TOKENS)
# Columns that are shown where the other one is not all zero.
_WHERE_ANY = {
    Measure.ADJUSTMENTS: Measure.ADJUSTMENTS,
    Measure.NET_SPEND: Measure.ADJUSTMENTS,
    Measure.CACHED_TOKENS: Measure.CACHED_TOKENS,
}


@dataclass(frozen=True, slots=True)
class Look:
    """Which of the drawings fit, and the characters to draw with."""

    marks: Marks
    bars: bool = True
    lines: bool = True


def show(report: Report, console: Console) -> None:
    """Print a report, leaving drawings out before a number would be cut."""
    marks = marks_for(console.encoding)
    looks = (Look(marks), Look(marks, lines=False), Look(marks, bars=False, lines=False))
    tables = [(table, _width(table, console)) for table in (table_of(report, look) for look in looks)]
    table, width = next((found for found in tables if found[1] <= console.width), tables[-1])
    console.print(Text(heading(report), style="bold"))
    # On a terminal that is too narrow for the numbers alone, lines that go on below are better than cut numbers.
    console.width = max(width, console.width)
    console.print(table)
    console.print(footing(report))


def _width(table: Table, console: Console) -> int:
    # Measured at a large width: rich would else answer with the width that there is.
    return Measurement.get(console, console.options.update(width=WIDE), table).minimum


def heading(report: Report) -> str:
    """Return what the report is about and which time it covers."""
    question = report.question
    by = " and ".join(dimension.value for dimension in question.group_by)
    covered = question.covered
    start, end = instant_text(covered.start, covered.zone), instant_text(covered.end, covered.zone)
    only = filter_name(question.selected)
    return f"Usage by {by} from {start} until {end}, {covered.zone.key}" + (f"; only {only}" if only else "")


def footing(report: Report) -> Text:
    """Return when the numbers were read, and whether there are any."""
    zone = report.question.covered.zone
    first, latest = min(report.as_of).astimezone(zone), max(report.as_of).astimezone(zone)
    lines = [] if report.groups else ["Nothing was recorded in this time."]
    lines.append(f"As of {first:%Y-%m-%d %H:%M:%S} {zone.key}.")
    if len(report.as_of) > 1:
        lines.append(
            f"Read in {len(report.as_of)} pages until {latest:%H:%M:%S}, each a snapshot of its own: "
            "the totals are the first one's, and the rows may hold more. A smaller --top is one page."
        )
    return Text("\n".join(lines), style="dim")


def columns_of(report: Report) -> list[Measure]:
    """Return the measures that are worth a column: the usual, those that are not all zero, and what orders."""
    everyone = [*(group.numbers for group in report.groups), report.totals]
    seen = {*_ALWAYS, report.question.order_by}
    seen.update(shown for shown, why in _WHERE_ANY.items() if any(numbers[why] for numbers in everyone))
    return [measure for measure in Measure if measure in seen]


def table_of(report: Report, look: Look) -> Table:
    """Return the table: a row a group, then the totals."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    lines, places = _lines(report, look), _places(report)
    _add_columns(table, report, look)
    for at, group in enumerate(report.groups):
        table.add_row(*_names(group, report), *_cells(group.numbers, report, look, places), *lines[at : at + 1])
    table.add_section()
    names = ["total", *[""] * (len(report.question.group_by) - 1)]
    table.add_row(*names, *_cells(report.totals, report, look, places), *lines[-1:], style="bold")
    return table


def _add_columns(table: Table, report: Report, look: Look) -> None:
    question = report.question
    for at, dimension in enumerate(question.group_by):
        longest = max((len(part_name(group.parts[at])) for group in report.groups if group.parts), default=0)
        table.add_column(str(dimension), overflow="fold", min_width=max(len(dimension), min(longest, NAME_WIDTH)))
    for measure in columns_of(report):
        _add_column(table, _TITLES.get(measure, measure.words), justify="right")
        if measure is question.order_by and look.bars:
            _add_column(table, "share", least=SHARE_WIDTH)
    if look.lines and question.bucket is not Bucket.NONE:
        _add_column(table, f"{question.order_by.words} {BY[question.bucket]}")


def _add_column(table: Table, title: str, justify: JustifyMethod = "left", least: int = 0) -> None:
    table.add_column(title, justify=justify, no_wrap=True, min_width=max(least, len(title)))


def _places(report: Report) -> dict[Measure, int]:
    everyone = [*(group.numbers for group in report.groups), report.totals]
    return {measure: max(places_needed(numbers[measure]) for numbers in everyone) for measure in MONEY}


def _cells(numbers: Numbers, report: Report, look: Look, places: dict[Measure, int]) -> Iterable[RenderableType]:
    for measure in columns_of(report):
        value = numbers[measure]
        yield dollars(value, places[measure]) if measure in MONEY else f"{value:,}"
        if measure is report.question.order_by and look.bars:
            yield _share(value, report.totals[measure], look.marks)


def _share(value: int, whole: int, marks: Marks) -> Text:
    drawn = bar(value, whole, BAR_WIDTH, marks)
    return Text.assemble((f"{percent(value, whole):>6} ", ""), (drawn, "cyan"))


def _lines(report: Report, look: Look) -> list[Text]:
    """Return a sparkline for each group, and one for them all; none if time is not divided."""
    question = report.question
    if not look.lines or question.bucket is Bucket.NONE:
        return []
    rows = [series(group, report) for group in report.groups]
    rows.append([sum(values) for values in zip(*rows, strict=True)])
    return [Text(sparkline(row, SPARKLINE_MOST, look.marks), style="green") for row in rows]


def _names(group: Group, report: Report) -> Sequence[Text]:
    if group.other:
        return [Text(OTHER, style="dim italic"), *[Text()] * (len(report.question.group_by) - 1)]
    return [_name(part) for part in group.parts]


def _name(part: Part) -> Text:
    name = Text(part_name(part), style="" if part.text else "dim italic")
    for flag in flags(part):
        name.append(f" [{flag}]", style="red")
    return name
