"""Reports: how long they take over a month of ten thousand keys, at a million and at ten million events."""

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from latchkey.v1 import key_pb2, key_service_pb2, key_service_pb2_grpc, usage_pb2, usage_service_pb2
from latchkey.v1 import usage_service_pb2_grpc as usage_grpc
from latchkey_server.domain.ids import KEY as KEY_PREFIX
from latchkey_server.domain.ids import parse_id
from latchkey_server.storage.database import open_database
from latchkey_server.storage.usage.packing import over_before, pack_some
from tests.bench.cases import Bench
from tests.bench.compare import Metrics, percentile
from tests.bench.seed import Seed, import_keys, seed
from tests.bench.servers import BenchError, Server

KEYS = 10_000
LABELS = ("prod", "staging", "dev", "test")
DAYS = 30
QUERIES, FEW = 21, 5
"""How often a report is asked for, and how often one by key, which takes seconds."""

RETAGGED = 20
"""One key in so many is given another label."""

SIZES = {"1m": 1_000_000, "10m": 10_000_000}

# The events are made up, summed as ingestion sums them, and not kept: no report reads them.
_GENERATE = """
    INSERT INTO usage_key_quarter
    SELECT $1::uuid, keys.ids[1 + (random() * 9999)::int], date_bin('15 minutes', $3::timestamptz + random() *
        ($4::timestamptz - $3::timestamptz), '2000-01-01 00:00+00'), '',
        (ARRAY['small', 'medium', 'large'])[1 + (random() * 2)::int], '', false, count(*),
        sum(1000 + (random() * 100000)::int), 0, count(*), sum(100 + (random() * 900)::int),
        sum((random() * 300)::int), 0
    FROM (SELECT $2::uuid[] AS ids) AS keys, generate_series(1, $5::int)
    GROUP BY 1, 2, 3, 4, 5, 6, 7
"""
_BY_LABEL = """
    INSERT INTO usage_label_quarter
    SELECT q.workspace_id, q.quarter, k.attributed_environment, k.api_id, q.model, q.task, q.other, sum(q.events),
        sum(q.spend_nanos), sum(q.adjustment_nanos), sum(q.requests), sum(q.input_tokens), sum(q.output_tokens),
        sum(q.cached_tokens)
    FROM usage_key_quarter q JOIN key k ON k.workspace_id = q.workspace_id AND k.key_id = q.key_id
    WHERE q.workspace_id = $1 AND q.quarter >= $2 AND q.quarter < $3
    GROUP BY 1, 2, 3, 4, 5, 6, 7
"""


class Report:
    """A report over the last thirty days."""

    def __init__(self, zone: str, *group_by: "usage_pb2.UsageDimension.ValueType", top: int = 0) -> None:
        # To the next midnight, UTC or Kolkata's, so that the days are whole in either.
        end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        shift = timedelta(hours=5, minutes=30) if zone else timedelta(0)
        self.request = usage_service_pb2.QueryUsageRequest(
            start_time=_at(end - shift - timedelta(days=DAYS)),
            end_time=_at(end - shift),
            bucket_width=usage_pb2.BUCKET_WIDTH_1D,
            time_zone=zone,
            group_by=group_by,
            top=top,
            page_size=10_000,
        )


ENVIRONMENT, KEY = usage_pb2.USAGE_DIMENSION_ENVIRONMENT, usage_pb2.USAGE_DIMENSION_KEY
KOLKATA = "Asia/Kolkata"
REPORTS = (
    "query_env_30d_1m_utc",
    "query_env_30d_10m_utc",
    "query_env_30d_growth",
    "query_env_30d_10m_kolkata",
    "query_env_30d_10m_retagged",
    "query_top_keys_30d_10m_utc",
    "query_top_keys_30d_10m_kolkata",
)


async def reports(bench: Bench) -> dict[str, Metrics]:
    """Fill two workspaces and time each report."""
    outcomes: dict[str, Metrics] = {}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(bench.server())
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
        await _hold_labels(bench)
        for size, events in SIZES.items():
            tenant = await _fill(bench, server, size, events)
            await _settle(bench)
            asked = {
                f"query_env_30d_{size}_utc": Report("", ENVIRONMENT),
                f"query_env_30d_{size}_kolkata": Report(KOLKATA, ENVIRONMENT),
                f"query_top_keys_30d_{size}_utc": Report("", KEY, top=20),
                f"query_top_keys_30d_{size}_kolkata": Report(KOLKATA, KEY, top=20),
            }
            for name, report in asked.items():
                if name in REPORTS:
                    outcomes[name] = await _time(channel, tenant, report, events)
        await _retag(channel, tenant)
        outcomes["query_env_30d_10m_retagged"] = await _time(channel, tenant, Report(KOLKATA, ENVIRONMENT), events)
    growth = outcomes["query_env_30d_10m_utc"]["p50_ms"] / outcomes["query_env_30d_1m_utc"]["p50_ms"]
    return outcomes | {"query_env_30d_growth": {"ratio": growth}}


