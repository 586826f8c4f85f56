"""`latchkey usage import`: a file's lines become usage, each counted once however often the file is imported."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import click
import grpc
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from latchkey.cli import INTERRUPTED
from latchkey.cli.connection import Connection, Reach, connect, connection_options
from latchkey.cli.events import Reading, ignored, lacking, occurred
from latchkey.cli.failures import Failure, message_of
from latchkey.cli.import_options import Given, format_of, import_options, reading_of
from latchkey.cli.importing import Importer, Notices, Tally, batches
from latchkey.cli.lines import HeaderError, LineError, Record, csv_header, csv_records, json_records
from latchkey.cli.names import shown
from latchkey.cli.parameters import picked
from latchkey.v1 import usage_service_pb2_grpc

RESUME = "Run the same command again to go on: what was recorded is a duplicate then, and counts once."


@click.command(name="import")
@import_options
@connection_options
def import_(patience: float, **options: Any) -> None:
    """Record the events of FILE, .csv or .jsonl, as usage.

    Columns are called as the fields of UsageEvent: key_id, type (CONSUME if there is none), member, model, task,
    requests, input_tokens, output_tokens, cached_tokens, cost (USD), occurred_time (RFC 3339), operation_id, metadata
    (JSON), source, event_id. A line without an event_id is named by its content, so that a file imported twice counts
    once. The credential is a management key's secret with the role VERIFIER, in LK_TOKEN or a --token-file.
    """
    connection = connect(picked(Reach, options), os.environ.get("LK_TOKEN", ""))
    tally = Tally()
    try:
        _run(connection, picked(Given, options), tally, patience)
    except KeyboardInterrupt:
        _summarise(tally)
        click.echo(f"Interrupted. {RESUME}", err=True)
        sys.exit(INTERRUPTED)
    except grpc.aio.AioRpcError as error:
        _summarise(tally)
        raise Failure(f"{message_of(error, connection.address, connection.tls is not None)}\n{RESUME}") from None
    _summarise(tally)
    if tally.unrecorded:
        sys.exit(1)


def _run(connection: Connection, given: Given, tally: Tally, patience: float) -> None:
    kind = format_of(given)
    reading = _looked_at(given, kind, reading_of(given))
    asyncio.run(_import(connection, given, kind, reading, tally, patience))


def _looked_at(given: Given, kind: str, reading: Reading) -> Reading:
    """Return the reading with its shift, after a first pass over the file: columns, and the latest time if asked."""
    with _opened(given.file) as file:
        _check_columns(file, kind, reading)
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
        raise Failure(f"{file}: {error.strerror or error}") from None


def _check_columns(file: BinaryIO, kind: str, reading: Reading) -> None:
    """Refuse a CSV file that lacks a column, and print which columns, or fields of the first line, are not read."""
    if kind == "csv":
        columns = csv_header(file)
        if wrong := lacking(columns, reading):
            has = ", ".join(shown(name) for name in columns)
            raise click.UsageError(f"{'; '.join(wrong)}. The file has: {has or 'none'}")
    else:
        fields = (record.fields for record in json_records(file))
        columns = list(next((found for found in fields if not isinstance(found, LineError)), ()))
    if left := ignored(columns, reading):
        click.echo(f"Not read: {', '.join(shown(name) for name in left)}.", err=True)
    file.seek(0)


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
    with _opened(given.file) as file, _progress(console) as progress:
        task = progress.add_task(shown(given.file.name), total=given.file.stat().st_size)
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


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _summarise(tally: Tally) -> None:
    for line in tally.lines():
        click.echo(shown(line))
