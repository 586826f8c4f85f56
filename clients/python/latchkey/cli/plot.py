"""A report as a picture: a stacked bar for each stretch of time, a colour a group, the legend beside it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, Formatter, MaxNLocator

from latchkey.cli.marks import percent
from latchkey.cli.money import dollars, places_needed
from latchkey.cli.names import filter_name, group_name
from latchkey.cli.ranges import BY, Bucket, instant_text, slots
from latchkey.cli.report import MONEY, Group, Report
from latchkey.cli.series import series
from latchkey.rules import NANOS

SIZE = (11, 5.5)
DPI = 150
NAME_MAX = 34
HEADROOM = 1.06
# Okabe and Ito's colours, which colour-blind eyes distinguish too; from the ninth group on they repeat, hatched.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#7F7F7F")
HATCHES = ("", "///", "...", "xxx")
OTHER_COLOUR = "#C8C8C8"
_TICKS = 10


@dataclass(frozen=True, slots=True)
class Look:
    """How a group's bars look."""

    colour: str
    hatch: str = ""


def draw(report: Report, file: Path) -> None:
    """Draw a report into a .png or .svg file."""
    # A dollar sign begins no formula, in a label neither; the same report is the same file.
    style = rc_context({"text.parse_math": False, "svg.hashsalt": "latchkey"})
    with style, warnings.catch_warnings():
        # A font that lacks a label's characters draws boxes, which needs no warning on the terminal.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = picture(report)
        metadata = {"Date": None} if file.suffix.lower() == ".svg" else {}
        figure.savefig(file, dpi=DPI, metadata=metadata)


def picture(report: Report) -> Figure:
    """Return the picture of a report."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    if report.question.bucket is Bucket.NONE:
        _draw_groups(axes, report)
    else:
        _draw_time(axes, report)
    question = report.question
    by = " and ".join(question.group_by)
    title = f"{question.order_by.words.capitalize()} by {by}"
    axes.set_title(title, loc="left", weight="bold", pad=24)
    axes.annotate(
        _subtitle(report),
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 8),
        textcoords="offset points",
        fontsize="small",
        color="#555555",
    )
    if not report.groups:
        axes.text(0.5, 0.5, "Nothing was recorded in this time.", ha="center", transform=axes.transAxes)
    return figure


def _subtitle(report: Report) -> str:
    covered, only = report.question.covered, filter_name(report.question.selected)
    start, end = instant_text(covered.start, covered.zone), instant_text(covered.end, covered.zone)
    span = f"{start} until {end}, {covered.zone.key}"
    as_of = f"as of {report.as_of[0].astimezone(covered.zone):%Y-%m-%d %H:%M}"
    return " · ".join([span, as_of, *([f"only {_cut(only, 60)}"] if only else [])])


def _draw_time(axes: Axes, report: Report) -> None:
    question = report.question
    every = slots(question.covered, question.bucket)
    above, below = [0.0] * len(every), [0.0] * len(every)
    drawn = [
        _draw_bars(axes, [_scaled(value, report) for value in series(group, report)], (above, below), _look(at, group))
        for at, group in enumerate(report.groups)
    ]
    axes.set_ylabel(_unit(report))
    axes.yaxis.set_major_formatter(_numbers(report))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlim(-0.6, len(every) - 0.4)
    axes.set_ylim(HEADROOM * min(below, default=0), HEADROOM * max(above, default=0) or 1)
    _label_times(axes, every, question.bucket)
    _add_legend(axes, drawn, report)


def _draw_bars(
    axes: Axes, values: Sequence[float], stacked: tuple[list[float], list[float]], look: Look
) -> BarContainer:
    """Draw a group on top of those before it; what is negative hangs below the line."""
    bottoms = []
    for at, value in enumerate(values):
        stack = stacked[value < 0]
        bottoms.append(stack[at])
        stack[at] += value
    return axes.bar(
        range(len(values)), values, 0.85, bottoms, linewidth=0.4, edgecolor="white", color=look.colour, hatch=look.hatch
    )


def _label_times(axes: Axes, every: Sequence[datetime], bucket: Bucket) -> None:
    step = -(-len(every) // _TICKS) or 1
    places = range(0, len(every), step)
    axes.set_xticks(list(places), [_time_label(every[at], bucket) for at in places])
    axes.set_xlabel(f"{BY[bucket].removeprefix('by ')} beginning")


def _time_label(at: datetime, bucket: Bucket) -> str:
    match bucket:
        case Bucket.QUARTER | Bucket.HOUR:
            return f"{at:%H:%M}\n{at:%b} {at.day}"
        case Bucket.MONTH:
            return f"{at:%b}\n{at.year}"
        case _:
            return f"{at:%a}\n{at:%b} {at.day}" if bucket is Bucket.DAY else f"{at:%b} {at.day}\n{at.year}"


def _draw_groups(axes: Axes, report: Report) -> None:
    """Draw a bar a group, the largest at the top, where time is not divided."""
    for at, group in enumerate(report.groups):
        look, value = _look(at, group), group.numbers[report.question.order_by]
        axes.barh(at, _scaled(value, report), 0.7, color=look.colour, hatch=look.hatch)
    axes.set_yticks(range(len(report.groups)), [_legend_name(group, report) for group in report.groups])
    axes.invert_yaxis()
    axes.set_xlabel(_unit(report))
    axes.xaxis.set_major_formatter(_numbers(report))
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)


def _look(at: int, group: Group) -> Look:
    again, colour = divmod(at, len(COLOURS))
    return Look(OTHER_COLOUR) if group.other else Look(COLOURS[colour], HATCHES[again % len(HATCHES)])


def _add_legend(axes: Axes, drawn: Sequence[BarContainer], report: Report) -> None:
    if drawn:
        names = [_legend_name(group, report) for group in report.groups]
        axes.legend(drawn, names, loc="upper left", bbox_to_anchor=(1, 1), frameon=False, reverse=True)


def _legend_name(group: Group, report: Report) -> str:
    measure = report.question.order_by
    value, whole = group.numbers[measure], report.totals[measure]
    number = dollars(value) if measure in MONEY else f"{value:,}"
    return f"{_cut(group_name(group), NAME_MAX)}\n{number}  {percent(value, whole)}".rstrip()


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _unit(report: Report) -> str:
    measure = report.question.order_by
    return f"{measure.words}, USD" if measure in MONEY else measure.words


def _scaled(value: int, report: Report) -> float:
    # A picture's coordinates may be floats; no sum that is printed is computed with them.
    return value / NANOS if report.question.order_by in MONEY else float(value)


class Dollars(Formatter):
    """Writes the dollars of an axis, all with the same places."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Return one amount."""
        return dollars(round(x * NANOS))

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """Return all amounts."""
        amounts = [round(value * NANOS) for value in values]
        places = max(map(places_needed, amounts), default=0)
        return [dollars(amount, places) for amount in amounts]


def _numbers(report: Report) -> Formatter:
    return Dollars() if report.question.order_by in MONEY else EngFormatter(sep="")
