"""`make bench`: run the cases, print the table, write results.json."""

import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import grpc
import uvloop

from latchkey_server.storage.embedded.data_directory import temporary_data_dir
from tests.bench import machine, profiling, report
from tests.bench.cases import CASES as VERIFY_CASES
from tests.bench.cases import Bench, Options
from tests.bench.compare import Metrics
from tests.bench.hostile import HOSTILE, hostile
from tests.bench.load import channels
from tests.bench.propagation import PATHS, propagation
from tests.bench.reports import REPORTS, reports
from tests.bench.seed import Seed, import_keys, seed
from tests.bench.servers import BenchError, bootstrap, floor, latchkey, postgres
from tests.bench.usage import INGEST

HOT_KEYS = 1_000
COLD_KEYS = 100_000
CASES = VERIFY_CASES | INGEST
NEED_COLD = {"verify_cold", "cached_key"}
ALL = (*CASES, *REPORTS, *PATHS, *HOSTILE)


@dataclass(slots=True)
class Outcomes:
    """What ran and what did not."""

    results: dict[str, Metrics] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def put(self, case: str, outcome: Metrics | Exception) -> None:
        """Keep what became of a case, and say so."""
        if isinstance(outcome, Exception):
            self.failed[case] = _line(outcome)
            click.echo(f"{case}: failed to run: {self.failed[case]}", err=True)
        else:
            self.results[case] = outcome
            click.echo(f"{case}: done", err=True)


@click.command()
@click.option("--pairs", default=9, show_default=True, help="Pairs of slices, floor and case, for each case.")
@click.option("--seconds", default=1.5, show_default=True, help="Seconds of a slice.")
@click.option("--changes", default=1_000, show_default=True, help="Changes whose spreading is timed.")
@click.option("--only", multiple=True, type=click.Choice(ALL), help="Run this case only; may be given again.")
@click.option("--check", is_flag=True, help="Exit with 1 when a bar is missed.")
@click.option("--results", type=click.Path(path_type=Path), help="Write here; else whole runs write results.json.")
@click.option("--profile", type=click.Choice(list(CASES)), help="Run this case's server under cProfile instead.")
def main(
    pairs: int,
    seconds: float,
    changes: int,
    only: tuple[str, ...],
    check: bool,
    results: Path | None,
    profile: str | None,
) -> None:
    """Measure what verifications cost, beside an empty handler on the same stack."""
    # Ended from outside, as by Ctrl-C: what was started is stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if profile:
        uvloop.run(profile_case(profile, Options(pairs, seconds, changes)))
        return
    outcomes = uvloop.run(run(Options(pairs, seconds, changes), only or ALL))
    about = machine.describe()
    report.show(outcomes.results, outcomes.failed, about)
    if results or not only:
        report.write(results or report.RESULTS, outcomes.results, about)
    sys.exit(1 if outcomes.failed or (check and report.missed(outcomes.results)) else 0)


async def run(options: Options, names: Sequence[str]) -> Outcomes:
    """Run the named cases one after another; a case that fails to run does not keep the others from it."""
    outcomes = Outcomes()
    async with bench(options, cold=COLD_KEYS if NEED_COLD & set(names) else 0) as world:
        for name in (name for name in CASES if name in names):
            try:
                outcomes.put(name, await CASES[name](world))
            except (BenchError, grpc.aio.AioRpcError) as error:
                outcomes.put(name, error)
        await _run_reports(world, [name for name in REPORTS if name in names], outcomes)
        await _run_propagation(world, [path for path in PATHS if path in names], outcomes)
        await _run_hostile(world, [name for name in HOSTILE if name in names], outcomes)
    return outcomes


async def profile_case(name: str, options: Options) -> None:
    """Run a case with its server under cProfile and print where the server's own time went."""
    with temporary_data_dir() as folder:
        file = folder / "profile"
        options = Options(options.pairs, options.seconds, options.changes, profile=file)
        async with bench(options, cold=COLD_KEYS if name in NEED_COLD else 0) as world:
            await CASES[name](world)
        profiling.show(file)


@asynccontextmanager
async def bench(options: Options, cold: int) -> AsyncIterator[Bench]:
    """Start PostgreSQL and the floor, and fill the database."""
    cores = machine.all_cores()
    apart = machine.places(cores, 1)
    async with AsyncExitStack() as stack:
        stack.enter_context(machine.on_cores(apart.load))
        folder = stack.enter_context(temporary_data_dir())
        database = await stack.enter_async_context(postgres(folder))
        async with latchkey(database.dsn, cores, folder / "server.log") as server:
            root = await bootstrap(database.dsn)
            credentials: Seed = await seed(server.address, root)
            hot_keys = await import_keys(server.address, credentials.owner, HOT_KEYS, "hot")
            cold_keys = await import_keys(server.address, credentials.owner, cold, "cold")
        empty = await stack.enter_async_context(floor(apart.server))
        over = await stack.enter_async_context(channels(empty.address))
        yield Bench(options, cores, folder, database, root, credentials, hot_keys, cold_keys, empty, over)


async def _run_propagation(world: Bench, paths: Sequence[str], outcomes: Outcomes) -> None:
    if not paths:
        return
    try:
        measured = outcomes.results.get("verify_cached") or await _quick_throughput(world)
        for path, outcome in (await propagation(world, paths, measured["throughput"])).items():
            outcomes.put(path, outcome)
    except (BenchError, grpc.aio.AioRpcError) as error:
        for path in paths:
            outcomes.put(path, error)


async def _run_reports(world: Bench, names: Sequence[str], outcomes: Outcomes) -> None:
    """Run all reports if any is asked for: what takes the time is filling the database."""
    if not names:
        return
    try:
        for name, outcome in (await reports(world)).items():
            if name in names:
                outcomes.put(name, outcome)
    except (BenchError, grpc.aio.AioRpcError) as error:
        for name in names:
            outcomes.put(name, error)


async def _run_hostile(world: Bench, names: Sequence[str], outcomes: Outcomes) -> None:
    try:
        for name, outcome in (await hostile(world, names)).items() if names else ():
            outcomes.put(name, outcome)
    except (BenchError, grpc.aio.AioRpcError) as error:
        for name in names:
            outcomes.put(name, error)


async def _quick_throughput(world: Bench) -> Metrics:
    """Return the throughput of Verify from one slice, for a run without the case that measures it."""
    async with world.server() as server, channels(server.address) as over:
        load = world.unary(over)
        await load.run(world.options.seconds)
        sample = await load.run(world.options.seconds)
        return {"throughput": sample.verifications / sample.seconds}


def _line(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error)


if __name__ == "__main__":
    main()
