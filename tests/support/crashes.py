"""A server process and its PostgreSQL, killed as by a fault and started again on the same data and address."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import grpc
import psutil

from latchkey_server.app import build_workspaces
from latchkey_server.opening import open_storage, utc_now
from latchkey_server.storage.embedded.data_directory import temporary_data_dir
from latchkey_server.storage.embedded.server import EmbeddedServer, embedded_postgres
from tests.support.postgres import UNSYNCED, prepare
from tests.support.process import DEADLINE, Serving, drained, server_process
from tests.support.service import PEPPERS, Bearer, Client, settings_for

# A channel of its own, which reconnects soon after a server is back.
OWN_CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class Installation:
    """A server process on a PostgreSQL of its own, each of which may be killed and started by itself."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self._folder = folder
        self._settings = settings
        self._postgres: EmbeddedServer | None = None
        self._serving: Serving | None = None
        self._database, self._server = AsyncExitStack(), AsyncExitStack()
        self._channels = AsyncExitStack()
        self.dsn = self.address = self.secret = ""

    @property
    def postgres(self) -> EmbeddedServer:
        """The PostgreSQL that runs."""
        assert self._postgres is not None
        return self._postgres

    @property
    def serving(self) -> Serving:
        """The server that runs."""
        assert self._serving is not None
        return self._serving

    async def begin(self) -> None:
        """Start both for the first time."""
        await self.start_postgres()
        self.dsn = self.postgres.dsn()
        await prepare(self.dsn)
        async with open_storage(settings_for(self.dsn)) as storage:
            self.secret = await build_workspaces(storage, utc_now).bootstrap() or ""
        await self.start_server()
        self.address = self.serving.address

    async def end(self) -> None:
        """End both."""
        await self._channels.aclose()
        await self._server.aclose()
        await self._database.aclose()

    async def start_postgres(self) -> None:
        """Start PostgreSQL on the folder, be it for the first time or after a kill."""
        running = embedded_postgres(self._folder, settings=UNSYNCED)
        self._postgres = await self._database.enter_async_context(running)

    async def kill_postgres(self) -> None:
        """Kill every process of PostgreSQL."""
        postmaster = psutil.Process(self.postgres.pid)
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        await self.postgres.wait_closed()
        await asyncio.to_thread(psutil.wait_procs, processes[1:], DEADLINE)
        await self._database.aclose()

    def kill_backend(self, pick: random.Random) -> None:
        """Kill one process of PostgreSQL, upon which it ends all others and recovers by itself."""
        children = psutil.Process(self.postgres.pid).children()
        # None are there while it still recovers from the last one.
        if children:
            with suppress(psutil.NoSuchProcess):
                pick.choice(children).kill()

    async def start_server(self) -> None:
        """Start the server, at the address where it listened before if it did."""
        listen = {"LATCHKEY_LISTEN": self.address or "127.0.0.1:0"}
        common = {"LATCHKEY_DATABASE_URL": self.dsn, "LATCHKEY_PEPPERS": PEPPERS, "LATCHKEY_STOP_GRACE": "0.1"}
        self._serving = await self._server.enter_async_context(server_process(**{**common, **listen, **self._settings}))
        await self._server.enter_async_context(drained(self._serving))

    async def kill_server(self) -> None:
        """Kill the server; its workers, if it has any, end with it."""
        process = self.serving.process
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        await process.wait()
        await asyncio.to_thread(psutil.wait_procs, workers, DEADLINE)
        await self._server.aclose()

    def workers(self) -> list[psutil.Process]:
        """Return the processes that serve for the server, none if it does so itself."""
        children = psutil.Process(self.serving.process.pid).children()
        return [child for child in children if child.cmdline()[-1:] == ["worker"]]

    def kill_worker(self, pick: random.Random) -> None:
        """Kill one worker, which the server replaces."""
        with suppress(psutil.NoSuchProcess):
            pick.choice(self.workers()).kill()

    async def client(self, secret: str = "") -> Client:
        """Return a client with a connection of its own, the root OWNER's unless another secret is given."""
        sent = secret or self.secret
        channel = grpc.aio.insecure_channel(self.address, OWN_CHANNEL, interceptors=[Bearer(sent)])
        return Client(await self._channels.enter_async_context(channel), sent)


@asynccontextmanager
async def installation(**settings: str) -> AsyncIterator[Installation]:
    """Run an installation until the context is left."""
    with temporary_data_dir() as folder:
        running = Installation(folder, settings)
        try:
            await running.begin()
            yield running
        finally:
            await running.end()
