"""Roll-ups always equal the rows, packed or not, reattributed or not, and reports are the sum of the rows (spec §5)."""

import asyncio
import itertools
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from latchkey.v1 import environment_pb2, key_pb2, key_service_pb2, usage_pb2, usage_service_pb2
from latchkey_server.background import Readiness, Upkeep
from latchkey_server.domain.ids import WORKSPACE, parse_id
from latchkey_server.opening import utc_now
from latchkey_server.storage.upkeep.maintenance import Retention
from latchkey_server.storage.usage.packing import pack_some
from tests.integration.keys.test_keys import update
from tests.integration.usage.test_usage import NEW, Event, asking, at, event, key_in, nanos, query, report, usd
from tests.support.service import Client, Service, serving
from tests.support.upkeep import ACCEPTED, COUNTS, database_of, differences, maintain

SEED = int(os.environ.get("TEST_SEED", "0")) or random.SystemRandom().randrange(2**31)
ZONES = ("UTC", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe")
NOW = datetime.now(UTC)
DAYS = 34
LABELS = ("prod", "staging", "dev", "")
DIMENSIONS = ("ENVIRONMENT", "KEY", "MODEL", "MEMBER", "TASK", "IDENTITY", "API")
WIDTHS = {"NONE": None, "15M": 900, "1H": 3600, "1D": "day", "1W": "week", "1MO": "month"}


@dataclass(slots=True)
class Known:
    """A key as the model knows it, with what it used."""

    key_id: str
    api_id: str
    environment: str
    external_id: str
    member: str


@dataclass(frozen=True, slots=True)
class Used:
    """An event as the model knows it."""

    key: Known
    time: datetime
    member: str
    model: str
    task: str
    measures: tuple[int, ...]


class Model:
    """The rows, summed by brute force."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.keys: list[Known] = []
        self.used: list[Used] = []

    def event(self, number: int) -> Event:
        """Make an event of some key at some time and remember it."""
        pick = self.random
        key = pick.choice(self.keys)
        # Half of them close to midnight somewhere, where buckets are cut.
        seconds = pick.randrange(DAYS * 86_400)
        if pick.random() < 0.5:
            seconds = seconds // 21_600 * 21_600 + pick.randrange(1_800)
        time = NOW - timedelta(seconds=seconds, microseconds=pick.randrange(1_000_000))
        item = event(key.key_id, str(number), pick.randrange(1, 10**10), time)
        item.model, item.task = pick.choice(("", "small", "large")), pick.choice(("", "chat"))
        item.output_tokens, item.cached_tokens = pick.randrange(100), pick.randrange(10)
        if pick.random() < 0.3:
            item.member = pick.choice(("ann", "bob", ""))
        member = item.member if item.HasField("member") else key.member
        spend, adjustment, counts = nanos(item.cost), 0, (1, 10, item.output_tokens, item.cached_tokens)
        if pick.random() < 0.1:
            item.type = usage_pb2.USAGE_TYPE_REFUND
            item.cost.CopyFrom(usd(-nanos(item.cost)))
            item.input_tokens = item.output_tokens = item.cached_tokens = 0
            spend, adjustment, counts = 0, -spend, (0, 0, 0, 0)
        self.used.append(Used(key, time, member, item.model, item.task, (spend, adjustment, *counts)))
        return item

    def answer(
        self, request: usage_service_pb2.QueryUsageRequest
    ) -> dict[tuple[datetime, tuple[str, ...]], tuple[int, ...]]:
        """Return the sums by the beginning of the bucket and group."""
        start, end = request.start_time.ToDatetime(tzinfo=UTC), request.end_time.ToDatetime(tzinfo=UTC)
        zone = ZoneInfo(request.time_zone or "UTC")
        width = usage_pb2.BucketWidth.Name(request.bucket_width).removeprefix("BUCKET_WIDTH_")
        dimensions = [usage_pb2.UsageDimension.Name(d).removeprefix("USAGE_DIMENSION_") for d in request.group_by]
        sums: dict[tuple[tuple[object, ...], tuple[str, ...]], list[int]] = {}
        first: dict[tuple[object, ...], datetime] = {}
        for used in self.used:
            if start <= used.time < end and selected(used, request.filter):
                bucket = bucket_of(used.time, width, zone)
                first[bucket] = min(used.time, first.get(bucket, used.time))
                total = sums.setdefault((bucket, group_of(used, dimensions)), [0] * 6)
                for place, value in enumerate(used.measures):
                    total[place] += value
        # A bucket is known by its truncated local time and offset; answers tell its beginning.
        return {(first[bucket], group): tuple(total) for (bucket, group), total in sums.items()}


def selected(used: Used, wanted: usage_pb2.UsageFilter) -> bool:
    labels = [*wanted.environments.labels, *([""] if wanted.environments.unlabeled else [])]
    return all(
        not values or value in values
        for value, values in (
            (used.key.environment, labels),
            (used.key.key_id, wanted.key_ids),
            (used.model, wanted.models),
            (used.member, wanted.members),
            (used.task, wanted.tasks),
            (used.key.external_id, wanted.external_ids),
            (used.key.api_id, wanted.api_ids),
        )
    )


def bucket_of(time: datetime, width: str, zone: ZoneInfo) -> tuple[object, ...]:
    """Return the truncated local time and the offset: what makes two instants one bucket's."""
    local = time.astimezone(zone)
    naive = local.replace(tzinfo=None, second=0, microsecond=0)
    midnight = naive.replace(hour=0, minute=0)
    truncated = {
        "NONE": None,
        "15M": naive.replace(minute=naive.minute - naive.minute % 15),
        "1H": naive.replace(minute=0),
        "1D": midnight,
        "1W": midnight - timedelta(days=midnight.weekday()),
        "1MO": midnight.replace(day=1),
    }[width]
    return (truncated, None if width == "NONE" else local.utcoffset())


def group_of(used: Used, dimensions: Sequence[str]) -> tuple[str, ...]:
    values = {
        "ENVIRONMENT": used.key.environment,
        "KEY": used.key.key_id,
        "MODEL": used.model,
        "MEMBER": used.member,
        "TASK": used.task,
        "IDENTITY": used.key.external_id,
        "API": used.key.api_id,
    }
    return tuple(values[name] for name in dimensions)


def told(row: usage_pb2.UsageRow, dimensions: Sequence[str]) -> tuple[str, ...]:
    group = row.group
    values = {
        "ENVIRONMENT": group.environment,
        "KEY": group.key.key_id,
        "MODEL": group.model,
        "MEMBER": group.member,
        "TASK": group.task,
        "IDENTITY": group.external_id,
        "API": group.api_id,
    }
    return tuple(values[name] for name in dimensions)


def measures(found: usage_pb2.UsageMeasures) -> tuple[int, ...]:
    return (
        nanos(found.spend),
        nanos(found.adjustments),
        found.requests,
        found.input_tokens,
        found.output_tokens,
        found.cached_tokens,
    )


async def make_keys(owner: Client, model: Model, number: int) -> None:
    for at_ in range(number):
        key = key_pb2.Key(environment=LABELS[at_ % len(LABELS)], member=("", "ann", "carl")[at_ % 3])
        if at_ % 2:
            key.external_id = f"customer {at_ % 4}"
        made = (await owner.create_key(key)).key
        model.keys.append(Known(made.key_id, made.api_id, made.environment, key.external_id, made.member))


async def send(owner: Client, model: Model, number: int) -> None:
    events = [model.event(len(model.used)) for _ in range(number)]
    for begin in range(0, number, 100):
        assert set(await report(owner, events[begin : begin + 100])) == {NEW}


async def retag(owner: Client, model: Model) -> None:
    key = model.random.choice(model.keys)
    key.environment = model.random.choice(LABELS)
    await update(owner, key_pb2.Key(key_id=key.key_id, environment=key.environment))


def questions(model: Model, number: int) -> Iterator[usage_service_pb2.QueryUsageRequest]:
    """Yield random questions about random ranges."""
    pick = model.random
    quarter = timedelta(minutes=15)
    newest = NOW.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    for _ in range(number):
        end = newest - pick.randrange(DAYS * 48) * quarter
        start = end - pick.randrange(1, DAYS * 96) * quarter
        chosen = pick.sample(DIMENSIONS, pick.choice((0, 1, 1, 1, 2, 3)))
        request = asking(*chosen)
        request.start_time.CopyFrom(at(start))
        request.end_time.CopyFrom(at(end))
        request.time_zone = pick.choice(ZONES)
        request.bucket_width = usage_pb2.BucketWidth.Value(f"BUCKET_WIDTH_{pick.choice(list(WIDTHS))}")
        request.page_size = 10_000
        if pick.random() < 0.3:
            request.filter.environments.CopyFrom(
                environment_pb2.EnvironmentFilter(labels=[pick.choice(LABELS[:3])], unlabeled=pick.random() < 0.5)
            )
        if pick.random() < 0.2:
            request.filter.models.append(pick.choice(("", "small")))
        if pick.random() < 0.2:
            request.filter.key_ids.append(pick.choice(model.keys).key_id)
        if pick.random() < 0.1:
            request.filter.members.append(pick.choice(("", "ann")))
        if pick.random() < 0.1:
            request.filter.external_ids.append("customer 1")
        yield request


async def check(owner: Client, model: Model, number: int) -> None:
    for request in questions(model, number):
        await check_one(owner, model, request)


async def check_one(owner: Client, model: Model, request: usage_service_pb2.QueryUsageRequest) -> None:
    """Compare a report with the sums of the rows by bucket and group."""
    answer = await query(owner, request)
    expected = model.answer(request)
    dimensions = [usage_pb2.UsageDimension.Name(d).removeprefix("USAGE_DIMENSION_") for d in request.group_by]
    zone, width = ZoneInfo(request.time_zone or "UTC"), usage_pb2.BucketWidth.Name(request.bucket_width)
    keyed: dict[tuple[object, ...], tuple[int, ...]] = {}
    for row in answer.rows:
        bucket = bucket_of(row.start_time.ToDatetime(tzinfo=UTC), width.removeprefix("BUCKET_WIDTH_"), zone)
        keyed[(bucket, told(row, dimensions))] = measures(row.measures)
    wanted = {
        (bucket_of(first, width.removeprefix("BUCKET_WIDTH_"), zone), group): sums
        for (first, group), sums in expected.items()
    }
    assert keyed == wanted, f"seed {SEED}: {request}"
    totals = tuple(map(sum, zip(*expected.values(), strict=True))) or (0,) * 6
    assert measures(answer.totals) == totals, f"seed {SEED}: {request}"


async def test_every_report_is_the_sum_of_the_rows_whatever_is_packed_or_reattributed(owner: Client, dsn: str) -> None:
    """Events, retagging, packing, reattribution and late events in turn; TEST_SEED repeats a run."""
    print(f"TEST_SEED={SEED}")
    model = Model(SEED)
    await make_keys(owner, model, 8)
    await send(owner, model, 300)
    await check(owner, model, 25)

    for _ in range(3):
        for _ in range(3):
            await retag(owner, model)
        await check(owner, model, 10)
        await maintain(dsn)
        assert await differences(dsn) == {}, f"seed {SEED}"
        await check(owner, model, 15)
        await send(owner, model, 60)
        await retag(owner, model)
        assert await differences(dsn) == {}, f"seed {SEED}"
        await check(owner, model, 15)


@pytest.mark.parametrize("zone", ZONES)
async def test_adjacent_ranges_add_up(owner: Client, dsn: str, zone: str) -> None:
    model = Model(SEED)
    await make_keys(owner, model, 4)
    await send(owner, model, 150)
    await maintain(dsn)
    whole = asking("ENVIRONMENT", "MEMBER")
    whole.time_zone, whole.bucket_width = zone, usage_pb2.BUCKET_WIDTH_1D
    start, end = whole.start_time.ToDatetime(tzinfo=UTC), whole.end_time.ToDatetime(tzinfo=UTC)
    cuts = sorted(model.random.sample(range(1, (end - start) // timedelta(minutes=15)), 5))
    edges = [start, *(start + cut * timedelta(minutes=15) for cut in cuts), end]

    total, parts = await query(owner, whole), [0] * 6
    by_group: dict[tuple[str, ...], int] = defaultdict(int)
    for before, after in itertools.pairwise(edges):
        whole.start_time.CopyFrom(at(before))
        whole.end_time.CopyFrom(at(after))
        answer = await query(owner, whole)
        parts = [have + more for have, more in zip(parts, measures(answer.totals), strict=True)]
        for row in answer.rows:
            by_group[told(row, ["ENVIRONMENT", "MEMBER"])] += nanos(row.measures.spend)

    assert tuple(parts) == measures(total.totals), f"seed {SEED}"
    expected: dict[tuple[str, ...], int] = defaultdict(int)
    for row in total.rows:
        expected[told(row, ["ENVIRONMENT", "MEMBER"])] += nanos(row.measures.spend)
    assert by_group == expected, f"seed {SEED}"


async def test_swapping_two_labels_moves_whole_histories_and_changes_no_total(owner: Client, dsn: str) -> None:
    first, second = await key_in(owner, "blue"), await key_in(owner, "green")
    moments = [NOW - timedelta(days=day) for day in range(30)]
    await report(owner, [event(first, f"f{at_}", 3, moment) for at_, moment in enumerate(moments)])
    await report(owner, [event(second, f"s{at_}", 5, moment) for at_, moment in enumerate(moments)])
    await maintain(dsn)

    async def spent() -> dict[str, int]:
        rows = (await query(owner, asking("ENVIRONMENT"))).rows
        return {row.group.environment: nanos(row.measures.spend) for row in rows}

    assert await spent() == {"blue": 90, "green": 150}
    await update(owner, key_pb2.Key(key_id=first, environment="green"))
    assert await spent() == {"green": 240}
    await update(owner, key_pb2.Key(key_id=second, environment="blue"))
    assert await spent() == {"blue": 150, "green": 90}
    assert (await maintain(dsn)).keys_reattributed == 2
    assert await spent() == {"blue": 150, "green": 90}
    assert await differences(dsn) == {}


async def test_beyond_a_thousand_combinations_of_a_key_and_day_the_rest_is_other(
    service: Service, owner: Client, dsn: str
) -> None:
    """The bound holds over servers and through packing, and every sum stays exact."""
    key_id = await key_in(owner, "prod")
    moment = NOW - timedelta(days=2)

    def batch(begin: int, end: int) -> list[Event]:
        items = [event(key_id, str(number), 1, moment) for number in range(begin, end)]
        for number, item in enumerate(items, begin):
            item.task = f"job {number}"
        return items

    await report(owner, batch(0, 600))
    async with serving(dsn) as other:
        again = await other.client(owner.secret)
        await report(again, batch(600, 1_100))
        await maintain(dsn)
        await report(again, batch(1_100, 1_150))
    request = asking("TASK")
    request.page_size = 10_000
    answer = await query(owner, request)

    overflow = [row for row in answer.rows if row.group.other]
    assert len(answer.rows) == 1_001
    assert [(row.group.task, nanos(row.measures.spend)) for row in overflow] == [("", 150)]
    assert nanos(answer.totals.spend) == 1_150
    assert not any(row.group.other for row in (await query(owner, asking("ENVIRONMENT"))).rows)
    assert await differences(dsn) == {}


async def test_a_difference_is_found_by_its_day_and_written_right(owner: Client, dsn: str) -> None:
    key_id = await key_in(owner, "prod")
    await report(owner, [event(key_id, str(day), 7, NOW - timedelta(days=day)) for day in range(5)])
    await maintain(dsn)
    day = (NOW - timedelta(days=2)).date()
    connection = await asyncpg.connect(dsn)
    for table in ("usage_key_day_running", "usage_label_quarter"):
        time = "day = $1" if table == "usage_key_day_running" else "quarter::date = $1"
        await connection.execute(f"DELETE FROM {table} WHERE {time}", day)
    await connection.close()

    assert await differences(dsn) == {str(day): "1 by key, 1 by label, 1 by day"}
    assert await differences(dsn, write=True) == {str(day): "1 by key, 1 by label, 1 by day"}
    assert await differences(dsn) == {}
    await maintain(dsn)
    assert await differences(dsn) == {}
    assert nanos((await query(owner, asking())).totals.spend) == 35


async def test_reports_outlive_the_rows(owner: Client, dsn: str) -> None:
    key_id = await key_in(owner, "prod")
    await report(owner, [event(key_id, str(day), 7, NOW - timedelta(days=day)) for day in range(30)])
    request = asking("KEY", "MODEL")
    request.bucket_width, request.time_zone = usage_pb2.BUCKET_WIDTH_1D, "Asia/Kolkata"
    before = await query(owner, request)

    done = await maintain(dsn, events=timedelta(days=10))
    after = await query(owner, request)

    listing = usage_service_pb2.ListUsageEventsRequest(start_time=asking().start_time, page_size=1_000)
    assert done.partitions_dropped >= 20
    assert len((await owner.usage.ListUsageEvents(listing)).events) == 10 + (NOW.hour > 0 or NOW.minute > 0)
    assert (list(after.rows), after.totals) == (list(before.rows), before.totals)
    again = [event(key_id, str(day), 7, NOW - timedelta(days=day)) for day in range(30)]
    assert set(await report(owner, again)) == {usage_service_pb2.USAGE_OUTCOME_DUPLICATE}


async def test_an_identity_is_recognised_for_as_long_as_is_set(owner: Client, dsn: str) -> None:
    key_id = await key_in(owner, "prod")
    old, young = event(key_id, "old", 1, NOW - timedelta(days=30)), event(key_id, "young", 1, NOW - timedelta(days=1))
    await report(owner, [old, young])

    done = await maintain(dsn, events=timedelta(days=5), identities=timedelta(days=20))

    assert done.identities_forgotten == 1
    assert await report(owner, [young]) == [usage_service_pb2.USAGE_OUTCOME_DUPLICATE]


async def test_upkeep_is_done_by_one_server_at_a_time(owner: Client, dsn: str) -> None:
    """Whoever dies at it keeps the others waiting for a minute at most."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("DELETE FROM job_lease")
    await connection.execute("INSERT INTO job_lease VALUES ('maintain', 'somebody', now() + interval '1 minute')")
    async with database_of(dsn) as database:
        assert await Upkeep(database, Retention(ACCEPTED, None, None, COUNTS), Readiness(), utc_now).maintain() is None
    await connection.execute("UPDATE job_lease SET end_time = now() - interval '1 second' WHERE name = 'maintain'")
    await maintain(dsn)
    row = await connection.fetchrow("SELECT holder, done_time IS NOT NULL FROM job_lease WHERE name = 'maintain'")
    await connection.close()

    assert tuple(row or ()) == ("", True)


async def test_spend_counts_against_a_cap_whether_its_days_are_packed_or_not(owner: Client, dsn: str) -> None:
    cap = key_pb2.SpendLimit(amount=usd(10_000))
    key_id = (await owner.create_key(key_pb2.Key(spend_limit=cap))).key.key_id
    await report(owner, [event(key_id, str(day), moment=NOW - timedelta(days=day)) for day in range(9)])
    for _ in range(2):
        found = await owner.keys.GetKey(key_service_pb2.GetKeyRequest(key_id=key_id))
        assert nanos(found.key.spend.spent) == 9_000
        await maintain(dsn)
    await report(owner, [event(key_id, "late", moment=utc_now() - timedelta(days=5))])
    found = await owner.keys.GetKey(key_service_pb2.GetKeyRequest(key_id=key_id))
    assert nanos(found.key.spend.spent) == 10_000


async def test_a_database_in_another_time_zone_changes_nothing(owner: Client, dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        f"ALTER DATABASE {dsn.split('/')[3].split('?', maxsplit=1)[0]} SET timezone = 'Asia/Kolkata'"
    )
    key_id = await key_in(owner, "prod")
    noon = (NOW - timedelta(days=3)).replace(hour=12, minute=0, second=0, microsecond=0)
    async with serving(dsn) as aware:
        client = await aware.client(owner.secret)
        for minutes, cost in ((10, 1_000), (40, 7)):
            await report(client, [event(key_id, str(minutes), cost, noon + timedelta(minutes=minutes))])
        request = asking()
        request.bucket_width = usage_pb2.BUCKET_WIDTH_15M
        before = await query(client, request)
        await maintain(dsn)
        after = await query(client, request)
    await connection.execute("SET timezone = 'Asia/Kolkata'")
    packed = await connection.fetchval("SELECT quarters FROM usage_key_day_running")
    await connection.close()

    assert [nanos(row.measures.spend) for row in after.rows] == [1_000, 7]
    assert list(before.rows) == list(after.rows)
    assert packed == [48, 50]
    assert await differences(dsn) == {}


async def test_packing_takes_keys_together_as_long_as_their_rows_are_few(owner: Client, dsn: str) -> None:
    """And a key with more than that alone: no transaction grows with what keys have in common."""
    key_ids = sorted([await key_in(owner, "prod") for _ in range(5)])
    # Of now, which the server leaves to a later day.
    now = utc_now()
    for key_id, rows in zip(key_ids, (2, 9, 3, 3, 3), strict=True):
        events = [event(key_id, f"{key_id}-{number}", 1, now) for number in range(rows)]
        for number, used in enumerate(events):
            used.model = f"model {number}"
        assert await report(owner, events) == [NEW] * rows

    connection = await asyncpg.connect(dsn)
    workspace_id = await connection.fetchval("SELECT DISTINCT workspace_id FROM usage_key_quarter")
    left, last = [], UUID(int=0)
    async with database_of(dsn) as database:
        while (packed := await pack_some(database, workspace_id, last, now + timedelta(days=1), rows=6)) is not None:
            last = packed
            left.append(await connection.fetchval("SELECT count(*) FROM usage_key_quarter"))
    await connection.close()

    assert left == [18, 9, 3, 0]
    assert await differences(dsn) == {}


async def test_days_whose_rows_were_dropped_are_left_as_they_are(owner: Client, dsn: str) -> None:
    """Though a backfill makes their partitions anew: a rebuild would else take their history away."""
    key_id = await key_in(owner, "prod")
    await report(owner, [event(key_id, str(day), 7, NOW - timedelta(days=day)) for day in range(30)])
    await maintain(dsn, events=timedelta(days=10))

    await maintain(dsn)

    assert await differences(dsn, write=True) == {}
    assert nanos((await query(owner, asking())).totals.spend) == 210


async def test_events_without_a_partition_of_their_day_are_compared_too(owner: Client, dsn: str) -> None:
    key_id = await key_in(owner, "prod")
    moment = NOW - timedelta(days=3)
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"DROP TABLE usage_event_{moment:%Y%m%d}")
    await report(owner, [event(key_id, "1", 7, moment)])
    await connection.execute("UPDATE usage_event SET cost_nanos = 8")
    await connection.close()

    assert await differences(dsn) == {str(moment.date()): "1 by key, 1 by label"}


async def test_labels_are_moved_though_usage_is_recorded_without_a_pause(
    service: Service, owner: Client, dsn: str
) -> None:
    keys = [await key_in(owner, "blue") for _ in range(5)]
    stop = asyncio.Event()
    sent: list[int] = []

    async def record(client: Client, name: str) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            item = event(keys[number % 5], f"{name}-{number}", 1, NOW - timedelta(hours=number % 50))
            assert await report(client, [item]) == [NEW]
            sent.append(1)

    async with serving(dsn) as other:
        clients = [owner, await other.client(owner.secret)]
        tasks = [asyncio.create_task(record(client, f"{at_}")) for at_, client in enumerate(clients * 4)]
        for key_id in keys:
            await update(owner, key_pb2.Key(key_id=key_id, environment="green"))
        async with asyncio.timeout(60):
            moved = 0
            while moved < len(keys):
                moved += (await maintain(dsn)).keys_reattributed
        stop.set()
        await asyncio.gather(*tasks)

    assert await differences(dsn) == {}
    rows = (await query(owner, asking("ENVIRONMENT"))).rows
    assert {row.group.environment: nanos(row.measures.spend) for row in rows} == {"green": len(sent)}


async def test_what_fails_for_one_workspace_keeps_nothing_from_the_others(
    service: Service, owner: Client, dsn: str
) -> None:
    broken = await service.workspace("broken")
    for client in (broken, owner):
        key_id = await key_in(client, "prod")
        await report(client, [event(key_id, "1", 7, NOW - timedelta(days=3))])
    workspace_id = (await broken.create_key()).key.workspace_id
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "ALTER TABLE usage_key_day ADD CONSTRAINT broken CHECK (workspace_id <> "
        f"'{parse_id(WORKSPACE, workspace_id)}'::uuid)"
    )

    done = await maintain(dsn)
    packed = await connection.fetchval("SELECT count(*) FROM usage_key_day")
    await connection.close()

    assert (done.failures, packed) == (1, 1)
