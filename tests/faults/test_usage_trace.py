"""A real trace as usage through kills of servers and of PostgreSQL: nothing lost, nothing counted twice (spec §5).

TRACE=path takes another file than the excerpt, TEST_SEED repeats a run's choices.
"""

import asyncio
import csv
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain

import asyncpg
import grpc
import pytest
from tests.faults.test_outage import eventually
from tests.integration.keys.test_keys import get, update
from tests.integration.usage.test_rollups import DIMENSIONS, LABELS, SEED, Known, Model, Used, check_one
from tests.integration.usage.test_usage import DUPLICATE, NEW, Event, asking, at, nanos
from tests.scenarios.test_trace import TRACE, independent_sum, told
from tests.support.crashes import Installation, installation
from tests.support.service import Client
from tests.support.upkeep import ACCEPTED, COUNTS, database_of, differences, maintain

from examples.trace import Target, events, read_trace
from latchkey.v1 import admin_service_pb2, api_pb2, key_pb2, usage_pb2, usage_service_pb2
from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.opening import utc_now
from latchkey_server.storage.upkeep.maintenance import Maintenance, Retention

CLIENTS = 8
KEYS = 6
DAYS = 5
"""Days that the trace is strewn over, so that there is something to pack."""

ZONES = ("UTC", "Asia/Kolkata")
GROUPINGS = ((), *((name,) for name in DIMENSIONS), ("ENVIRONMENT", "KEY", "MODEL", "TASK", "MEMBER"))
# CANCELLED is what gRPC says of a call that it has not handed to a worker when that one stops, its parent being gone.
RETRIED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


@dataclass(slots=True)
class Sending:
    """The events of the trace, and what was answered of each."""

    events: Sequence[Event]
    released: int = 1
    """How many may be sent by now: the rest is kept for later faults."""
    over: bool = False
    """Whether nothing is broken any more, so that whoever is done may end."""
    answered: Counter[tuple[int, usage_service_pb2.UsageOutcome.ValueType]] = field(default_factory=Counter)
    retried: Counter[grpc.StatusCode] = field(default_factory=Counter)


class Sender:
    """A client that sends its share in random batches, much of it again and again, until all of it is answered."""

    def __init__(self, number: int, client: Client, sending: Sending) -> None:
        self._pick = random.Random(f"{SEED} sender {number}")
        self._client = client
        self._sending = sending
        every = range(len(sending.events))
        self._owed = {index for index in every if index % CLIENTS == number or self._pick.random() < 0.2}
        self._batch_max = max(40, len(sending.events) // 50)

    async def run(self) -> None:
        """Send until everything is answered and nothing is broken any more."""
        while self._owed or not self._sending.over:
            batch = self._batch()
            # Some calls are given up long before they can be answered.
            seconds = self._pick.choice((0.01, 0.1, 10.0))
            try:
                await self._send(batch, seconds)
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise
                self._sending.retried[error.code()] += 1
            await asyncio.sleep(self._pick.random() * 0.05)

    def _batch(self) -> list[int]:
        released = range(self._sending.released)
        owed = [index for index in self._owed if index < self._sending.released]
        batch = self._pick.sample(owed, min(len(owed), self._pick.randint(1, self._batch_max)))
        batch += self._pick.choices(released, k=self._pick.randint(1, 5))
        batch += self._pick.choices(batch, k=self._pick.randrange(5))
        self._pick.shuffle(batch)
        return batch[:1_000]

    async def _send(self, batch: Sequence[int], seconds: float) -> None:
        request = usage_service_pb2.ReportUsageRequest(events=[self._sending.events[index] for index in batch])
        answer = await self._client.usage.ReportUsage(request, timeout=seconds)
        for index, result in zip(batch, answer.results, strict=True):
            self._sending.answered[index, result.outcome] += 1
        self._owed.difference_update(batch)


async def break_things(running: Installation, sending: Sending) -> None:
    """Release the trace portion by portion, and kill something while each is being sent."""
    pick = random.Random(f"{SEED} faults")
    faults = ["server", "postgres", "backend", "both", "backend"]
    if running.workers():
        faults = ["worker", "postgres", "worker", "server"]
    pick.shuffle(faults)
    for number, fault in enumerate(faults, 1):
        sending.released = len(sending.events) * number // len(faults)
        await asyncio.sleep(pick.random() * 0.3)
        await break_one(running, fault, pick)
    sending.over = True


async def break_one(running: Installation, fault: str, pick: random.Random) -> None:
    if fault == "worker":
        running.kill_worker(pick)
    elif fault == "backend":
        running.kill_backend(pick)
    elif fault == "both":
        await running.kill_postgres()
        await running.kill_server()
        await asyncio.gather(running.start_postgres(), running.start_server())
    elif fault == "postgres":
        await running.kill_postgres()
        await asyncio.sleep(pick.random() * 0.3)
        await running.start_postgres()
    else:
        await running.kill_server()
        await running.start_server()


async def swap_labels(client: Client, keys: Sequence[Known], sending: Sending) -> None:
    """Give the keys each other's labels, over and over."""
    pick = random.Random(f"{SEED} labels")
    while not sending.over:
        key, other = pick.sample(keys, 2)
        for changed, label in ((key, other.environment), (other, key.environment)):
            with suppress(grpc.aio.AioRpcError):
                await update(client, key_pb2.Key(key_id=changed.key_id, environment=label))
        await asyncio.sleep(pick.random() * 0.1)


async def keep_up(dsn: str, sending: Sending) -> None:
    """Pack and reattribute over and over, beside the server's own upkeep."""

    async def always() -> bool:
        return True

    retention = Retention(ACCEPTED, None, None, COUNTS)
    async with database_of(dsn) as database:
        while not sending.over:
            with suppress(DatabaseUnavailable):
                await Maintenance(database, retention, always, utc_now()).run()
            await asyncio.sleep(0.05)


async def make_keys(client: Client) -> list[Known]:
    """Make keys of two apis, with and without identities and members."""
    api = await client.admin.CreateApi(admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="second")))
    keys = []
    for number in range(KEYS):
        key = key_pb2.Key(environment=LABELS[number % len(LABELS)], member=("", "ann")[number % 2])
        if number % 3:
            key.external_id = f"customer {number % 3}"
        if number % 2:
            key.api_id = api.api.api_id
        made = (await client.create_key(key)).key
        keys.append(Known(made.key_id, made.api_id, made.environment, key.external_id, made.member))
    return keys


