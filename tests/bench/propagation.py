"""How long after a change's reply it is still not seen elsewhere: another worker, another server, a watching client."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import psutil
from google.protobuf.field_mask_pb2 import FieldMask

from latchkey.v1 import key_pb2, key_service_pb2, key_service_pb2_grpc
from latchkey.v1 import verify_service_pb2 as pb
from latchkey.v1 import verify_service_pb2_grpc as stubs
from tests.bench.cases import Bench
from tests.bench.compare import Metrics, percentile
from tests.bench.load import CALL_SECONDS, channels
from tests.bench.machine import on_cores
from tests.bench.pace import Plan, UpkeepResult, paced
from tests.bench.seed import Keys, Metadata, import_keys
from tests.bench.servers import BenchError, Server, has_workers, latchkey

PATHS = ("propagation_worker", "propagation_server", "propagation_watch")
POLL_SECONDS = 0.001
NONCE_SECONDS = 0.5
SEEN_SECONDS = 10.0
RUN_SECONDS = 150.0
"""After this long no further change is made: too slow a spreading must not make a run endless."""
CONNECTIONS_MAX = 32

Outcome = Metrics | BenchError


class Observer(Protocol):
    """Somewhere that a change must reach."""

    async def prepare(self, secret: str, key_id: str) -> None:
        """Have the key known and valid here."""
        ...

    async def refused(self, secret: str, key_id: str) -> float:
        """Return when it was first refused here."""
        ...


@dataclass(slots=True)
class Prober:
    """Asks Verify over one connection until the answer is no."""

    channel: grpc.aio.Channel
    metadata: Metadata

    async def prepare(self, secret: str, key_id: str) -> None:
        await self._until(True, secret)

    async def refused(self, secret: str, key_id: str) -> float:
        await self._until(False, secret)
        return time.perf_counter()

    async def _until(self, valid: bool, secret: str) -> None:
        stub, request = stubs.VerifyServiceStub(self.channel), pb.VerifyRequest(key=secret)
        while True:
            answer = await stub.Verify(request, metadata=self.metadata, timeout=CALL_SECONDS)
            if answer.verification.valid is valid:
                return
            await asyncio.sleep(POLL_SECONDS)


@dataclass(slots=True)
class Watcher:
    """A client's watch: told of changes, it asks nothing."""

    _echoed: asyncio.Event = field(default_factory=asyncio.Event)
    _told: dict[str, "asyncio.Future[float]"] = field(default_factory=dict)

    async def prepare(self, secret: str, key_id: str) -> None:
        self._told[key_id] = asyncio.get_running_loop().create_future()

    async def refused(self, secret: str, key_id: str) -> float:
        return await self._told[key_id]

    @asynccontextmanager
    async def watching(self, channel: grpc.aio.Channel, metadata: Metadata) -> AsyncIterator[None]:
        """Watch until the context is left; raises BenchError where watching is not served."""
        call: Any = stubs.VerifyServiceStub(channel).WatchKeys(metadata=metadata)
        tasks = [asyncio.create_task(self._listen(call)), asyncio.create_task(_confirm(call))]
        try:
            await asyncio.wait(
                [tasks[0], echoed := asyncio.create_task(self._echoed.wait())],
                timeout=SEEN_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            echoed.cancel()
            if not self._echoed.is_set():
                raise await _why(call, tasks[0])
            yield
        finally:
            call.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, call: Any) -> None:
        async for event in call:
            if event.HasField("echo"):
                self._echoed.set()
            elif event.change.kind == pb.WATCH_CHANGE_KIND_KEY_CHANGED:
                self._tell(event.change.target_id)
            elif event.change.kind == pb.WATCH_CHANGE_KIND_RESET:
                for key_id in self._told:
                    self._tell(key_id)

    def _tell(self, key_id: str) -> None:
        told = self._told.get(key_id)
        if told is not None and not told.done():
            told.set_result(time.perf_counter())


async def propagation(bench: Bench, wanted: Sequence[str], throughput: float) -> Mapping[str, Outcome]:
    """Return the delays by path, with half of ``throughput`` verifications a second going on beside."""
    outcomes: dict[str, Outcome] = {}
    workers = 2 if await has_workers() else 1
    with on_cores(bench.cores):
        async with AsyncExitStack() as stack:
            log = bench.folder / "server.log"
            ours, theirs = [
                await stack.enter_async_context(latchkey(bench.postgres.dsn, bench.cores, log, workers=number))
                for number in (workers, 1)
            ]
            keys = await import_keys(ours.address, bench.seed.owner, bench.options.changes, "change")
            mutate, observers = await _observers(bench, ours, theirs, wanted, outcomes, stack)
            if observers:
                outcomes |= await _under_load(bench, keys, mutate, observers, (ours, theirs), throughput / 2)
    return outcomes


