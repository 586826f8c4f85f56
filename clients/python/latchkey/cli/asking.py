"""The options that make a report's question, and the question that they make."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import click

from latchkey.cli import ranges
from latchkey.cli.parameters import EnvironmentType, ValueChoice, moment_of_zone, zone_option
from latchkey.cli.ranges import Bucket, Last, Range
from latchkey.cli.report import Dimension, Filter, Measure, Question

TOP = 20
"""Groups in a table by default; machines get all."""

PICTURE_TOP = 8
"""Groups in a picture by default: as many as there are distinguishable colours."""

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of a question as they were given."""

    group_by: tuple[Dimension, ...]
    last: Last | None
    start: datetime | None
    end: datetime | None
    zone: ZoneInfo
    bucket: Bucket | None
    order_by: Measure
    top: int | None
    unlabeled: bool
    environment: tuple[str, ...]
    key: tuple[str, ...]
    model: tuple[str, ...]
    member: tuple[str, ...]
    task: tuple[str, ...]
    identity: tuple[str, ...]
    api: tuple[str, ...]


def question_of(asked: Asked, now: datetime, *, drawn: bool, top: int) -> Question:
    """Return the question that the options describe; by default ``drawn`` divides time and ``top`` bounds groups."""
    covered = _covered(asked, now)
    silent = ranges.suitable(covered) if drawn else Bucket.NONE
    return Question(
        covered,
        asked.bucket or silent,
        tuple(dict.fromkeys(asked.group_by)) or (Dimension.ENVIRONMENT,),
        asked.order_by,
        asked.top if asked.top is not None else top,
        Filter({dimension: getattr(asked, dimension) for dimension in Dimension}, asked.unlabeled),
    )


def _covered(asked: Asked, now: datetime) -> Range:
    if asked.start is None and asked.end is None:
        return ranges.last(asked.last or Last.WEEK, now, asked.zone)
    if asked.last is not None:
        raise click.UsageError("--last goes without --from and --to")
    try:
        return ranges.given(asked.start, asked.end, now, asked.zone)
    except ValueError as error:
        raise click.UsageError(f"{error}: --from must be before --to, which is now unless given") from None


def _filter_option(dimension: Dimension) -> Callable[[Command], Command]:
    metavar = {Dimension.ENVIRONMENT: "LABEL", Dimension.KEY: "KEY_ID", Dimension.API: "API_ID"}
    return click.option(
        f"--{dimension}",
        type=EnvironmentType() if dimension is Dimension.ENVIRONMENT else click.STRING,
        multiple=True,
        metavar=metavar.get(dimension, dimension.upper()),
        help=f"Count only this {dimension}; repeat it for more.",
    )


_OPTIONS: tuple[Callable[[Command], Command], ...] = (
    click.option(
        "--by",
        "group_by",
        type=ValueChoice(Dimension),
        multiple=True,
        help="Group by this, one of: "
        + ", ".join(Dimension)
        + "; repeat it to divide further.  [default: environment]",
        metavar="DIMENSION",
    ),
    click.option(
        "--last",
        type=ValueChoice(Last),
        help="Today and the 6 or 29 days before, or the last 24 hours.  [default: week]",
    ),
    click.option(
        "--from", "start", callback=moment_of_zone, metavar="TIME", help="Begin here: a date or an instant of the zone."
    ),
    click.option(
        "--to", "end", callback=moment_of_zone, metavar="TIME", help="End here, not included.  [default: now]"
    ),
    zone_option("The time zone of dates and days."),
    click.option(
        "--bucket",
        type=ValueChoice(Bucket),
        help="Divide time.  [default: what suits the range; none for --json and --csv]",
    ),
    *(_filter_option(dimension) for dimension in Dimension),
    click.option("--unlabeled", is_flag=True, help="Count only keys without a label (or with an --environment)."),
    click.option(
        "--top",
        type=click.IntRange(0, 1000),
        metavar="N",
        help=f"Tell N groups and the rest in one, 0 for all.  [default: {TOP}; {PICTURE_TOP} with --plot; "
        "0 for --json and --csv]",
    ),
    click.option(
        "--order-by",
        type=ValueChoice(Measure),
        default=Measure.SPEND.value,
        show_default=True,
        metavar="MEASURE",
        help="The largest by this come first, and this is drawn: " + ", ".join(Measure) + ".",
    ),
)


def question_options(command: Command) -> Command:
    """Give a command the options of ``Asked``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
