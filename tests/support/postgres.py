"""A PostgreSQL of a test's own, to be stopped, stalled and started again."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from latchkey_server.opening import utc_now
from latchkey_server.storage.database import open_database
from latchkey_server.storage.embedded.data_directory import temporary_data_dir
from latchkey_server.storage.embedded.server import EmbeddedServer, embedded_postgres
from latchkey_server.storage.schema.migrate import migrate
from latchkey_server.storage.usage.partitions import ensure_partitions
from tests.support.service import settings_for

UNSYNCED = {"fsync": "off", "full_page_writes": "off"}
"""Settings that may lose data in a crash of the machine, but none in a crash of PostgreSQL."""


@asynccontextmanager
async def own_postgres() -> AsyncIterator[tuple[EmbeddedServer, Path]]:
    """Run a migrated PostgreSQL and give it with its folder, for ``embedded_postgres`` to start it again."""
    with temporary_data_dir() as folder:
        async with embedded_postgres(folder, settings=UNSYNCED) as server:
            await prepare(server.dsn())
            yield server, folder


async def prepare(dsn: str) -> None:
    """Bring a database's schema up to date."""
    async with open_database(dsn, pool_size=1, timeout=30) as database:
        await migrate(database)
        async with database.connection() as connection:
            await ensure_partitions(connection, utc_now(), settings_for(dsn).usage_accepted)


@contextmanager
def stalled(server: EmbeddedServer) -> Iterator[None]:
    """Stop every process of a PostgreSQL where it stands, until the context is left."""
    postmaster = psutil.Process(server.pid)
    # Whatever is started between a look at its children and its own stop would go on, and answer.
    _signal([postmaster], signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while postmaster.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, "the postmaster does not stop"
        time.sleep(0.001)
    _signal(postmaster.children(recursive=True), signal.SIGSTOP)
    try:
        yield
    finally:
        _signal([*postmaster.children(recursive=True), postmaster], signal.SIGCONT)


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@asynccontextmanager
async def locked(dsn: str, statement: str) -> AsyncIterator[None]:
    """Hold what a statement locks until the context is left."""
    blocker = await asyncpg.connect(dsn)
    transaction = blocker.transaction()
    await transaction.start()
    await blocker.execute(statement)
    try:
        yield
        await transaction.rollback()
    finally:
        blocker.terminate()


async def until_somebody_waits(dsn: str) -> None:
    """Wait until a backend waits for what another one has locked."""
    await _until(dsn, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")


async def until_somebody_listens(dsn: str) -> int:
    """Wait until a backend of this database listens for notifications, and return its process."""
    return int(
        await _until(
            dsn, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%' LIMIT 1"
        )
    )


async def _until(dsn: str, query: str) -> Any:
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(30):
            while True:
                if found := await connection.fetchval(query):
                    return found
                await asyncio.sleep(0.01)
    finally:
        await connection.close()
