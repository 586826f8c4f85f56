"""The embedded PostgreSQL with real processes: starts, restarts, kills, and what the operator reads."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
import uvloop

import latchkey_server
from latchkey_server.storage.embedded.binaries import find_bindir
from latchkey_server.storage.embedded.server import (
    EmbeddedError,
    EmbeddedServer,
    embedded_postgres,
    temporary_data_dir,
)

FAST = {"fsync": "off"}
PATIENCE = 20.0
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to hand PostgreSQL to another user")

SERVE = """
import asyncio, sys
from pathlib import Path
from latchkey_server.storage.embedded.server import embedded_postgres

async def main():
    async with embedded_postgres(Path(sys.argv[1]), settings={"fsync": "off"}) as server:
        print(server.pid, flush=True)
        await server.wait_closed()

asyncio.run(main())
"""

# The first server loads every module, since the ordinary user may be unable to read root's Python.
SERVE_AS_ORDINARY_USER = """
import asyncio, os, sys
from pathlib import Path
from latchkey_server.storage.embedded.server import embedded_postgres

async def serve(folder):
    async with embedded_postgres(Path(folder), settings={"fsync": "off"}) as server:
        return Path(f"/proc/{server.pid}").stat().st_uid

asyncio.run(serve(sys.argv[1]))
sys.executable, uid = sys.argv[3], int(sys.argv[4])
os.setgroups([]), os.setgid(uid), os.setuid(uid)
print(asyncio.run(serve(sys.argv[2])))
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with temporary_data_dir() as folder:
        yield folder


