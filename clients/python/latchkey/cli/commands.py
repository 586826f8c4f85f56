"""`latchkey`: numbers that people can look at."""

import asyncio
import io
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import grpc
from click.core import ParameterSource
from rich.console import Console

from latchkey.cli.asking import PICTURE_TOP, TOP, Asked, question_of, question_options
from latchkey.cli.connection import Connection, Reach, connect, connection_options
from latchkey.cli.export import write_csv, write_json
from latchkey.cli.failures import Failure, message_of
from latchkey.cli.import_command import import_
from latchkey.cli.parameters import picked
from latchkey.cli.query import fetch
from latchkey.cli.report import Question, Report
from latchkey.cli.table import WIDE, show

PICTURES = (".png", ".svg")


def main() -> None:
    """Run the command line: 0 is done, 1 is failed, 2 is misused, 130 is interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What an output can't encode is escaped.
            stream.reconfigure(errors="backslashreplace")
    latchkey()


@click.group(help="Latchkey's client: see what keys consumed, and bring it in.")
@click.version_option(package_name="latchkey-client", prog_name="latchkey")
def latchkey() -> None:
    """Group the commands."""


def _picture(_context: click.Context, _parameter: click.Parameter, file: Path | None) -> Path | None:
    if file is not None and file.suffix.lower() not in PICTURES:
        raise click.BadParameter(f"{file.name} must end in {' or '.join(PICTURES)}")
    return file


@latchkey.group(invoke_without_command=True)
@question_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, money as decimal strings.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, a row for each group and bucket.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_picture,
    metavar="FILE",
    help="Draw a picture too, .png or .svg.",
)
@connection_options
@click.pass_context
def usage(context: click.Context, /, as_json: bool, as_csv: bool, plot: Path | None, **options: Any) -> None:
    """Show what keys consumed: the last week by environment, unless asked otherwise.

    The credential is a management key's secret with the role VIEWER, in LK_TOKEN or a --token-file.
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    if as_json and as_csv:
        raise click.UsageError("--json or --csv, not both")
    machine = as_json or as_csv
    question = question_of(
        picked(Asked, options),
        datetime.now(UTC),
        drawn=plot is not None or not machine,
        top=PICTURE_TOP if plot else 0 if machine else TOP,
    )
    connection = connect(picked(Reach, options), os.environ.get("LK_TOKEN", ""))
    draw = _draw_into(plot) if plot is not None else None
    report = asyncio.run(_fetch(connection, question))
    _print(report, as_json=as_json, as_csv=as_csv)
    if draw is not None:
        draw(report)


usage.add_command(import_)


def _refuse_options(context: click.Context) -> None:
    """Refuse options in front of a subcommand, which would be dropped silently."""
    for name in context.params:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"options of {context.invoked_subcommand} stand behind it")


async def _fetch(connection: Connection, question: Question) -> Report:
    async with connection.channel() as channel:
        try:
            return await fetch(channel, question, connection.token)
        except grpc.aio.AioRpcError as error:
            raise Failure(message_of(error, connection.address, connection.tls is not None)) from None


def _print(report: Report, *, as_json: bool, as_csv: bool) -> None:
    if as_json:
        write_json(report, sys.stdout)
    elif as_csv:
        write_csv(report, sys.stdout)
    else:
        # A pipe has no width.
        show(report, Console(highlight=False, width=None if sys.stdout.isatty() else WIDE))


def _draw_into(file: Path) -> Callable[[Report], None]:
    """Return what draws into a file; raises Failure, before any call, if it can't."""
    # Importing matplotlib takes a second; whoever wants no picture does not wait for it.
    try:
        from latchkey.cli.plot import draw  # noqa: PLC0415 (an extra that takes a second)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise Failure("matplotlib is missing; install it: pip install 'latchkey-client[cli,plot]'") from None

    def drawn(report: Report) -> None:
        try:
            draw(report, file)
        except OSError as error:
            raise Failure(f"{file}: {error.strerror or error}") from None
        click.echo(f"Drawn into {file}.", err=True)

    return drawn
