"""The cases that are compared with the floor, and the memory of a cached key."""

import itertools
import math
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from latchkey.v1 import verify_service_pb2 as pb
from tests.bench import h2load
from tests.bench.compare import Metrics, Pairs, Side
from tests.bench.load import CHANNELS, Channels, Frames, Load, Unary, batches, channels, check_batch, check_one
from tests.bench.machine import Cores, places
from tests.bench.seed import Keys, Seed
from tests.bench.servers import BenchError, Postgres, Server, floor, known_settings, latchkey

CACHE = {"LATCHKEY_CACHE_KEYS": "200000", "LATCHKEY_CACHE_BYTES": str(2**30)}
"""Settings under which nothing is evicted; passed as far as the server knows them."""

BATCH_MAX = 1_000
WARM_UP_MAX = 60.0
"""Seconds within which every kind of question has been asked once."""

PROCESSES = 8
"""Servers that take turns at what is compared to a percent."""


@dataclass(frozen=True, slots=True)
class Options:
    """How long and how much."""

    pairs: int = 9
    seconds: float = 1.5
    changes: int = 1_000
    profile: Path | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """What every case of a run stands on."""

    options: Options
    cores: Cores
    folder: Path
    postgres: Postgres
    root: str
    """The secret of the root OWNER."""
    seed: Seed
    hot: Keys
    """A few keys, asked for again and again."""
    cold: Keys
    """Many keys, each asked for once by a case."""
    floor: Server
    floor_channels: Channels

    def floor_side(self) -> Side:
        """Return the empty handler, asked the same as Verify."""
        return Side(self.unary(self.floor_channels, lambda _raw: None), self.floor.processes)

    def unary(self, over: Channels, check: Callable[[bytes], None] = check_one) -> Unary:
        """Return Verify of the hot keys in turn."""
        return Unary(over, "Verify", itertools.cycle(self.hot.requests()), self.seed.verifier, check=check)

    @asynccontextmanager
    async def server(self, settings: Mapping[str, str] = {}, workers: int = 1) -> AsyncIterator[Server]:
        """Run a fresh server, apart from load and PostgreSQL where there are cores enough."""
        cores = places(self.cores, workers).server
        known = await known_settings()
        understood = {name: value for name, value in settings.items() if name in known}
        log, profile = self.folder / "server.log", self.options.profile
        async with latchkey(self.postgres.dsn, cores, log, understood, workers=workers, profile=profile) as server:
            yield server

    async def compare(self, server: Server, load: Load, beside: Postgres | None = None) -> Metrics:
        """Return what a load costs the server, beside the floor."""
        side, taken = Side(load, server.processes, beside.processes if beside else None), Pairs()
        await taken.take(self.floor_side(), side, pairs=self.options.pairs, seconds=self.options.seconds)
        return taken.metrics()

    @asynccontextmanager
    async def fresh_floor(self) -> AsyncIterator["Bench"]:
        """Lend this bench with another process as its floor."""
        async with floor(places(self.cores, 1).server) as empty, channels(empty.address) as over:
            yield replace(self, floor=empty, floor_channels=over)


async def empty_unary(bench: Bench) -> Metrics:
    """Compare the floor with itself: the ratio's distance from 1 is the noise of this run."""
    metrics = await bench.compare(bench.floor, bench.floor_side().load)
    return metrics | await _h2load(bench, bench.floor)


async def verify_cached(bench: Bench) -> Metrics:
    """Verify of 1,000 keys, again and again, on one worker.

    In several processes, and beside as many floors: which of two has the better luck with the processor's caches lasts
    for as long as they do, and is worth more than what this case is about.
    """
    taken, pairs = Pairs(), math.ceil(bench.options.pairs / 2)
    for _ in range(PROCESSES):
        async with bench.fresh_floor() as beside, beside.server() as server, channels(server.address) as over:
            case = Side(beside.unary(over), server.processes)
            await taken.take(beside.floor_side(), case, pairs=pairs, seconds=bench.options.seconds)
            measured = await _h2load(bench, server)
    return taken.metrics() | measured


async def verify_cached_mixed(bench: Bench) -> Metrics:
    """Verify of the same keys by three callers who each ask four questions, in turns with one caller and one question.

    Every kind of them was asked once before: what is compared is answers that are ready, over twelve times as many.
    ``over_cached`` is by how much of the floor's CPU a verification costs more than in `verify_cached`, asked of the
    same processes in the same seconds: the median over the pairs.
    """
    cached, mixed, pairs = Pairs(), Pairs(), math.ceil(bench.options.pairs / 2)
    seconds = bench.options.seconds
    for _ in range(PROCESSES):
        async with bench.fresh_floor() as beside, beside.server() as server, channels(server.address) as over:
            empty, one = beside.floor_side(), Side(beside.unary(over), server.processes)
            questions, callers = _questions(beside.hot), bench.seed.verifiers
            for caller in callers:
                await Unary(over, "Verify", iter(questions), caller, check=check_one).run(WARM_UP_MAX)
            requests = itertools.cycle(questions)
            many = Side(Unary(over, "Verify", requests, *callers, check=check_one), server.processes)
            for number in range(pairs):
                await cached.take(empty, one, pairs=1, seconds=seconds, warm=bool(number))
                await mixed.take(empty, many, pairs=1, seconds=seconds, warm=bool(number))
    more = [over - plain for over, plain in zip(mixed.ratios, cached.ratios, strict=True)]
    return mixed.metrics() | {
        "cached_cpu_ratio": cached.metrics()["cpu_ratio"],
        "over_cached": statistics.median(more),
    }


