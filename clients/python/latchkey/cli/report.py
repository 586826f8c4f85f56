"""A usage report as the command line knows it: groups over time, whole numbers, no protobuf."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from latchkey.cli.ranges import Bucket, Range


class Dimension(StrEnum):
    """Something that usage can be grouped by."""

    ENVIRONMENT = "environment"
    KEY = "key"
    MODEL = "model"
    MEMBER = "member"
    TASK = "task"
    IDENTITY = "identity"
    API = "api"


class Measure(StrEnum):
    """A number that usage is reported in."""

    SPEND = "spend"
    ADJUSTMENTS = "adjustments"
    NET_SPEND = "net-spend"
    REQUESTS = "requests"
    INPUT_TOKENS = "input-tokens"
    OUTPUT_TOKENS = "output-tokens"
    CACHED_TOKENS = "cached-tokens"
    TOTAL_TOKENS = "total-tokens"

    @property
    def field(self) -> str:
        """The proto's name of it."""
        return self.value.replace("-", "_")

    @property
    def words(self) -> str:
        """What people call it."""
        return self.value.replace("-", " ")


MONEY = frozenset({Measure.SPEND, Measure.ADJUSTMENTS, Measure.NET_SPEND})
"""The measures that are nano-dollars."""

Numbers = dict[Measure, int]
"""A value for each measure; money in nano-dollars."""


@dataclass(frozen=True, slots=True)
class Part:
    """The value of one dimension in a group; ``text`` is empty for keys that have none."""

    dimension: Dimension
    text: str
    unlabeled: bool = False
    beyond: bool = False
    """Whether it stands for the overflow: values beyond those that the server tracks for a key and day."""
    name: str = ""
    deleted: bool = False
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """What a group consumed in one bucket."""

    start: datetime
    end: datetime
    numbers: Numbers


@dataclass(slots=True)
class Group:
    """One group over the whole range, and bucket by bucket; ``other`` holds all that are outside the top."""

    parts: tuple[Part, ...]
    other: bool = False
    numbers: Numbers = field(default_factory=lambda: dict.fromkeys(Measure, 0))
    cells: list[Cell] = field(default_factory=list)

    def add(self, cell: Cell) -> None:
        """Count a bucket."""
        self.cells.append(cell)
        for measure, value in cell.numbers.items():
            self.numbers[measure] += value


@dataclass(frozen=True, slots=True)
class Filter:
    """What is counted: of each dimension's values one match is enough; one without values leaves all."""

    values: Mapping[Dimension, Sequence[str]] = field(default_factory=dict)
    unlabeled: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What a report was asked; ``group_by`` names one dimension at least, each once, and top 0 keeps every group."""

    covered: Range
    bucket: Bucket
    group_by: tuple[Dimension, ...]
    order_by: Measure = Measure.SPEND
    top: int = 0
    selected: Filter = field(default_factory=Filter)


@dataclass(frozen=True, slots=True)
class Report:
    """An answer: ``as_of`` is the instant of each page's snapshot; totals are those of the first."""

    question: Question
    groups: tuple[Group, ...]
    totals: Numbers
    as_of: tuple[datetime, ...]


Row = tuple[tuple[Part, ...], bool, Cell]
"""A row of the answer: whose it is, whether it is `other`, and its numbers."""


def grouped(rows: Iterable[Row], order_by: Measure) -> tuple[Group, ...]:
    """Return a group for each of the rows' owners, the largest first and `other` last."""
    found: dict[tuple[tuple[tuple[str, bool, bool], ...], bool], Group] = {}
    for parts, other, cell in rows:
        owner = tuple((part.text, part.unlabeled, part.beyond) for part in parts), other
        found.setdefault(owner, Group(parts, other)).add(cell)
    return tuple(sorted(found.values(), key=lambda group: _rank(group, order_by)))


def _rank(group: Group, order_by: Measure) -> tuple[bool, int, Sequence[str]]:
    return group.other, -group.numbers[order_by], [part.text for part in group.parts]
