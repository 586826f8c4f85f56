"""Processes under measurement: PostgreSQL, the floor, and latchkey-server as an operator starts it."""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import grpc
import psutil
from grpc_health.v1 import health_pb2

from latchkey_server.storage.embedded.data_directory import DataDirectory
from latchkey_server.storage.embedded.server import embedded_postgres
from tests.bench.machine import Cores, on_cores
from tests.support.process import COMMAND, environment, run
from tests.support.service import PEPPERS

START_SECONDS = 30.0
STOP_SECONDS = 20.0
OURS = frozenset({"GRPC_ENABLE_FORK_SUPPORT"})
"""What the Makefile sets for the harness alone, so that gRPC is silent about the processes it starts."""


class BenchError(Exception):
    """One line: why a case can't be run."""


@dataclass(frozen=True, slots=True)
class Processes:
    """A process and its descendants."""

    root: psutil.Process

    def all(self) -> list[psutil.Process]:
        """Return those that are alive."""
        return [self.root, *self.root.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Return the user and system time they have used, ended ones included."""
        reaped = self.root.cpu_times()
        return sum(map(_cpu_seconds, self.all())) + reaped.children_user + reaped.children_system

    def resident_bytes(self) -> int:
        """Return the memory they hold."""
        return sum(process.memory_info().rss for process in self.all())


@dataclass(frozen=True, slots=True)
class Postgres:
    """The PostgreSQL that every server of a run shares."""

    dsn: str
    processes: Processes
    log: Path

    @asynccontextmanager
    async def counting(self) -> AsyncIterator["Statements"]:
        """Count the statements that servers send while the context is open, from PostgreSQL's own log of them."""
        await self._log_statements(True)
        counted = Statements(self.log, self.log.stat().st_size)
        try:
            yield counted
        finally:
            counted.count()
            await self._log_statements(False)

    async def _log_statements(self, on: bool) -> None:
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute("ALTER SYSTEM SET log_line_prefix = '%a: '")
            await connection.execute(f"ALTER SYSTEM SET log_statement = '{'all' if on else 'none'}'")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            await connection.close()
        # A session takes up the change before its next statement; the postmaster has to signal it first.
        await asyncio.sleep(0.3)


_RESET = b"SELECT pg_advisory_unlock_all"
"""How what asyncpg sends when a connection goes back to its pool begins."""


@dataclass(slots=True)
class Statements:
    """What servers asked of PostgreSQL while it was counted."""

    _log: Path
    _from: int = 0
    number: int = 0
    round_trips: int = 0
    """Statements and what the driver sends beside them, as when a connection goes back to its pool."""

    def count(self) -> None:
        """Read the log as it is now."""
        with self._log.open("rb") as file:
            file.seek(self._from)
            text = file.read()
        asked = re.findall(rb"^latchkey[^:\n]*: LOG:  (?:execute [^:\n]*|statement): ?(.*)", text, re.MULTILINE)
        self.round_trips = len(asked)
        self.number = sum(not statement.startswith(_RESET) for statement in asked)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers, and the processes it consists of."""

    address: str
    processes: Processes
    workers: int = 1


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[Postgres]:
    """Run a PostgreSQL with a migrated database, where this process runs, until the context is left."""
    async with embedded_postgres(folder) as embedded:
        processes = Processes(psutil.Process(embedded.pid))
        await _command("migrate", embedded.dsn())
        yield Postgres(embedded.dsn(), processes, DataDirectory(folder).log)


async def bootstrap(dsn: str) -> str:
    """Return the secret of the first OWNER."""
    return await _command("bootstrap", dsn)


async def known_settings() -> frozenset[str]:
    """Return the names of the settings that this server knows."""
    shown = await run("config")
    return frozenset(line.partition("=")[0] for line in shown.out.splitlines() if line.startswith("LATCHKEY_"))


async def has_workers() -> bool:
    """Tell whether `latchkey-server serve` takes `--workers`."""
    return "--workers" in (await run("serve", "--help")).out


@asynccontextmanager
async def floor(cores: Cores) -> AsyncIterator[Server]:
    """Run the empty handler on ``cores`` until the context is left."""
    address = free_address()
    async with _process([sys.executable, "-m", "tests.bench.floor", address], {}, cores, None) as process:
        await _until_ready(address, process, None)
        yield Server(address, Processes(psutil.Process(process.pid)))


@asynccontextmanager
async def latchkey(
    dsn: str,
    cores: Cores,
    log: Path,
    settings: Mapping[str, str] = {},
    *,
    workers: int = 1,
    profile: Path | None = None,
) -> AsyncIterator[Server]:
    """Run `latchkey-server serve` on ``cores`` until the context is left; with ``profile`` under cProfile."""
    if workers > 1 and not await has_workers():
        raise BenchError("serve has no --workers yet")
    address = free_address()
    python = [sys.executable, "-m", "cProfile", "-o", str(profile), "-m", "latchkey_server"]
    command = [*(python if profile else [str(COMMAND)]), "serve", *(["--workers", str(workers)] if workers > 1 else [])]
    fixed = {"LATCHKEY_LISTEN": address, "LATCHKEY_DATABASE_URL": dsn, "LATCHKEY_PEPPERS": PEPPERS}
    async with _process(command, {**fixed, "LATCHKEY_STOP_GRACE": "1", **settings}, cores, log) as process:
        await _until_ready(address, process, log)
        yield Server(address, Processes(psutil.Process(process.pid)), workers)


def free_address() -> str:
    """Return an address of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def _cpu_seconds(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


async def _command(name: str, dsn: str) -> str:
    ended = await run(name, LATCHKEY_DATABASE_URL=dsn, LATCHKEY_PEPPERS=PEPPERS)
    if ended.status:
        raise BenchError(f"latchkey-server {name} failed: {ended.err.strip()}")
    return ended.out.strip()


@asynccontextmanager
async def _process(
    command: Sequence[str], settings: Mapping[str, str], cores: Cores, log: Path | None
) -> AsyncIterator[asyncio.subprocess.Process]:
    output = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        with on_cores(cores):
            process = await asyncio.create_subprocess_exec(
                *command,
                env={name: value for name, value in environment(settings).items() if name not in OURS},
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output if log else None,
            )
    finally:
        os.close(output)
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Stop a process, by force and with its descendants if it does not stop by itself."""
    descendants = []
    if process.returncode is None:
        descendants = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    if process.returncode is None:
        process.kill()
        await process.wait()
    for left in descendants:
        with suppress(psutil.NoSuchProcess):
            left.kill()


async def _until_ready(address: str, process: asyncio.subprocess.Process, log: Path | None) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not await _answers(address):
        if process.returncode is not None or time.monotonic() > deadline:
            raise BenchError(f"the server did not start: {_last_line(log)}")
        await asyncio.sleep(0.1)


def _last_line(log: Path | None) -> str:
    lines = log.read_text(encoding="utf-8").splitlines() if log else []
    return lines[-1] if lines else "it said nothing"


async def _answers(address: str) -> bool:
    """Tell whether a server says SERVING, or answers at all where it has no health service, as the floor has none."""
    async with grpc.aio.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNIMPLEMENTED
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