async def verify_cached_2_workers(bench: Bench) -> Metrics:
    """The same on two workers; the CPU is the sum of theirs and of their parent's."""
    async with bench.server(workers=2) as server, channels(server.address, 4 * CHANNELS) as over:
        return await bench.compare(server, bench.unary(over))


async def verify_cold(bench: Bench) -> Metrics:
    """Verify of keys that the server has never seen, each once, by 64 callers.

    ``queries_per_verification`` counts every statement that the server had PostgreSQL execute in a slice of its own,
    from PostgreSQL's log; ``round_trips_per_verification`` adds what the driver sends beside them.
    """
    options = bench.options
    requests = iter(bench.cold.requests())
    # Warm-up, pairs, and the counted slice share the keys.
    most = len(bench.cold.secrets) // (options.pairs + 2)
    async with bench.server(CACHE) as server, channels(server.address) as over:
        load = Unary(over, "Verify", requests, bench.seed.verifier, check=check_one, calls_max=most)
        metrics = await bench.compare(server, load, bench.postgres)
        async with bench.postgres.counting() as counted:
            sample = await load.run(options.seconds)
        return metrics | {
            "queries_per_verification": counted.number / sample.verifications,
            "round_trips_per_verification": counted.round_trips / sample.verifications,
        }


async def batch_100(bench: Bench) -> Metrics:
    """BatchVerify of 100 hot keys at a time."""
    requests = itertools.cycle(batches(_messages(bench.hot), 100))
    async with bench.server() as server, channels(server.address) as over:
        load = Unary(
            over, "BatchVerify", requests, bench.seed.verifier, verifications=100, check=check_batch(100), in_flight=16
        )
        return await bench.compare(server, load)


def stream(size: int, workers: int = 1) -> Callable[[Bench], Awaitable[Metrics]]:
    """Return the case of VerifyStream with frames of ``size`` hot keys, 64 frames in flight."""

    async def case(bench: Bench) -> Metrics:
        async with bench.server(workers=workers) as server, channels(server.address, workers**2 * CHANNELS) as over:
            load = Frames(over, _messages(bench.hot), size, bench.seed.verifier)
            return await bench.compare(server, load)

    return case


async def cached_key(bench: Bench) -> Metrics:
    """What the server's memory grows by when it is asked for distinct keys, 10 scopes and a small metadata each.

    They are asked for in dry runs, so that nothing else than the cache remembers them. ``queries_when_asked_again``
    tells how many statements it takes to ask for 10,000 of them again: the background's few, or they were not kept.
    ``bytes_hot`` is what they take once each was asked for again: then its answer is kept with it.
    """
    if not CACHE.keys() & await known_settings():
        raise BenchError("the server has no key cache yet (it knows no setting LATCHKEY_CACHE_KEYS)")
    async with bench.server(CACHE) as server, channels(server.address, 1) as over:
        await _ask(over, bench, bench.hot, times=5)
        before = server.processes.resident_bytes()
        await _ask(over, bench, bench.cold)
        after = server.processes.resident_bytes()
        async with bench.postgres.counting() as counted:
            await _ask(over, bench, bench.cold.part(0, 10_000))
        await _ask(over, bench, bench.cold, times=2)
        hot = server.processes.resident_bytes()
    keys = len(bench.cold.secrets)
    return {
        "bytes": (after - before) / keys,
        "bytes_hot": (hot - before) / keys,
        "keys": keys,
        "queries_when_asked_again": counted.number,
    }


CASES: dict[str, Callable[[Bench], Awaitable[Metrics]]] = {
    "empty_unary": empty_unary,
    "verify_cached": verify_cached,
    "verify_cached_mixed": verify_cached_mixed,
    "verify_cached_2_workers": verify_cached_2_workers,
    "verify_cold": verify_cold,
    "batch_100": batch_100,
    "stream_1": stream(1),
    "stream_8": stream(8),
    "stream_32": stream(32),
    "stream_32_2_workers": stream(32, workers=2),
    "stream_128": stream(128),
    "cached_key": cached_key,
}


async def _ask(over: Channels, bench: Bench, keys: Keys, times: int = 1) -> None:
    requests = [pb.VerifyRequest(key=secret, dry_run=True) for secret in keys.secrets]
    raw = itertools.chain.from_iterable(itertools.repeat(batches(requests, BATCH_MAX), times))
    load = Unary(over, "BatchVerify", raw, bench.seed.verifier, check=check_batch(BATCH_MAX), in_flight=1)
    await load.run(float("inf"))


def _messages(keys: Keys) -> Sequence[pb.VerifyRequest]:
    return [pb.VerifyRequest(key=secret) for secret in keys.secrets]


def _questions(keys: Keys) -> list[bytes]:
    """Return requests that ask of each key one question after another."""
    shapes = (
        pb.VerifyRequest(),
        pb.VerifyRequest(environments=["prod", "prodüct"]),
        pb.VerifyRequest(cost=1_000, model="gpt-5-mini", tags=["checkout", "eu-west"]),
        pb.VerifyRequest(client_ip="203.0.113.7", environments=["prod"], omit_metadata=True),
    )
    asked: list[bytes] = []
    for secret, shape in itertools.product(keys.secrets, shapes):
        request = pb.VerifyRequest(key=secret)
        request.MergeFrom(shape)
        asked.append(request.SerializeToString())
    return asked


async def _h2load(bench: Bench, server: Server) -> Metrics:
    found = await h2load.throughput(server.address, bench.hot.requests()[0], bench.seed.verifier, bench.options.seconds)
    return {} if found is None else {"h2load_throughput": found}