class Tenant:
    """A workspace, its first OWNER and its keys."""

    def __init__(self, credentials: Seed, key_ids: Sequence[str], workspace_id: UUID) -> None:
        self.owner = credentials.owner
        self.key_ids = key_ids
        self.workspace_id = workspace_id


async def _fill(bench: Bench, server: Server, name: str, events: int) -> Tenant:
    """Make a workspace with keys of four labels and let them use so much, evenly over the last thirty days."""
    credentials = await seed(server.address, bench.root)
    keys = await import_keys(server.address, credentials.owner, KEYS, f"report_{name}", LABELS)
    ids = [parse_id(KEY_PREFIX, key_id) for key_id in keys.key_ids]
    connection = await asyncpg.connect(bench.postgres.dsn)
    try:
        workspace_id: UUID = await connection.fetchval("SELECT workspace_id FROM key WHERE key_id = $1", ids[0])
        await connection.execute("SET synchronous_commit = off; SET work_mem = '256MB'")
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        for day in range(DAYS):
            span = today - timedelta(days=day), today - timedelta(days=day - 1)
            await connection.execute(_GENERATE, workspace_id, ids, *span, events // DAYS)
            # Nobody waits for autovacuum here: without figures the join may take hours.
            await connection.execute("ANALYZE usage_key_quarter, key")
            await connection.execute(_BY_LABEL, workspace_id, *span)
            if day:
                await _pack(bench, workspace_id)
    finally:
        await connection.close()
    return Tenant(credentials, keys.key_ids, workspace_id)


async def _pack(bench: Bench, workspace_id: UUID) -> None:
    async with open_database(bench.postgres.dsn, pool_size=1, timeout=600) as database:
        last: UUID | None = UUID(int=0)
        while last is not None:
            last = await pack_some(database, workspace_id, last, over_before(datetime.now(UTC)))


async def _hold_labels(bench: Bench) -> None:
    """Keep the server from reattributing what is retagged, as if upkeep had not come to it yet."""
    connection = await asyncpg.connect(bench.postgres.dsn)
    await connection.execute(
        "INSERT INTO job_lease VALUES ('reattribute', 'bench', 'infinity') ON CONFLICT (name) DO UPDATE "
        "SET holder = excluded.holder, end_time = excluded.end_time"
    )
    await connection.close()


async def _settle(bench: Bench) -> None:
    """Leave the tables as autovacuum would have."""
    connection = await asyncpg.connect(bench.postgres.dsn)
    await connection.execute("VACUUM ANALYZE", timeout=600)
    await connection.close()


async def _retag(channel: grpc.aio.Channel, tenant: Tenant) -> None:
    stub = key_service_pb2_grpc.KeyServiceStub(channel)
    for key_id in tenant.key_ids[::RETAGGED]:
        changed = key_pb2.Key(key_id=key_id, environment="canary")
        await stub.UpdateKey(key_service_pb2.UpdateKeyRequest(key=changed), metadata=tenant.owner)


async def _time(channel: grpc.aio.Channel, tenant: Tenant, report: Report, events: int) -> Metrics:
    """Return how long a report takes, asked again and again by one caller; the first answer only warms up."""
    stub = usage_grpc.UsageServiceStub(channel)
    seconds: list[float] = []
    for _ in range((QUERIES if not report.request.top else FEW) + 1):
        begun = time.perf_counter()
        answer = await stub.QueryUsage(report.request, metadata=tenant.owner, timeout=60)
        seconds.append(time.perf_counter() - begun)
        # Kolkata's last day ends before UTC's.
        if not 0.98 * events < answer.totals.requests <= events:
            raise BenchError(f"the report tells of {answer.totals.requests} requests, not of {events}")
    ordered = sorted(seconds[1:])
    return {
        "p50_ms": percentile(ordered, 0.5) * 1e3,
        "p99_ms": percentile(ordered, 0.99) * 1e3,
        "rows": len(answer.rows),
        "events": answer.totals.requests,
    }


def _at(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
