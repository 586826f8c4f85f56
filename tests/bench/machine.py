"""The machine: which cores serve and which ask, and what it is."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import grpc

Cores = frozenset[int]


class Places(NamedTuple):
    """Who runs where."""

    server: Cores
    load: Cores


def places(cores: Cores, workers: int) -> Places:
    """Return one core a worker and the rest for load and PostgreSQL; all cores for both where there are too few."""
    ordered = sorted(cores)
    if len(ordered) <= workers:
        return Places(cores, cores)
    return Places(frozenset(ordered[:workers]), frozenset(ordered[workers:]))


def all_cores() -> Cores:
    """Return the cores that this process may run on."""
    return frozenset(os.sched_getaffinity(0))


@contextmanager
def on_cores(cores: Cores) -> Iterator[None]:
    """Run this thread, and whatever it starts, on ``cores`` until the context is left."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe() -> dict[str, str | int]:
    """Return what a reader has to know of this machine to judge the numbers."""
    return {
        "cpu": _cpu_model(),
        "cores": len(all_cores()),
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
