"""`latchkey usage import`: a file's lines become usage, each counted once however often the file is imported."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from zoneinfo import ZoneInfo

import click
import grpc
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from latchkey.cli.connection import Connection, Reach, connect, connection_options
from latchkey.cli.events import FIELDS, PRICED, Reading, ignored, lacking, occurred, source_of
from latchkey.cli.failures import Failure, told
from latchkey.cli.importing import Importer, Notices, Tally, batches
from latchkey.cli.lines import HeaderError, LineError, Record, csv_header, csv_records, json_records
from latchkey.cli.money import parse_usd
from latchkey.cli.names import shown
from latchkey.cli.parameters import PairType, moment_of_zone, picked, zone_option
from latchkey.v1 import usage_service_pb2_grpc

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
RESUME = "Run the same command again to go on: what was recorded is a duplicate then, and counts once."
_INTERRUPTED = 130


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


@click.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", type=click.Choice(["csv", "jsonl"]), help="How the file is written.  [default: by its name]")
@click.option("--column", type=PairType(), multiple=True, metavar="FIELD=NAME", help="Read a field from this column.")
@click.option(
    "--set",
    "constants",
    type=PairType(),
    multiple=True,
    metavar="FIELD=VALUE",
    help="Give a field to the lines that lack it.",
)
@click.option("--key", metavar="KEY_ID", help="The key of the lines that name none.")
@click.option("--source", help="The source of the lines that name none.  [default: import:FILE]")
@click.option(
    "--price",
    type=PairType(),
    multiple=True,
    metavar="FIELD=USD",
    help=f"Dollars a million of {', '.join(PRICED)}, for the lines without a cost.",
)
@zone_option("The zone of times without an offset.")
@click.option(
    "--ending-at",
    callback=moment_of_zone,
    metavar="TIME",
    help="Shift all times so that the last event happened then.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to try again while the server does not answer.",
)
@connection_options
def import_(patience: float, **options: Any) -> None:
    """Record the events of FILE, .csv or .jsonl, as usage.

    Columns are called as the fields of UsageEvent: key_id, type (CONSUME if there is none), member, model, task,
    requests, input_tokens, output_tokens, cached_tokens, cost (USD), occurred_time (RFC 3339), operation_id, metadata
    (JSON), source, event_id. A line without an event_id is named by its content, so that a file imported twice counts
    once. The credential is a management key's secret with the role VERIFIER, in LK_TOKEN or a --token-file.
    """
    given = picked(Given, options)
    kind = _format(given)
    reading = _looked_at(given, kind, _reading(given))
    connection = connect(picked(Reach, options), os.environ.get("LK_TOKEN", ""))
    tally = Tally()
    try:
        asyncio.run(_import(connection, given, kind, reading, tally, patience))
    except KeyboardInterrupt:
        _summarise(tally)
        click.echo(f"Interrupted. {RESUME}", err=True)
        sys.exit(_INTERRUPTED)
    except grpc.aio.AioRpcError as error:
        _summarise(tally)
        raise Failure(f"{told(error, connection.address, connection.tls is not None)}\n{RESUME}") from None
    _summarise(tally)
    if tally.unrecorded:
        sys.exit(1)


def _format(given: Given) -> str:
    kind = given.format or FORMATS.get(given.file.suffix.lower())
    if kind is None:
        raise click.UsageError(f"{given.file.name} ends in none of {', '.join(FORMATS)}; say its --format")
    if not given.file.is_file():
        raise click.UsageError(f"{given.file} is no regular file; an import reads it more than once")
    return kind


def _reading(given: Given) -> Reading:
    constants = {"source": given.source or source_of(given.file.name)}
    constants |= {"key_id": given.key} if given.key else {}
    constants |= _known(given.constants, "--set", FIELDS)
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


def _looked_at(given: Given, kind: str, reading: Reading) -> Reading:
    """Return the reading with its shift, after a first look at the file: its columns, and its latest time if asked."""
    with _opened(given.file) as file:
        if kind == "csv":
            _check_columns(csv_header(file), reading)
            file.seek(0)
        if given.ending_at is None:
            return reading
        latest = max(_times(_records(file, kind), reading), default=given.ending_at)
        return replace(reading, shift=given.ending_at - latest)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        with file.open("rb") as opened:
            yield opened
    except HeaderError as error:
        raise click.UsageError(f"{file}: {error}") from None
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from None


def _check_columns(header: list[str], reading: Reading) -> None:
    if wrong := lacking(header, reading):
        has = ", ".join(shown(name) for name in header)
        raise click.UsageError(f"{'; '.join(wrong)}. The file has: {has}")
    if left := ignored(header, reading):
        click.echo(f"Not read: {', '.join(shown(name) for name in left)}.", err=True)


def _records(file: BinaryIO, kind: str) -> Iterator[Record]:
    return csv_records(file) if kind == "csv" else json_records(file)


def _times(records: Iterator[Record], reading: Reading) -> Iterator[datetime]:
    for record in records:
        if not isinstance(record.fields, LineError):
            with suppress(LineError):
                yield occurred(record.fields, reading)


async def _import(
    connection: Connection, given: Given, kind: str, reading: Reading, tally: Tally, patience: float
) -> None:
    console = Console(stderr=True, highlight=False)
    with _opened(given.file) as file, _progress(console, given.file) as progress:
        task = progress.add_task("", total=given.file.stat().st_size)
        async with connection.channel() as channel:
            importer = Importer(
                usage_service_pb2_grpc.UsageServiceStub(channel),
                connection.token,
                patience,
                Notices(lambda text: console.print(text, markup=False), patience),
                lambda batch: progress.update(task, completed=batch.position),
                tally,
            )
            await importer.send(batches(_records(file, kind), reading, tally, file.tell))


def _progress(console: Console, file: Path) -> Progress:
    columns = (TextColumn(file.name, markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _summarise(tally: Tally) -> None:
    for line in tally.told():
        click.echo(shown(line))
