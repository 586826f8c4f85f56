"""The local PostgreSQL that serves when no LATCHKEY_DATABASE_URL is given: made, started and stopped here."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import asyncpg

from latchkey_server.storage.embedded import launcher as embedded_exec
from latchkey_server.storage.embedded.binaries import EmbeddedError, find_bindir, major_version
from latchkey_server.storage.embedded.data_directory import (
    PORT,
    Account,
    DataDirectory,
    account_for,
    clear_stale_pid_file,
    make_folder,
    make_private_folder,
    open_log,
    socket_folder,
    sync_folder,
    take_lock,
    temporary_data_dir,
)

__all__ = ["EmbeddedError", "EmbeddedServer", "embedded_postgres", "temporary_data_dir"]

DATABASE = "latchkey"
SUPERUSER = "postgres"
START_SECONDS = 60.0
# Fast, then immediate, then for a PostgreSQL that hangs.
STOP = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0))
STATE_LINE = 8
"""The line of postmaster.pid that says `ready`."""
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    # Twice the default: reports read a month of hundreds of retagged keys again and again, until upkeep moves those.
    "shared_buffers": "256MB",
    "min_wal_size": "80MB",
    "max_wal_size": "512MB",
    "huge_pages": "off",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
ELSEWHERE = (
    "set LATCHKEY_DATA_DIR to another folder, start as another user, "
    "or set LATCHKEY_DATABASE_URL to a server of your own."
)


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A PostgreSQL that accepts connections on a unix socket for as long as its context is open."""

    socket_dir: Path
    port: int
    pid: int
    fresh: bool
    """Whether this start made the cluster."""
    _process: asyncio.subprocess.Process = field(repr=False, compare=False)

    def dsn(self, database: str = DATABASE) -> str:
        """The address of `database` for asyncpg."""
        host = quote(str(self.socket_dir), safe="/")
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?host={host}&port={self.port}"

    async def wait_closed(self) -> int:
        """Wait until PostgreSQL has ended, for whatever reason, and return its exit status."""
        return await self._process.wait()


@asynccontextmanager
async def embedded_postgres(data_dir: Path, *, settings: Mapping[str, str] = {}) -> AsyncIterator[EmbeddedServer]:
    """Run PostgreSQL on `data_dir` with an existing database `latchkey`, until the context is left.

    `settings` are PostgreSQL's own and win over ours. The server ends with this process, however that dies,
    and with the thread that entered the context. Raises EmbeddedError if it cannot start.
    """
    async with AsyncExitStack() as stack:
        try:
            server = await _start(DataDirectory(data_dir), settings, stack)
        except OSError as error:
            where = f"{error.strerror}: {error.filename}" if error.filename else str(error)
            raise EmbeddedError(f"{data_dir} cannot hold the database ({where}): {ELSEWHERE}") from error
        yield server


@dataclass(frozen=True, slots=True)
class _Launcher:
    """Starts PostgreSQL's programs as `account`, holding the lock, writing to the log."""

    bindir: Path
    account: Account
    lock: int
    log: int
    log_path: Path
    log_start: int

    async def start(self, data: Path, program: str, *arguments: str) -> asyncio.subprocess.Process:
        # The loop's thread forks, and the context cannot outlive it: the parent-death signal never comes early.
        # The inherited lock says "in use" until the last process of a killed server is gone.
        # A session of its own keeps a terminal's Ctrl-C from stopping PostgreSQL before the service drained.
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", embedded_exec.__file__),
            *(str(os.getpid()), str(self.account.uid), str(self.account.gid), str(data)),
            *(str(self.bindir / program), "-D", str(data), *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            pass_fds=(self.lock,),
            start_new_session=True,
        )

    def failure(self, what: str, status: int | None) -> EmbeddedError:
        """What the operator should read after `what` ended with `status`, None for not in time."""
        lines = self._lines_of_this_start()
        if status == embedded_exec.UNREACHABLE:
            return EmbeddedError(
                f"User {self.account.name}, who runs PostgreSQL because root may not, cannot reach "
                f"{lines[-1]}: keep both the installation and the data outside it, or {ELSEWHERE}"
            )
        causes = [line for line in lines if any(word in line for word in ("FATAL:", "PANIC:", "rror:"))]
        last = (causes or lines or ["it wrote nothing"])[-1]
        return EmbeddedError(f"{what} failed: {last} (the whole log: {self.log_path})")

    def _lines_of_this_start(self) -> list[str]:
        text = self.log_path.read_bytes()[self.log_start :].decode(errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()]


