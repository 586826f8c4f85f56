"""The command line: serve, migrate, bootstrap, maintain, rebuild-usage, config."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, NoReturn

import click
import structlog
import uvloop

from latchkey_server.app import build_workspaces
from latchkey_server.background import Readiness, Upkeep, trouble_of
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.ids import WORKSPACE, format_id
from latchkey_server.observability import configure_logging
from latchkey_server.opening import StartError, Storage, open_storage, open_straight, retention_of, utc_now
from latchkey_server.settings import PREFIX, Settings, SettingsError, describe, load_settings
from latchkey_server.storage.embedded.binaries import EmbeddedError
from latchkey_server.storage.outages import Unreachable
from latchkey_server.storage.schema.migrate import MigrationError, migrate, schema_trouble
from latchkey_server.storage.upkeep.maintenance import UpkeepResult
from latchkey_server.storage.upkeep.rebuild import rebuild_usage
from latchkey_server.storage.usage.partitions import ensure_partitions
from latchkey_server.worker import serve, take_orders
from latchkey_server.workers import serve_with_workers

_LEASE_SECONDS = 70
"""How long a command waits for another server's upkeep: longer than the lease of one that died."""

log = structlog.get_logger("latchkey")


@click.group(help="Latchkey: API keys with environments, as a gRPC service.")
def main() -> None:
    """Run the command line."""


@main.command(name="serve", help="Serve, with an embedded PostgreSQL unless LATCHKEY_DATABASE_URL names one.")
@click.option(
    "--workers", metavar="N", help="Processes that serve on the one port; LATCHKEY_WORKERS, or 1, if not given."
)
def serve_command(workers: str | None) -> None:
    """Run a server until a signal asks it to stop."""
    _run(_serve, {} if workers is None else {"workers": workers})


@main.command(name="worker", hidden=True, help="Serve as one of several workers; only `serve --workers` starts it.")
def worker_command() -> None:
    """Run one worker of a server with several."""
    worker = take_orders()
    _run_with(worker.orders.settings, lambda _: worker.serve(), worker.fail)


@main.command(name="migrate", help="Bring the database's schema up to date.")
def migrate_command() -> None:
    """Run the migrations that are missing."""
    _run(_migrate)


@main.command(name="maintain", help="Do the upkeep that servers do hourly: partitions, retention, packing.")
def maintain_command() -> None:
    """Do all upkeep once."""
    _run(_maintain)


@main.command(
    name="rebuild-usage",
    help="Compute the roll-ups of usage anew from the events and tell every difference; exits with 1 if there is one.",
)
@click.option("--write", is_flag=True, help="Put what was computed in the place of what differs.")
def rebuild_usage_command(write: bool) -> None:
    """Compare the roll-ups with the rows."""
    _run(lambda settings: _rebuild_usage(settings, write=write))


@main.command(help="Make the root workspace of a new database and print its first OWNER's secret, once.")
def bootstrap() -> None:
    """Make the root workspace."""
    _run(_bootstrap)


@main.command(help="Print every setting, secrets masked.")
def config() -> None:
    """Print the settings."""
    settings = _settings()
    for name, value, description in describe(settings):
        click.echo(f"{name}={value}" + (f"    # {description}" if description else ""))


Command = Callable[[Settings], Coroutine[Any, Any, None]]


def _run(command: Command, given: Mapping[str, object] = MappingProxyType({})) -> None:
    settings = _settings(given)
    _run_with(settings, command, _fail_in_json if settings.log_format == "json" else _fail)


def _run_with(settings: Settings, command: Command, fail: Callable[[str], NoReturn]) -> None:
    configure_logging(settings.log_level, settings.log_format == "json")
    try:
        uvloop.run(command(settings))
    except (StartError, EmbeddedError, MigrationError) as error:
        fail(str(error))
    except Unreachable as error:
        fail(f"the database is not reachable: {error.cause}")
    except LatchkeyError as error:
        fail(error.message)


def _settings(given: Mapping[str, object] = MappingProxyType({})) -> Settings:
    try:
        return load_settings(given=given)
    except SettingsError as error:
        # What else they say is not known, but the reader of the line is.
        if os.environ.get(f"{PREFIX}LOG_FORMAT") == "json":
            configure_logging("INFO", json_lines=True)
            _fail_in_json(str(error))
        _fail(str(error))


def _fail(line: str) -> NoReturn:
    click.echo(f"latchkey-server: {line}", err=True)
    sys.exit(1)


