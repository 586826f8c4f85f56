"""Bars and sparklines made of characters: pure functions of whole numbers."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Marks:
    """The characters that a terminal can show: steps of a height, steps of a width, and the mark for zero."""

    heights: str
    widths: str
    nothing: str


BLOCKS = Marks("▁▂▃▄▅▆▇█", "▏▎▍▌▋▊▉█", "·")
ASCII = Marks("_-~=+*#@", "#", ".")


def marks_for(encoding: str) -> Marks:
    """Return the marks that an output's encoding can carry."""
    return BLOCKS if encoding.lower().startswith("utf") else ASCII


def sparkline(values: Sequence[int], most: int, marks: Marks = BLOCKS) -> str:
    """Return the values as heights relative to their largest; neighbours are summed to need at most ``most`` marks.

    Zero has a mark of its own; signs are not shown.
    """
    each = -(-len(values) // most) or 1
    sums = [abs(sum(values[at : at + each])) for at in range(0, len(values), each)]
    top, steps = max(sums, default=0), len(marks.heights)
    return "".join(marks.heights[-(-value * steps // top) - 1] if value else marks.nothing for value in sums)


def bar(value: int, whole: int, width: int, marks: Marks = BLOCKS) -> str:
    """Return a bar that is to ``width`` as the value is to the whole; any positive value is visible."""
    if value <= 0 or whole <= 0:
        return ""
    steps = len(marks.widths)
    full, rest = divmod(max(1, min(value, whole) * width * steps // whole), steps)
    return marks.widths[-1] * full + (marks.widths[rest - 1] if rest else "")


def percent(value: int, whole: int) -> str:
    """Return a share in per cent with one decimal place; empty where there is no meaningful share."""
    if whole <= 0 or value < 0:
        return ""
    tenths = (value * 2000 + whole) // (2 * whole)
    return "<0.1%" if value and not tenths else f"{tenths // 10}.{tenths % 10}%"
