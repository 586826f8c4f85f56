"""A victim's cached Verify beside each attack of `tests/hostile`: its p99 over its own p99 without the attack."""

from collections.abc import Sequence

from tests.bench.cases import Bench
from tests.bench.compare import Metrics
from tests.hostile.attacks import ATTACKS
from tests.hostile.measure import Measured, make_world

HOSTILE = tuple(f"hostile_{name}" for name in ATTACKS)
"""The cases; `hostile_nothing` is the noise of this run."""

SECONDS = 4.0
MIB = 1024 * 1024


async def hostile(bench: Bench, names: Sequence[str]) -> dict[str, Metrics]:
    """Return what each of these attacks did to a victim, all of them on one server."""
    async with bench.server() as server:
        world = await make_world(server.processes.root.pid, server.address, bench.root)
        return {name: _metrics(await world.measure(name.removeprefix("hostile_"), SECONDS)) for name in names}


def _metrics(measured: Measured) -> Metrics:
    return {
        "p99_ratio": measured.ratio,
        "p99_ms": measured.during.p99 * 1e3,
        "p99_ms_without": measured.without.p99 * 1e3,
        "failed": float(measured.during.failed),
        "grown_mib": measured.grown / MIB,
    }