def strewn(keys: Sequence[Known], ending_at: datetime) -> tuple[list[Event], Model]:
    """Return the trace as events over keys, members, models, tasks and days, and the sums of its file's own numbers."""
    pick, model = random.Random(f"{SEED} trace"), Model(SEED)
    model.keys = list(keys)
    rows, made = read_trace(TRACE), []
    with TRACE.open(newline="") as file:
        numbers = [(int(line[1]), int(line[2])) for line in list(csv.reader(file))[1:]]
    for item, (tokens_in, tokens_out) in zip(events(rows, [Target("", "")], ending_at), numbers, strict=True):
        key, time = pick.choice(keys), item.occurred_time.ToDatetime(tzinfo=UTC)
        time -= timedelta(days=pick.randrange(DAYS), hours=pick.randrange(24))
        item.key_id, item.model, item.task = key.key_id, pick.choice(("", "small")), pick.choice(("", "chat", "sum"))
        item.occurred_time.CopyFrom(at(time))
        if pick.random() < 0.5:
            item.member = pick.choice(("", "bob"))
        member = item.member if item.HasField("member") else key.member
        measures = (150 * tokens_in + 600 * tokens_out, 0, 1, tokens_in, tokens_out, 0)
        model.used.append(Used(key, time, member, item.model, item.task, measures))
        made.append(item)
    return made, model


async def listed(client: Client) -> tuple[int, int, int, int]:
    """Return the sums of ListUsageEvents over all of its pages."""
    request = usage_service_pb2.ListUsageEventsRequest(start_time=asking().start_time, page_size=1_000)
    sums = [0] * 4
    while True:
        page = await client.usage.ListUsageEvents(request)
        for item in (record.event for record in page.events):
            numbers = (item.requests, item.input_tokens, item.output_tokens, nanos(item.cost))
            sums = [have + more for have, more in zip(sums, numbers, strict=True)]
        if not page.next_page_token:
            return sums[0], sums[1], sums[2], sums[3]
        request.page_token = page.next_page_token


async def counted_rows(dsn: str) -> tuple[int, int]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetchval("SELECT count(*) FROM usage_event")
        return rows, await connection.fetchval("SELECT count(*) FROM usage_event_id")
    finally:
        await connection.close()


async def send_through_faults(running: Installation, owner: Client, keys: Sequence[Known], sending: Sending) -> None:
    """Send the trace from all clients while things break, labels change and upkeep goes on."""
    senders = [Sender(number, await running.client(owner.secret), sending) for number in range(CLIENTS)]
    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        for run in chain(
            [break_things(running, sending)],
            [swap_labels(owner, keys, sending), keep_up(running.dsn, sending)],
            (sender.run() for sender in senders),
        ):
            group.create_task(run)


async def check_everything(running: Installation, owner: Client, model: Model) -> None:
    """Compare the roll-ups with the rows, and every report with the file."""
    assert await differences(running.dsn) == {}, f"TEST_SEED={SEED}"
    for grouping in GROUPINGS:
        for zone in ZONES:
            request = asking(*grouping)
            request.bucket_width, request.time_zone = usage_pb2.BUCKET_WIDTH_1D, zone
            request.page_size = 10_000
            await check_one(owner, model, request)
    whole = await owner.usage.QueryUsage(asking("ENVIRONMENT"))
    assert told(whole.totals) == independent_sum(TRACE) == await listed(owner)


@pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])
async def test_a_trace_sent_through_kills_is_counted_once_whatever_died(workers: int) -> None:
    print(f"TEST_SEED={SEED}")
    async with installation(LATCHKEY_WORKERS=str(workers)) as running:
        owner = await running.client()
        keys = await make_keys(owner)
        made, model = strewn(keys, datetime.now(UTC) - timedelta(hours=1))
        sending = Sending(made)

        await send_through_faults(running, owner, keys, sending)

        # A worker that was killed last of all may take a connection along.
        await eventually(lambda: get(owner, keys[0].key_id))
        for key in keys:
            key.environment = (await get(owner, key.key_id)).environment
        assert {outcome for _, outcome in sending.answered} <= {NEW, DUPLICATE}
        assert {index for index, _ in sending.answered} == set(range(len(made)))
        assert all(times == 1 for (_, outcome), times in sending.answered.items() if outcome == NEW)
        assert sending.retried[grpc.StatusCode.UNAVAILABLE] > 0
        assert await counted_rows(running.dsn) == (len(made), len(made))
        await check_everything(running, owner, model)
        await maintain(running.dsn)
        await check_everything(running, owner, model)
