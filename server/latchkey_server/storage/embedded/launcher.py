"""Becomes one of PostgreSQL's programs: drops root, ties its life to its parent's, then execs.

A process of its own, started by file name with `python -I -S`, since code between fork and exec in the
server (preexec_fn) is not safe beside threads. It is loaded while still root, so that Python itself may lie
where the unprivileged user cannot reach.

    launcher.py PARENT_PID UID GID DATA_FOLDER PROGRAM [ARGUMENT…]
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

UNREACHABLE = 126
"""Exit status when the user cannot reach a path; its first unreachable folder is the last line printed."""

PR_SET_PDEATHSIG = 1


def main(parent: int, uid: int, gid: int, data: Path, command: list[str]) -> None:
    """Never returns: this process becomes `command`, or ends with UNREACHABLE or because `parent` is gone."""
    # Loaded before the privileges are gone: nothing of Python is read from disk after that.
    libc = ctypes.CDLL(None, use_errno=True)
    _drop_root(uid, gid)
    _die_with(parent, libc)
    for path in (Path(command[0]), data):
        if blocked := first_unreachable(path):
            print(blocked)
            raise SystemExit(UNREACHABLE)
    # initdb refuses a current folder that it cannot read; the environment may hold secrets and PG* surprises.
    os.chdir("/")
    os.umask(0o077)
    os.execve(command[0], command, {"LC_ALL": "C", "PATH": os.defpath})  # noqa: S606 (no shell, on purpose)


def first_unreachable(path: Path) -> Path | None:
    """The outermost part of `path` that this user cannot enter (or, for a program, run)."""
    outermost_first = (*reversed(path.parents), path)
    return next((part for part in outermost_first if not os.access(part, os.X_OK)), None)


def _drop_root(uid: int, gid: int) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def tie_to_parent(number: signal.Signals, libc: ctypes.CDLL) -> None:
    """Have this process sent a signal once the thread that started it is gone, however it went."""
    if libc.prctl(PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def _die_with(parent: int, libc: ctypes.CDLL) -> None:
    # SIGINT is PostgreSQL's fast shutdown: it ends every session, writes a checkpoint, and removes its pid
    # file and shared memory. Tried on freshly written data with another client inside a transaction:
    # SIGQUIT gains half a second here and loses it to recovery at the next start; SIGTERM waits for that
    # client for ever; SIGKILL leaves the shared memory behind.
    # A shell's background job ignores SIGINT: it would be lost until PostgreSQL handles it itself.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Only after the change of user, which clears it.
    tie_to_parent(signal.SIGINT, libc)
    # A parent that died before the line above sends no signal any more.
    if os.getppid() != parent:
        raise SystemExit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
