"""Usage: how fast it is recorded beside a raw COPY of the same rows, and how fast it is reported."""

import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from uuid import UUID

import asyncpg
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from latchkey.v1 import usage_pb2, usage_service_pb2
from latchkey_server.domain.ids import KEY, parse_id
from latchkey_server.domain.usage.event import UsageEvent, UsageType, content_hash, id_hash
from tests.bench.cases import Bench
from tests.bench.compare import Metrics, Side, percentile, quartiles
from tests.bench.load import USAGE, Channels, Sample, Unary, channels
from tests.bench.servers import BenchError, Server

MODELS = ("small", "medium", "large")
SLICE_EVENTS, SINGLE_EVENTS = 24_000, 4_000
"""Events of a slice, in batches and one by one."""

_numbers = itertools.count()

EVENT_COLUMNS = [
    "workspace_id",
    "occurred_time",
    "id_hash",
    "key_id",
    "type",
    "source",
    "event_id",
    "member",
    "model",
    "task",
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cost_nanos",
    "operation_id",
    "metadata",
    "record_time",
]
IDENTITY_COLUMNS = ("workspace_id", "id_hash", "content_hash", "occurred_time")


@dataclass(slots=True)
class Slices:
    """What reporters did, slice by slice, beside something else."""

    bench: Bench
    server: Server
    theirs: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    postgres_cpu: list[float] = field(default_factory=list)

    async def run(self, beside: Callable[[], Awaitable[float]], over: Channels, reporters: int, size: int) -> None:
        """Run one thing and the other in turn; the first time only warms up."""
        events = max(reporters, SLICE_EVENTS // size) * size if size > 1 else SINGLE_EVENTS
        for pair in range(self.bench.options.pairs + 1):
            floor = await beside()
            requests = [_batch(self.bench, size) for _ in range(events // size)]
            before = self.server.processes.cpu_seconds(), self.bench.postgres.processes.cpu_seconds()
            sample = await _report(self.bench, over, reporters, size, requests)
            after = self.server.processes.cpu_seconds(), self.bench.postgres.processes.cpu_seconds()
            if pair:
                self.theirs.append(floor)
                self.ours.append(events / sample.seconds)
                self.latencies += sample.latencies
                self.cpu.append((after[0] - before[0]) / events)
                self.postgres_cpu.append((after[1] - before[1]) / events)

    def metrics(self, beside: str) -> Metrics:
        """Return the ratio of the pairs, the medians of the slices and the percentiles over all calls."""
        low, middle, high = quartiles([our / their for our, their in zip(self.ours, self.theirs, strict=True)])
        ordered = sorted(self.latencies)
        return {
            "ratio": middle,
            "ratio_q1": low,
            "ratio_q3": high,
            "events_per_s": statistics.median(self.ours),
            beside: statistics.median(self.theirs),
            "cpu_us": statistics.median(self.cpu) * 1e6,
            "pg_cpu_us": statistics.median(self.postgres_cpu) * 1e6,
            "p50_ms": percentile(ordered, 0.5) * 1e3,
            "p99_ms": percentile(ordered, 0.99) * 1e3,
        }


def ingest(reporters: int, size: int) -> Callable[[Bench], Awaitable[Metrics]]:
    """Return the case of so many concurrent reporters of batches of ``size`` events, beside a raw COPY."""

    async def case(bench: Bench) -> Metrics:
        async with bench.server() as server, channels(server.address) as over:
            slices = Slices(bench, server)
            await slices.run(lambda: raw_copy(bench, SLICE_EVENTS), over, reporters, size)
        return slices.metrics("copy_events_per_s")

    return case


async def ingest_single(bench: Bench) -> Metrics:
    """64 concurrent callers of one event each, beside the empty handler's calls a second."""
    floor: Side = bench.floor_side()

    async def empty() -> float:
        sample = await floor.load.run(bench.options.seconds)
        return sample.verifications / sample.seconds

    async with bench.server() as server, channels(server.address) as over:
        slices = Slices(bench, server)
        await slices.run(empty, over, 64, 1)
    return slices.metrics("empty_calls_per_s")


async def _report(bench: Bench, over: Channels, reporters: int, size: int, requests: Sequence[bytes]) -> Sample:
    """Report batches of events that were never seen before."""
    load = Unary(
        over,
        "ReportUsage",
        iter(requests),
        bench.seed.verifier,
        service=USAGE,
        check=_check_new(size),
        in_flight=reporters,
    )
    return await load.run(float("inf"))


def _batch(bench: Bench, size: int) -> bytes:
    return usage_service_pb2.ReportUsageRequest(events=[_event(bench) for _ in range(size)]).SerializeToString()


def _event(bench: Bench) -> usage_pb2.UsageEvent:
    """Return an event of one of a thousand keys, some time in the last minute."""
    number = next(_numbers)
    occurred = Timestamp()
    occurred.FromNanoseconds(time.time_ns() - number * 7_919_000_003 % 60_000_000_000)
    return usage_pb2.UsageEvent(
        source="bench",
        event_id=f"event-{number}",
        key_id=bench.hot.key_ids[number * 37 % len(bench.hot.key_ids)],
        type=usage_pb2.USAGE_TYPE_CONSUME,
        model=MODELS[number % len(MODELS)],
        input_tokens=100 + number % 900,
        output_tokens=number % 300,
        cost=Money(currency_code="USD", nanos=1_000 + number % 100_000),
        occurred_time=occurred,
    )


def _check_new(size: int) -> Callable[[bytes], None]:
    def check(raw: bytes) -> None:
        results = usage_service_pb2.ReportUsageResponse.FromString(raw).results
        if len(results) != size or any(r.outcome != usage_service_pb2.USAGE_OUTCOME_NEW for r in results):
            raise BenchError("not every event was new")

    return check


async def raw_copy(bench: Bench, events: int) -> float:
    """Return the events a second that COPY writes into the event and identity tables, in one transaction."""
    rows = [_row(bench) for _ in range(events)]
    connection = await asyncpg.connect(bench.postgres.dsn)
    try:
        begun = time.perf_counter()
        async with connection.transaction():
            await connection.copy_records_to_table(
                "usage_event_id",
                records=[(row[0], row[2], content, row[1]) for row, content in rows],
                columns=IDENTITY_COLUMNS,
            )
            await connection.copy_records_to_table(
                "usage_event", records=[row for row, _ in rows], columns=EVENT_COLUMNS
            )
        return events / (time.perf_counter() - begun)
    finally:
        await connection.close()


def _row(bench: Bench) -> tuple[tuple[object, ...], bytes]:
    event = _event(bench)
    occurred = event.occurred_time.ToDatetime(tzinfo=UTC)
    key_id, cost = parse_id(KEY, event.key_id), event.cost.nanos
    identity = id_hash(event.source, event.event_id)
    row = (
        _OF_COPY, occurred, identity, key_id, 1, event.source, event.event_id, "", event.model, "", 1,
        event.input_tokens, event.output_tokens, 0, cost, "", None, occurred,
    )  # fmt: skip
    same = UsageEvent(event.source, event.event_id, key_id, UsageType.CONSUME, occurred, model=event.model, cost=cost)
    return row, content_hash(same)


_OF_COPY = UUID(int=0xC0)
"""The workspace of the rows that are only copied: no report ever sums them."""


INGEST: dict[str, Callable[[Bench], Awaitable[Metrics]]] = {
    "ingest_single": ingest_single,
    "ingest_1x1": ingest(1, 1),
    "ingest_1x100": ingest(1, 100),
    "ingest_1x1000": ingest(1, 1_000),
    "ingest_8x1": ingest(8, 1),
    "ingest_8x100": ingest(8, 100),
    "ingest_batch_1000": ingest(8, 1_000),
    "ingest_64x100": ingest(64, 100),
    "ingest_64x1000": ingest(64, 1_000),
}
