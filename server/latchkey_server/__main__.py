"""The command line: serve, migrate, bootstrap, config."""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import click
import structlog
import uvloop

from latchkey_server.app import (
    Running,
    StartError,
    build_workspaces,
    open_storage,
    running_server,
    utc_now,
)
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.observability import configure_logging
from latchkey_server.settings import Settings, SettingsError, describe, load_settings
from latchkey_server.storage.migrate import migrate
from latchkey_server.storage.partitions import ensure_partitions
from latchkey_server.storage.postgres_binaries import EmbeddedError
from latchkey_server.upkeep import trouble_of

log = structlog.get_logger("latchkey")


@click.group(help="Latchkey: API keys with environments, as a gRPC service.")
def main() -> None:
    """Run the command line."""


@main.command(help="Serve, with an embedded PostgreSQL unless LATCHKEY_DATABASE_URL names one.")
def serve() -> None:
    """Run a server until SIGTERM or SIGINT."""
    _run(_serve)


@main.command(name="migrate", help="Bring the database's schema up to date.")
def migrate_command() -> None:
    """Run the migrations that are missing."""
    _run(_migrate)


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


def _run(command: Callable[[Settings], Coroutine[Any, Any, None]]) -> None:
    settings = _settings()
    configure_logging(settings.log_level, settings.log_format == "json")
    try:
        uvloop.run(command(settings))
    except (StartError, EmbeddedError) as error:
        _fail(str(error))
    except LatchkeyError as error:
        _fail(error.message)


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        _fail(str(error))
        raise


def _fail(line: str) -> None:
    click.echo(f"latchkey-server: {line}", err=True)
    sys.exit(1)


async def _serve(settings: Settings) -> None:
    async with running_server(settings) as running:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.stop)
        click.echo(_welcome(running, settings))
        await running.stopped.wait()
        log.info("stopping")
        failed = not running.asked_to_stop
    if failed:
        raise StartError("the embedded PostgreSQL ended by itself; see postgres.log in the data directory")


def _welcome(running: Running, settings: Settings) -> str:
    """Return what a newcomer needs next: the credential, if it was just made, and a command that uses it."""
    shown = running.owner_secret or "$OWNER_SECRET"
    plain = settings.tls_certificate is None
    call = (
        f"-H 'authorization: Bearer {shown}'" if running.owner_secret else f'-H "authorization: Bearer {shown}"'
    ) + """ -d '{"key": {"name": "hello", "environment": "dev"}}'"""
    method = "latchkey.v1.KeyService/CreateKey"
    grpcurl = f"grpcurl {'-plaintext ' if plain else ''}{call} {running.address} {method}"
    url = f"{'http' if plain else 'https'}://{running.address}/{method}"
    buf = f"buf curl --protocol grpc {'--http2-prior-knowledge ' if plain else ''}{call} {url}"
    owner = f"The first OWNER's secret, shown this once; keep it:\n\n    {shown}\n\n" if running.owner_secret else ""
    return f"\n{owner}Create a key, with grpcurl or with buf:\n\n    {grpcurl}\n\n    {buf}\n"


async def _migrate(settings: Settings) -> None:
    async with open_storage(settings) as storage, storage.database.connection() as connection:
        applied = await migrate(connection)
        await ensure_partitions(connection, utc_now(), settings.usage_accepted)
    for name in applied:
        click.echo(f"applied {name}")
    click.echo("The schema is up to date.")


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
