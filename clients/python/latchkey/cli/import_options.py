"""The options that say how a file is read, and the reading that they make."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from latchkey.cli.events import FIELDS, PRICED, Reading, source_of
from latchkey.cli.money import parse_usd
from latchkey.cli.parameters import PairType, moment_of_zone, zone_option

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
CONSTANTS = tuple(name for name in FIELDS if name != "event_id")
"""Fields that can be the same for all lines; their ids can't."""

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Given:
    """The options of an import as they were given."""

    file: Path
    format: str | None
    column: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, str], ...]
    key: str | None
    source: str | None
    price: tuple[tuple[str, str], ...]
    zone: ZoneInfo
    ending_at: datetime | None


_OPTIONS: tuple[Callable[[Command], Command], ...] = (
    click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    click.option(
        "--format", type=click.Choice(["csv", "jsonl"]), help="How the file is written.  [default: by its name]"
    ),
    click.option(
        "--column", type=PairType(), multiple=True, metavar="FIELD=NAME", help="Read a field from this column."
    ),
    click.option(
        "--set",
        "constants",
        type=PairType(),
        multiple=True,
        metavar="FIELD=VALUE",
        help="Give a field to the lines that lack it.",
    ),
    click.option("--key", metavar="KEY_ID", help="The key of the lines that name none."),
    click.option("--source", help="The source of the lines that name none.  [default: import:FILE]"),
    click.option(
        "--price",
        type=PairType(),
        multiple=True,
        metavar="FIELD=USD",
        help=f"Dollars a million of {', '.join(PRICED)}, for the lines without a cost.",
    ),
    zone_option("The zone of times without an offset."),
    click.option(
        "--ending-at",
        callback=moment_of_zone,
        metavar="TIME",
        help="Shift all times so that the last event happened then.",
    ),
    click.option(
        "--patience",
        type=click.FloatRange(0),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to try again while the server does not answer.",
    ),
)


def import_options(command: Command) -> Command:
    """Give a command the options of ``Given``, and its patience."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def format_of(given: Given) -> str:
    """Return how the file is written, by its name unless ``--format`` says it."""
    kind = given.format or FORMATS.get(given.file.suffix.lower())
    if kind is None:
        raise click.UsageError(f"{given.file.name} ends in none of {', '.join(FORMATS)}; say its --format")
    if not given.file.is_file():
        raise click.UsageError(f"{given.file} is no regular file; an import reads it more than once")
    return kind


def reading_of(given: Given) -> Reading:
    """Return how the file is to be read."""
    constants = {"source": given.source or source_of(given.file.name)}
    constants |= {"key_id": given.key} if given.key else {}
    constants |= _known(given.constants, "--set", CONSTANTS)
    columns = _known(given.column, "--column", FIELDS)
    return Reading(columns, constants, given.zone, _prices(given))


def _prices(given: Given) -> dict[str, int]:
    try:
        return {name: parse_usd(text) for name, text in _known(given.price, "--price", PRICED).items()}
    except ValueError as error:
        raise click.UsageError(f"--price: {error}") from None


def _known(pairs: tuple[tuple[str, str], ...], option: str, names: tuple[str, ...]) -> dict[str, str]:
    for name, _ in pairs:
        if name not in names:
            raise click.UsageError(f"{option}: {name!r} is none of {', '.join(names)}")
    return dict(pairs)