async def test_a_cold_start_makes_the_database_and_a_restart_keeps_its_data(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as server:
        assert server.fresh
        await _execute(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    async with embedded_postgres(data_dir) as server:
        assert not server.fresh
        assert await _fetch(server, "SELECT answer FROM kept") == 42
        assert await _fetch(server, "SELECT current_setting('fsync')") == "on"
        assert await _fetch(server, "SHOW server_encoding") == "UTF8"
    assert _processes_in(data_dir) == []


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_it_works_on_either_event_loop(data_dir: Path, run: Callable[..., object]) -> None:
    async def ask() -> object:
        async with embedded_postgres(data_dir, settings=FAST) as server:
            return await _fetch(server, "SELECT 1")

    assert run(ask()) == 1


async def test_settings_override_ours(data_dir: Path) -> None:
    async with embedded_postgres(data_dir, settings={**FAST, "max_connections": "17"}) as server:
        assert await _fetch(server, "SHOW max_connections") == "17"


async def test_only_the_socket_s_private_folder_is_listened_on(data_dir: Path) -> None:
    async with embedded_postgres(data_dir, settings=FAST) as server:
        assert await _fetch(server, "SHOW listen_addresses") == ""
        assert os.stat(server.socket_dir).st_mode & 0o777 == 0o700
        assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700


async def test_a_killed_parent_leaves_no_postgres_and_the_next_start_works(data_dir: Path) -> None:
    with _serving_process(data_dir) as parent:
        assert _processes_in(data_dir) != []
        parent.kill()
        _until(lambda: _processes_in(data_dir) == [])
    async with embedded_postgres(data_dir, settings=FAST) as server:
        assert not server.fresh
        assert await _fetch(server, "SELECT 1") == 1


async def test_a_start_waits_for_a_killed_parent_s_server_that_is_still_stopping(data_dir: Path) -> None:
    with _serving_process(data_dir) as parent:
        os.kill(parent.postmaster, signal.SIGSTOP)
        try:
            parent.kill()
            start = asyncio.create_task(_start_and_ask(data_dir))
            # Longer than the patience with a holder that lives.
            await asyncio.wait({start}, timeout=1.5)
            assert not start.done()
        finally:
            os.kill(parent.postmaster, signal.SIGCONT)
        assert await start == 1


async def test_killing_parent_and_postmaster_together_still_lets_the_next_start_work(data_dir: Path) -> None:
    with _serving_process(data_dir) as parent:
        os.kill(parent.postmaster, signal.SIGKILL)
        parent.kill()
        assert await _start_and_ask(data_dir) == 1


async def test_a_second_process_is_told_who_holds_the_data_directory(data_dir: Path) -> None:
    with _serving_process(data_dir) as parent:
        told = await _refusal(data_dir)
        assert told.startswith(f"The data directory {data_dir} is in use by process {parent.pid}: stop that one")


async def test_a_second_start_in_one_process_is_refused_and_the_first_goes_on(data_dir: Path) -> None:
    async with embedded_postgres(data_dir, settings=FAST) as server:
        with pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}"):
            await _start_and_ask(data_dir)
        assert await _fetch(server, "SELECT 1") == 1


async def test_an_unexpected_end_of_postgres_is_told(data_dir: Path) -> None:
    async with embedded_postgres(data_dir, settings=FAST) as server:
        os.kill(server.pid, signal.SIGQUIT)
        await asyncio.wait_for(server.wait_closed(), PATIENCE)


async def test_a_kill_in_the_middle_of_initdb_is_made_good(data_dir: Path) -> None:
    with _process(SERVE, data_dir) as parent:
        _until((data_dir / "postgres.new" / "PG_VERSION").exists)
        parent.kill()
        parent.wait()
    assert not (data_dir / "postgres").exists()
    async with embedded_postgres(data_dir, settings=FAST) as server:
        assert server.fresh
    assert not (data_dir / "postgres.new").exists()


async def test_a_pid_file_left_by_a_power_cut_is_no_obstacle(data_dir: Path) -> None:
    await _start_and_ask(data_dir)
    stale = [str(os.getpid()), str(data_dir / "postgres"), "1", "5432", "", "", "", "ready"]
    (data_dir / "postgres" / "postmaster.pid").write_text("\n".join(stale))
    assert await _start_and_ask(data_dir) == 1


@pytest.mark.parametrize("name", ["deep" * 40, "comma, 'quote' %41 & space"])
async def test_a_path_that_no_socket_can_have_gets_a_private_folder_instead(data_dir: Path, name: str) -> None:
    async with embedded_postgres(data_dir / name, settings=FAST) as server:
        assert server.socket_dir.is_relative_to("/tmp")
        assert await _fetch(server, "SELECT 1") == 1
        assert os.stat(server.socket_dir).st_mode & 0o777 == 0o700
    assert not server.socket_dir.exists()


async def test_a_killed_parent_s_private_folder_is_removed_by_the_next_start(data_dir: Path) -> None:
    deep = data_dir / ("deep" * 40)
    with _serving_process(deep) as parent:
        private = (deep / "socket").resolve()
        parent.kill()
        await _start_and_ask(deep)
    assert not private.exists()


async def test_a_path_with_odd_characters_works(data_dir: Path) -> None:
    assert await _start_and_ask(data_dir / "it's 100% &=?#é") == 1


@as_root
async def test_root_is_told_which_folder_the_other_user_cannot_reach(data_dir: Path) -> None:
    closed = data_dir / "closed"
    closed.mkdir(mode=0o700)
    told = await _refusal(closed / "below" / "data")
    assert f"cannot reach {closed}: " in told
    assert "LATCHKEY_DATA_DIR" in told
    assert "\n" not in told
    assert os.stat(closed).st_mode & 0o777 == 0o700


@as_root
async def test_root_hands_postgres_to_an_unprivileged_user(data_dir: Path) -> None:
    async with embedded_postgres(data_dir / "new", settings=FAST) as server:
        assert os.stat(f"/proc/{server.pid}").st_uid != 0
        assert (data_dir / "new").stat().st_uid == 0


@as_root
def test_an_ordinary_user_runs_it_without_root(data_dir: Path) -> None:
    nobody = 65534
    python = next(filter(_anyone_can_run, [sys.executable, shutil.which("python3", path=os.defpath)]), None)
    if python is None or not _anyone_can_run(latchkey_server.__file__):
        pytest.skip("an ordinary user cannot reach Python or this checkout")
    own = data_dir / "own"
    own.mkdir(mode=0o700)
    os.chown(own, nobody, nobody)
    with _process(SERVE_AS_ORDINARY_USER, data_dir / "root", own, python, nobody) as child:
        assert child.read_number() == nobody


async def test_a_folder_that_cannot_be_made_is_named(data_dir: Path) -> None:
    (data_dir / "file").write_text("")
    told = await _refusal(data_dir / "file" / "below")
    assert f"cannot hold the database (File exists: {data_dir / 'file'}): " in told
    assert "LATCHKEY_DATA_DIR" in told


async def test_files_that_are_no_database_are_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres" / "diary.txt").write_text("dear")
    with pytest.raises(EmbeddedError, match="holds files but no database"):
        await _start_and_ask(data_dir)
    assert (data_dir / "postgres" / "diary.txt").read_text() == "dear"


async def test_a_cluster_of_another_version_is_refused(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir()
    (data_dir / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedError, match=r"was made by PostgreSQL 9 but .* has version \d+: set PG_BINDIR"):
        await _start_and_ask(data_dir)


async def test_what_postgres_said_before_it_failed_is_quoted(data_dir: Path) -> None:
    with pytest.raises(EmbeddedError, match=r'failed: .*unrecognized configuration parameter "no_such_thing"'):
        async with embedded_postgres(data_dir, settings={**FAST, "no_such_thing": "1"}):
            pass


def test_no_programs_at_all_is_told_with_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"latchkey-server\[embedded\]', set LATCHKEY_DATABASE_URL .* PG_BINDIR"):
        find_bindir({}, package="no_such_package", system_root=tmp_path)


async def test_a_wrong_pg_bindir_is_not_passed_over(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PG_BINDIR", str(tmp_path))
    with pytest.raises(EmbeddedError, match=f"PG_BINDIR is {tmp_path}, which lacks"):
        await _start_and_ask(data_dir)


def test_the_newest_system_version_is_found_by_number(tmp_path: Path) -> None:
    for version in ("9", "15", "18"):
        bindir = tmp_path / version / "bin"
        bindir.mkdir(parents=True)
        for program in ("postgres", "initdb"):
            (bindir / program).touch(mode=0o755)
    assert find_bindir({}, package="no_such_package", system_root=tmp_path) == tmp_path / "18" / "bin"


class _Process(subprocess.Popen[str]):
    postmaster = 0

    def read_number(self) -> int:
        assert self.stdout is not None
        return int(self.stdout.readline())


@contextmanager
def _process(code: str, *arguments: object) -> Iterator[_Process]:
    """A Python process running `code`, killed at the latest when the block ends."""
    root = str(Path(latchkey_server.__file__).parent.parent)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = _Process(command, stdout=subprocess.PIPE, text=True, env=environ)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def _serving_process(data_dir: Path) -> Iterator[_Process]:
    """A process with the embedded server running on `data_dir`; `postmaster` is the server's pid."""
    with _process(SERVE, data_dir) as process:
        process.postmaster = process.read_number()
        yield process


async def _start_and_ask(data_dir: Path) -> object:
    async with embedded_postgres(data_dir, settings=FAST) as server:
        return await _fetch(server, "SELECT 1")


async def _refusal(data_dir: Path) -> str:
    with pytest.raises(EmbeddedError) as refused:
        await _start_and_ask(data_dir)
    return str(refused.value)


async def _fetch(server: EmbeddedServer, query: str) -> object:
    connection = await asyncpg.connect(server.dsn())
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def _execute(server: EmbeddedServer, statement: str) -> None:
    await _fetch(server, statement)


def _processes_in(data_dir: Path) -> list[int]:
    """The pids whose current folder is below `data_dir`, as is that of every process of its PostgreSQL."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _works_below(entry, data_dir)]


def _works_below(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").readlink().is_relative_to(folder)
    except OSError:
        return False


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


def _anyone_can_run(program: str | None) -> bool:
    if program is None:
        return False
    path = Path(program).resolve()
    return path.stat().st_mode & 0o004 != 0 and all(parent.stat().st_mode & 0o001 for parent in path.parents)