def _fail_in_json(line: str) -> NoReturn:
    log.error("failed", reason=line)
    sys.exit(1)


async def _serve(settings: Settings) -> None:
    def welcome(address: str, owner_secret: str | None) -> None:
        json_lines = settings.log_format == "json"
        click.echo(_started(address, owner_secret) if json_lines else _welcome(address, owner_secret, settings))

    if settings.workers == 1:
        await serve(settings, lambda running: welcome(running.address, running.owner_secret))
    else:
        await serve_with_workers(settings, welcome)


def _started(address: str, owner_secret: str | None) -> str:
    """Return the same as a line for a machine: no log line, for those hide secrets."""
    shown = {"owner_secret": owner_secret} if owner_secret else {}
    line = {"address": address, **shown, "event": "started", "level": "info", "timestamp": utc_now().isoformat()}
    return json.dumps(line)


def _welcome(address: str, owner_secret: str | None, settings: Settings) -> str:
    """Return what a newcomer needs next: the credential, if it was just made, and a command that uses it."""
    shown = owner_secret or "$OWNER_SECRET"
    plain = settings.tls_certificate is None
    call = (
        f"-H 'authorization: Bearer {shown}'" if owner_secret else f'-H "authorization: Bearer {shown}"'
    ) + """ -d '{"key": {"name": "hello", "environment": "dev"}}'"""
    method = "latchkey.v1.KeyService/CreateKey"
    grpcurl = f"grpcurl {'-plaintext ' if plain else ''}{call} {address} {method}"
    url = f"{'http' if plain else 'https'}://{address}/{method}"
    buf = f"buf curl --protocol grpc {'--http2-prior-knowledge ' if plain else ''}{call} {url}"
    owner = f"The first OWNER's secret, shown this once; keep it:\n\n    {shown}\n\n" if owner_secret else ""
    return f"\n{owner}Create a key, with grpcurl or with buf:\n\n    {grpcurl}\n\n    {buf}\n"


async def _migrate(settings: Settings) -> None:
    async with open_storage(settings) as storage:
        async with open_straight(storage, settings) as database:
            applied = await migrate(database)
        async with storage.upkeep.connection() as connection:
            await ensure_partitions(connection, utc_now(), settings.usage_accepted)
    for name in applied:
        click.echo(f"applied {name}")
    click.echo("The schema is up to date.")


async def _maintain(settings: Settings) -> None:
    async with _migrated_storage(settings) as storage:
        upkeep = Upkeep(storage.upkeep, retention_of(settings), Readiness(), utc_now)
        done = await _until_done(upkeep)
    for name, number in asdict(done).items():
        click.echo(f"{name.replace('_', ' ')}: {number}")


async def _until_done(upkeep: Upkeep) -> UpkeepResult:
    for _ in range(_LEASE_SECONDS):
        done = await upkeep.maintain()
        if done is not None:
            return done
        await asyncio.sleep(1)
    raise StartError("another server is at it and has not finished; look at its log, or try again later")


async def _rebuild_usage(settings: Settings, *, write: bool) -> None:
    async with _migrated_storage(settings) as storage:
        days, wrong = 0, 0
        async for workspace_id, what, differences in rebuild_usage(storage.upkeep, write=write):
            days += 1
            if differences:
                wrong += 1
                click.echo(f"{format_id(WORKSPACE, workspace_id)} {what}: {differences.summary}")
    click.echo(f"{days} days of workspaces computed anew, {wrong} with differences{' (written)' if write else ''}.")
    if wrong:
        sys.exit(1)


@asynccontextmanager
async def _migrated_storage(settings: Settings) -> AsyncIterator[Storage]:
    """Open a database whose schema this server knows."""
    async with open_storage(settings) as storage:
        async with storage.database.connection() as connection:
            trouble = await schema_trouble(connection)
        if trouble:
            raise StartError(trouble)
        yield storage


async def _bootstrap(settings: Settings) -> None:
    async with open_storage(settings) as storage:
        async with storage.database.connection() as connection:
            trouble = await trouble_of(connection, storage.peppers, utc_now)
        if trouble:
            raise StartError(trouble)
        secret = await build_workspaces(storage, utc_now).bootstrap()
    if secret is None:
        raise StartError("this database has its root workspace already; its first OWNER's secret was shown then")
    click.echo(secret)


if __name__ == "__main__":
    main()
