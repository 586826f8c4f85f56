"""A PostgreSQL of a test's own, to be stopped, stalled and started again."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from latchkey_server.opening import utc_now
from latchkey_server.storage.database import open_database
from latchkey_server.storage.embedded.data_directory import DataDirectory, temporary_data_dir
from latchkey_server.storage.embedded.server import DATABASE, SUPERUSER, EmbeddedServer, embedded_postgres
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


class Failover:
    """A primary and the standby that follows it, and one address that leads to either of them."""

    def __init__(self, address: Path, primary: Path, standby: Path) -> None:
        self._address = address
        self.primary, self.standby = dsn_of(primary), dsn_of(standby)
        self._sockets = {self.primary: primary, self.standby: standby}
        self.lead_to(self.primary)

    @property
    def dsn(self) -> str:
        """The address as an application has it."""
        return dsn_of(self._address)

    def lead_to(self, server: str) -> None:
        """Have new connections reach another server; those that are open stay where they are."""
        new = self._address.with_name("new")
        new.symlink_to(self._sockets[server].resolve())
        new.rename(self._address)

    async def promote(self) -> None:
        """Make the standby a primary once it has everything; the former one goes on, on its own."""
        written = await answer(self.primary, "SELECT pg_current_wal_insert_lsn()::text")
        await until_answered(self.standby, f"SELECT pg_last_wal_replay_lsn() >= '{written}'")
        await answer(self.standby, "SELECT pg_promote()")

    @asynccontextmanager
    async def moving_to(self, server: str) -> AsyncIterator[None]:
        """Have every connection reach another server: those to the one before are ended until the context is left.

        Again and again, for some are only being made.
        """
        before = dsn_of(self._address.resolve())
        self.lead_to(server)

        async def end() -> None:
            while True:
                await end_connections(before)
                await asyncio.sleep(0.02)

        ending = asyncio.create_task(end())
        try:
            yield
        finally:
            ending.cancel()
            with suppress(asyncio.CancelledError):
                await ending


def dsn_of(socket: Path) -> str:
    """Return the address of the PostgreSQL with a socket."""
    return f"postgresql://{SUPERUSER}@/{DATABASE}?host={socket}"


async def end_connections(dsn: str) -> None:
    """End every other connection to a database."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    await answer(dsn, f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {others}")


@asynccontextmanager
async def with_standby() -> AsyncIterator[Failover]:
    """Run a migrated PostgreSQL and a standby that follows it."""
    async with AsyncExitStack() as stack:
        home, primary, standby = (stack.enter_context(temporary_data_dir()) for _ in range(3))
        async with embedded_postgres(primary, settings=UNSYNCED) as server:
            await prepare(server.dsn())
        _copy(DataDirectory(primary).cluster, DataDirectory(standby).cluster)
        server = await stack.enter_async_context(embedded_postgres(primary, settings=UNSYNCED))
        following = UNSYNCED | {"primary_conninfo": f"host={server.socket_dir} user={SUPERUSER}"}
        # What starts it waits until it is promoted, or to the end.
        starting = asyncio.create_task(stack.enter_async_context(embedded_postgres(standby, settings=following)))
        try:
            failover = Failover(home / "address", server.socket_dir, DataDirectory(standby).socket)
            await _until_up(failover.standby)
            yield failover
        finally:
            starting.cancel()
            with suppress(asyncio.CancelledError):
                await starting


def _copy(cluster: Path, copy: Path) -> None:
    shutil.copytree(cluster, copy)
    (copy / "standby.signal").touch()
    owner = cluster.stat()
    for path in (copy, *copy.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)


async def _until_up(dsn: str) -> None:
    async with asyncio.timeout(30):
        while True:
            with suppress(OSError, asyncpg.CannotConnectNowError):
                return await (await asyncpg.connect(dsn)).close()
            await asyncio.sleep(0.01)


async def answer(dsn: str, query: str) -> Any:
    """Return what a query answers."""
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


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
    await until_answered(dsn, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")


async def until_somebody_listens(dsn: str, besides: int = 0) -> int:
    """Wait until a backend of this database listens for notifications, another one than ``besides``, and return it."""
    return int(
        await until_answered(
            dsn,
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%' "
            f"AND pid <> {besides} LIMIT 1",
        )
    )


async def until_answered(dsn: str, query: str) -> Any:
    """Wait until a query answers something, and return it."""
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(30):
            while True:
                if found := await connection.fetchval(query):
                    return found
                await asyncio.sleep(0.01)
    finally:
        await connection.close()