async def _start(home: DataDirectory, settings: Mapping[str, str], stack: AsyncExitStack) -> EmbeddedServer:
    bindir = find_bindir()
    make_folder(home.root)
    lock = await take_lock(home.lock)
    stack.callback(os.close, lock)
    log = open_log(home.log)
    stack.callback(os.close, log)
    account = account_for(home.cluster)
    launcher = _Launcher(bindir, account, lock, log, home.log, os.fstat(log).st_size)
    fresh = await _prepare_cluster(home, launcher, sync=settings.get("fsync") != "off")
    socket_dir = stack.enter_context(socket_folder(home.socket, account))
    process = await launcher.start(home.cluster, "postgres", *_options(socket_dir, settings))
    stack.push_async_callback(_stop, process)
    await _until_ready(process, home.pid_file, launcher)
    server = EmbeddedServer(socket_dir, PORT, process.pid, fresh, process)
    await _ensure_database(server)
    return server


async def _prepare_cluster(home: DataDirectory, launcher: _Launcher, *, sync: bool) -> bool:
    """Whether a cluster had to be made; an existing one is checked."""
    if not home.version_file.exists():
        await _make_cluster(home, launcher, sync=sync)
        return True
    await _check_version(home, launcher.bindir)
    clear_stale_pid_file(home.pid_file)
    return False


async def _make_cluster(home: DataDirectory, launcher: _Launcher, *, sync: bool) -> None:
    """Made under another name and renamed once complete: a kill leaves nothing that looks complete."""
    if home.cluster.is_dir() and any(home.cluster.iterdir()):
        raise EmbeddedError(f"{home.cluster} holds files but no database: move it away, or {ELSEWHERE}")
    if home.half_made.exists():
        shutil.rmtree(home.half_made)
    make_private_folder(home.half_made, launcher.account)
    arguments = ["-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--locale=C.UTF-8"]
    process = await launcher.start(home.half_made, "initdb", *arguments, *([] if sync else ["--no-sync"]))
    try:
        status = await process.wait()
    finally:
        await _stop(process)
    if status != 0:
        raise launcher.failure("Making the database (initdb)", status)
    home.half_made.rename(home.cluster)
    sync_folder(home.root)


async def _check_version(home: DataDirectory, bindir: Path) -> None:
    made_by = home.version_file.read_text().strip()
    programs = await major_version(bindir)
    if made_by != programs:
        raise EmbeddedError(
            f"{home.cluster} was made by PostgreSQL {made_by} but {bindir} has version {programs}: "
            f"set PG_BINDIR to a PostgreSQL {made_by}, or set LATCHKEY_DATA_DIR to another folder."
        )


def _options(socket_dir: Path, settings: Mapping[str, str]) -> list[str]:
    ours = {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": str(socket_dir),
        "unix_socket_permissions": "0700",
    }
    return [f"--{name}={value}" for name, value in {**SETTINGS, **settings, **ours}.items()]


async def _until_ready(process: asyncio.subprocess.Process, pid_file: Path, launcher: _Launcher) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_SECONDS
    while not _says_ready(pid_file, process.pid):
        if process.returncode is not None or loop.time() > deadline:
            raise launcher.failure("Starting PostgreSQL", process.returncode)
        await asyncio.sleep(0.01)


def _says_ready(pid_file: Path, pid: int) -> bool:
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= STATE_LINE and lines[0] == str(pid) and lines[STATE_LINE - 1].strip() == "ready"


async def _ensure_database(server: EmbeddedServer) -> None:
    # At every start, not only a fresh one: a kill may have come between initdb and here.
    try:
        connection = await asyncpg.connect(server.dsn(SUPERUSER))
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()
    except asyncpg.PostgresError as error:
        raise EmbeddedError(f"PostgreSQL runs, but not the database {DATABASE}: {error}; {ELSEWHERE}") from error


async def _stop(process: asyncio.subprocess.Process) -> None:
    for number, seconds in STOP:
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(number)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), seconds)
