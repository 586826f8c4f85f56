"""The folder that the embedded PostgreSQL lives in: its paths, its one user, its lock, its socket.

Below it: `postgres/` (the cluster), `postgres.new/` (one being made), `postgres.lock`, `postgres.log`
and `socket/`.
"""

import asyncio
import fcntl
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from latchkey_server.storage.embedded.binaries import EmbeddedError

# Only the name of the socket's file: nothing listens on TCP, so it clashes with no other server.
PORT = 5432
SOCKET_PATH_BYTES = 107
LOG_BYTES = 10 * 1024 * 1024
LEFTOVER_SECONDS = 30.0
# A process that was just killed is still listed as alive for a moment.
DYING_SECONDS = 1.0


class DataDirectory:
    """The paths below one data directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.cluster = self.root / "postgres"
        self.half_made = self.root / "postgres.new"
        self.lock = self.root / "postgres.lock"
        self.log = self.root / "postgres.log"
        self.socket = self.root / "socket"
        self.pid_file = self.cluster / "postmaster.pid"
        self.version_file = self.cluster / "PG_VERSION"


@dataclass(frozen=True, slots=True)
class Account:
    """The user that PostgreSQL runs as."""

    uid: int
    gid: int

    @property
    def name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)


@contextmanager
def temporary_data_dir() -> Iterator[Path]:
    """A new data directory that PostgreSQL can reach even when we are root, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="latchkey-") as folder:
        path = Path(folder)
        path.chmod(_folder_mode())
        yield path


def account_for(cluster: Path) -> Account:
    """Ourselves; as root the cluster's owner, else `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return Account(user.pw_uid, user.pw_gid)
    raise EmbeddedError(
        "Root may not run PostgreSQL and there is neither a user postgres nor nobody: start as another user, "
        "or set LATCHKEY_DATABASE_URL to a server of your own."
    )


def make_folder(folder: Path) -> None:
    """Make `folder` and its missing parents; those that exist keep their modes, whatever these are."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir()
    folder.chmod(_folder_mode())


def make_private_folder(folder: Path, account: Account) -> None:
    """Make `folder` for `account` and nobody else."""
    folder.mkdir(mode=0o700)
    _give(folder, account)


def sync_folder(folder: Path) -> None:
    """Return once the names in `folder` would survive a loss of power."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def open_log(path: Path) -> int:
    """The log, open for appending, emptied first when it has grown too long."""
    log = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.fstat(log).st_size > LOG_BYTES:
        os.ftruncate(log, 0)
    return log


async def take_lock(path: Path) -> int:
    """The open file that holds the lock, our pid written into it, once a killed holder's processes are gone.

    The lock lasts until every process that inherited the file has ended. Raises EmbeddedError if its
    holder lives.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await _lock_or_refuse(lock, path)
    except BaseException:
        os.close(lock)
        raise
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def clear_stale_pid_file(path: Path) -> None:
    """Remove a postmaster.pid whose process is no PostgreSQL any more; only for the lock's holder.

    The lock proves that nothing of an earlier start of ours lives. The pid in the file may be anyone's by
    now, in a container even the one that the new postmaster is about to get.
    """
    if _process_name(_first_number(path)) != "postgres":
        path.unlink(missing_ok=True)


@contextmanager
def socket_folder(near: Path, account: Account) -> Iterator[Path]:
    """A private folder for the socket: `near`, or one in /tmp that `near` links to if its path won't do."""
    _remove_socket_folder(near)
    if _fits_a_socket(near):
        make_private_folder(near, account)
    else:
        short = Path(tempfile.mkdtemp(prefix="latchkey-", dir="/tmp"))
        near.symlink_to(short)
        _give(short, account)
    try:
        yield near.resolve()
    finally:
        _remove_socket_folder(near)


def _folder_mode() -> int:
    # As root another user runs PostgreSQL: it must pass through, and need not list what else lies there.
    return 0o711 if os.geteuid() == 0 else 0o700


def _give(folder: Path, account: Account) -> None:
    if os.geteuid() == 0:
        os.chown(folder, account.uid, account.gid)


async def _lock_or_refuse(lock: int, path: Path) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _first_number(path)
            patience = DYING_SECONDS if _process_name(holder) else LEFTOVER_SECONDS
            if loop.time() - began > patience:
                raise EmbeddedError(
                    f"The data directory {path.parent} is in use by process {holder}: stop that one, "
                    "or set LATCHKEY_DATA_DIR to another folder."
                ) from None
            await asyncio.sleep(0.02)


def _first_number(path: Path) -> int:
    """The pid on the first line of `path`, 0 when there is none (yet)."""
    try:
        return int(path.read_text().split("\n", 1)[0])
    except (ValueError, FileNotFoundError):
        return 0


def _process_name(pid: int) -> str | None:
    """The name of a living process; None for one that is gone or a zombie."""
    try:
        head, _, tail = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return None
    return None if tail.split()[0] == "Z" else head.partition("(")[2]


def _fits_a_socket(folder: Path) -> bool:
    # A comma separates folders, for PostgreSQL and for asyncpg.
    return "," not in str(folder) and len(os.fsencode(folder / f".s.PGSQL.{PORT}")) <= SOCKET_PATH_BYTES


def _remove_socket_folder(near: Path) -> None:
    # Through the link too, for the folder in /tmp of a start that was killed.
    shutil.rmtree(near.resolve(), ignore_errors=True)
    if near.is_symlink():
        near.unlink()