async def _observers(
    bench: Bench,
    ours: Server,
    theirs: Server,
    wanted: Sequence[str],
    outcomes: dict[str, Outcome],
    stack: AsyncExitStack,
) -> tuple[grpc.aio.Channel, dict[str, Observer]]:
    """Return where to change keys, and who looks; those that can't look yet are told in ``outcomes``."""
    verifier = bench.seed.verifier
    observers: dict[str, Observer] = {}
    by_worker = await _connections(ours, stack)
    (elsewhere,) = await stack.enter_async_context(channels(theirs.address, 1))
    if "propagation_worker" in wanted and ours.workers == 1:
        outcomes["propagation_worker"] = BenchError("serve has no --workers yet")
    elif "propagation_worker" in wanted:
        observers["propagation_worker"] = Prober(by_worker[1], verifier)
    if "propagation_server" in wanted:
        observers["propagation_server"] = Prober(elsewhere, verifier)
    if "propagation_watch" in wanted:
        watcher = Watcher()
        try:
            await stack.enter_async_context(watcher.watching(elsewhere, verifier))
            observers["propagation_watch"] = watcher
        except BenchError as error:
            outcomes["propagation_watch"] = error
    return by_worker[0], observers


async def _connections(server: Server, stack: AsyncExitStack) -> list[grpc.aio.Channel]:
    """Return a connection to each worker, told apart by which process holds the other end."""
    found: dict[int, grpc.aio.Channel] = {}
    known = set(_holders(server))
    for _ in range(CONNECTIONS_MAX):
        (channel,) = await stack.enter_async_context(channels(server.address, 1))
        holders = _holders(server)
        for port in holders.keys() - known:
            found.setdefault(holders[port], channel)
        known |= holders.keys()
        if len(found) == server.workers:
            return list(found.values())
    raise BenchError(f"{CONNECTIONS_MAX} connections reached {len(found)} of {server.workers} workers")


def _holders(server: Server) -> dict[int, int]:
    """Return which process holds the server's end of each connection, by the client's port."""
    port = int(server.address.rpartition(":")[2])
    return {
        connection.raddr.port: process.pid
        for process in server.processes.all()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port
    }


async def _under_load(
    bench: Bench,
    keys: Keys,
    mutate: grpc.aio.Channel,
    observers: Mapping[str, Observer],
    servers: Sequence[Server],
    rate: float,
) -> dict[str, Outcome]:
    done: list[UpkeepResult] = []
    plan = Plan(
        addresses=[server.address for server in servers],
        secrets=list(bench.hot.secrets),
        credential=[list(pair) for pair in bench.seed.verifier],
        rate=rate,
    )
    async with paced(plan, done):
        # The load connects and the caches fill.
        await asyncio.sleep(1)
        delays = await _changes(keys, key_service_pb2_grpc.KeyServiceStub(mutate), bench.seed.owner, observers)
    beside = {"load_per_second": done[0]["answered"] / done[0]["seconds"], "load_failed": done[0]["failed"]}
    return {path: _metrics(found) | beside for path, found in delays.items()}


async def _changes(
    keys: Keys,
    stub: key_service_pb2_grpc.KeyServiceStub,
    owner: Metadata,
    observers: Mapping[str, Observer],
) -> dict[str, list[float]]:
    """Disable the keys one after another and return how long after the reply each was refused, by path."""
    delays: dict[str, list[float]] = {path: [] for path in observers}
    end = time.perf_counter() + RUN_SECONDS
    for secret, key_id in zip(keys.secrets, keys.key_ids, strict=True):
        if time.perf_counter() > end:
            break
        await asyncio.gather(*(observer.prepare(secret, key_id) for observer in observers.values()))
        looking = [asyncio.create_task(observer.refused(secret, key_id)) for observer in observers.values()]
        key = key_pb2.Key(key_id=key_id, enabled=False)
        request = key_service_pb2.UpdateKeyRequest(key=key, update_mask=FieldMask(paths=["enabled"]))
        await stub.UpdateKey(request, metadata=owner, timeout=CALL_SECONDS)
        replied = time.perf_counter()
        for path, seen in zip(observers, await _all_seen(looking), strict=True):
            delays[path].append(max(0.0, seen - replied))
    return delays


async def _all_seen(looking: Sequence["asyncio.Task[float]"]) -> list[float]:
    try:
        async with asyncio.timeout(SEEN_SECONDS):
            return await asyncio.gather(*looking)
    except TimeoutError:
        raise BenchError(f"a change was not seen everywhere within {SEEN_SECONDS:g} s") from None


def _metrics(delays: Sequence[float]) -> Metrics:
    ordered = sorted(delays)
    return {
        "p50_ms": percentile(ordered, 0.50) * 1e3,
        "p99_ms": percentile(ordered, 0.99) * 1e3,
        "max_ms": ordered[-1] * 1e3,
        "changes": len(ordered),
    }


async def _confirm(call: Any) -> None:
    for number in itertools.count():
        await call.write(pb.WatchKeysRequest(nonce=number.to_bytes(8, "big")))
        await asyncio.sleep(NONCE_SECONDS)


async def _why(call: Any, listening: "asyncio.Task[None]") -> BenchError:
    if not listening.done():
        return BenchError(f"WatchKeys echoed no nonce within {SEEN_SECONDS:g} s")
    if await call.code() is grpc.StatusCode.UNIMPLEMENTED:
        return BenchError("WatchKeys is not served yet")
    return BenchError(f"WatchKeys ended: {await call.details() or 'without a reason'}")
