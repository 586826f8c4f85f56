"""Counts by label always equal those by key, reattributed or not, and reports are their sum (spec §5)."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from latchkey.v1 import (
    admin_service_pb2,
    api_pb2,
    environment_pb2,
    key_pb2,
    usage_pb2,
    usage_service_pb2,
    verification_pb2,
)
from latchkey_server.domain import ids
from latchkey_server.domain.outcomes.counts import UNKNOWN, CountKey, Counts, VerificationCounter, by_outcome
from latchkey_server.domain.outcomes.last_uses import KeyUses
from latchkey_server.domain.outcomes.ports import Transaction
from latchkey_server.domain.outcomes.recorder import Noted, VerificationFlush, VerificationRecorder
from latchkey_server.domain.reporting.buckets import quarter_of
from latchkey_server.domain.store import Store
from latchkey_server.domain.usage.ports import UsageFenced
from latchkey_server.domain.verify.model import Code
from latchkey_server.opening import utc_now
from latchkey_server.storage.database import Database
from latchkey_server.storage.store import PostgresStore, PostgresTransaction
from latchkey_server.storage.upkeep.reattribution import retagged_workspaces
from tests.integration.keys.test_keys import update
from tests.integration.outcomes.test_counts import asking
from tests.integration.usage.test_rollups import WIDTHS, ZONES, bucket_of
from tests.integration.usage.test_usage import at
from tests.support.service import Client, Service
from tests.support.upkeep import database_of, differences, label_differences, maintain

SEED = int(os.environ.get("TEST_SEED", "0")) or random.SystemRandom().randrange(2**31)
NOW = datetime.now(UTC)
DAYS = 34
LABELS = ("prod", "staging", "dev", "")
DIMENSIONS = ("CODE", "ENVIRONMENT", "KEY", "API", "CALLING_SERVICE", "MODEL", "TAG", "PREFIX")
TEXTS = frozenset({"MODEL", "TAG", "PREFIX"})
CODES = (Code.VALID, Code.DISABLED, Code.EXPIRED)
CALLERS = (UUID(int=7), UUID(int=8), UNKNOWN)

Request = usage_service_pb2.QueryVerificationsRequest
Row = usage_service_pb2.VerificationRow
Group = tuple[object, ...]
Sums = Counter[tuple[tuple[object, ...], Group]]
"""Verifications by bucket and group."""

T = TypeVar("T")


@dataclass(slots=True)
class Known:
    """A key as the model knows it."""

    key_id: UUID
    api_id: str
    environment: str


@dataclass(frozen=True, slots=True)
class Verified:
    """Equal verifications of a quarter of an hour; ``key`` is None for a secret that no key has."""

    key: Known | None
    quarter: datetime
    place: CountKey
    number: int

    @property
    def label(self) -> str | None:
        """The label that the key carries now."""
        return self.key.environment if self.key else None

    @property
    def key_id(self) -> str:
        """The key's id as it travels."""
        return ids.format_id(ids.KEY, self.key.key_id) if self.key else ""

    @property
    def api_id(self) -> str:
        """The api's id as it travels."""
        return self.key.api_id if self.key else ""

    @property
    def caller(self) -> str:
        """The calling service's id as it travels."""
        caller = self.place.management_key_id
        return "" if caller == UNKNOWN else ids.format_id(ids.MANAGEMENT_KEY, caller)


class Model:
    """Verifications, summed by brute force."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.keys: list[Known] = []
        self.verified: list[Verified] = []

    def verify(self, workspace_id: UUID, number: int) -> Counts:
        """Make that many different outcomes at some times, remember them and return them as they are counted."""
        made = [self._one(workspace_id) for _ in range(number)]
        self.verified += made
        counts: dict[tuple[datetime, CountKey], int] = {}
        for one in made:
            counts[one.quarter, one.place] = counts.get((one.quarter, one.place), 0) + one.number
        return counts

    def _one(self, workspace_id: UUID) -> Verified:
        pick = self.random
        key = None if pick.random() < 0.2 else pick.choice(self.keys)
        place = CountKey(
            workspace_id,
            key.key_id if key else UNKNOWN,
            pick.choice(CODES) if key else Code.NOT_FOUND,
            pick.choice(CALLERS),
            model=pick.choice(("", "small", "large")),
            tags=tuple(pick.sample(("a", "b", "c"), pick.choice((0, 0, 1, 2)))),
            prefix="" if key else pick.choice(("", "sk", "sk_live")),
        )
        if pick.random() < 0.1:
            place = place._replace(model="", tags=(), prefix="", other=True)
        quarter = quarter_of(NOW - timedelta(seconds=pick.randrange(DAYS * 86_400)))
        return Verified(key, quarter, place, pick.randrange(1, 100))

    def answer(self, request: Request) -> Sums:
        """Return what a report is to say, ``top`` aside."""
        start, end = request.start_time.ToDatetime(tzinfo=UTC), request.end_time.ToDatetime(tzinfo=UTC)
        zone, width, names = ZoneInfo(request.time_zone or "UTC"), width_of(request), names_of(request)
        by_tag = "TAG" in names or bool(request.filter.tags)
        sums: Sums = Counter()
        for one in self.verified:
            if start <= one.quarter < end and selected(one, request.filter):
                for tag in one.place.tags if by_tag else ("",):
                    if not request.filter.tags or tag in request.filter.tags:
                        sums[bucket_of(one.quarter, width, zone), group_of(one, tag, names)] += one.number
        return sums


def width_of(request: Request) -> str:
    return usage_pb2.BucketWidth.Name(request.bucket_width).removeprefix("BUCKET_WIDTH_")


def names_of(request: Request) -> list[str]:
    by = usage_service_pb2.VerificationDimension
    return [by.Name(dimension).removeprefix("VERIFICATION_DIMENSION_") for dimension in request.group_by]


def selected(one: Verified, wanted: usage_service_pb2.VerificationFilter) -> bool:
    labels = [*wanted.environments.labels, *([""] if wanted.environments.unlabeled else [])]
    return (
        not (wanted.unknown_secrets and one.key)
        and not (wanted.models and one.place.other)
        and all(
            not values or value in values
            for value, values in (
                (one.place.code, wanted.codes),
                (one.label, labels),
                (one.key_id, wanted.key_ids),
                (one.api_id, wanted.api_ids),
                (one.caller, wanted.calling_service_ids),
                (one.place.model, wanted.models),
            )
        )
    )


def group_of(one: Verified, tag: str, names: Sequence[str]) -> Group:
    values: dict[str, object] = {
        "CODE": one.place.code,
        # Nothing is told of an unknown secret's label, not even that there is none.
        "ENVIRONMENT": (one.label or "", one.label == ""),
        "KEY": one.key_id,
        "API": one.api_id,
        "CALLING_SERVICE": one.caller,
        "MODEL": one.place.model,
        "TAG": tag,
        "PREFIX": one.place.prefix,
    }
    return (bool(TEXTS.intersection(names)) and one.place.other, *(values[name] for name in names))


def told(row: Row, names: Sequence[str]) -> Group:
    group = row.group
    values: dict[str, object] = {
        "CODE": group.code,
        "ENVIRONMENT": (group.environment, group.unlabeled),
        "KEY": group.key.key_id,
        "API": group.api_id,
        "CALLING_SERVICE": group.calling_service_id,
        "MODEL": group.model,
        "TAG": group.tag,
        "PREFIX": group.prefix,
    }
    return (group.other, *(values[name] for name in names))


async def make_keys(owner: Client, model: Model, number: int) -> UUID:
    """Make keys of two apis and return their workspace."""
    api = await owner.admin.CreateApi(admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="second")))
    for at_ in range(number):
        key = key_pb2.Key(environment=LABELS[at_ % len(LABELS)])
        if at_ % 2:
            key.api_id = api.api.api_id
        made = (await owner.create_key(key)).key
        model.keys.append(Known(ids.parse_id(ids.KEY, made.key_id), made.api_id, made.environment))
    return ids.parse_id(ids.WORKSPACE, made.workspace_id)


async def retag(owner: Client, model: Model) -> None:
    key = model.random.choice(model.keys)
    key.environment = model.random.choice(LABELS)
    await update(owner, key_pb2.Key(key_id=ids.format_id(ids.KEY, key.key_id), environment=key.environment))


class Recording:
    """Records as a server's flush and client caches do."""

    def __init__(self, store: Store[Transaction], workspace_id: UUID) -> None:
        self._recorder = VerificationRecorder(store, utc_now)
        self.workspace_id = workspace_id
        self._sequence = 0

    async def record(self, counts: Counts) -> None:
        """Record counts as one report."""
        self._sequence += 1
        assert not await self._recorder.record(
            "a cache", self._sequence, Noted(self.workspace_id, await by_outcome(counts))
        )


def questions(model: Model, number: int) -> Iterator[Request]:
    """Yield random questions about random ranges."""
    pick, quarter = model.random, timedelta(minutes=15)
    newest = quarter_of(NOW) + timedelta(hours=1)
    for _ in range(number):
        end = newest - pick.randrange(DAYS * 48) * quarter
        request = asking(*pick.sample(DIMENSIONS, pick.choice((0, 1, 1, 2, 3))))
        request.start_time.CopyFrom(at(end - pick.randrange(1, DAYS * 96) * quarter))
        request.end_time.CopyFrom(at(end))
        request.time_zone = pick.choice(ZONES)
        request.bucket_width = usage_pb2.BucketWidth.Value(f"BUCKET_WIDTH_{pick.choice(list(WIDTHS))}")
        request.page_size = pick.choice((7, 10_000))
        request.filter.CopyFrom(random_filter(model))
        yield request


def random_filter(model: Model) -> usage_service_pb2.VerificationFilter:
    pick, wanted = model.random, usage_service_pb2.VerificationFilter()
    if pick.random() < 0.3:
        labels = environment_pb2.EnvironmentFilter(labels=[pick.choice(LABELS[:3])], unlabeled=pick.random() < 0.5)
        wanted.environments.CopyFrom(labels)
    if pick.random() < 0.2:
        wanted.codes.append(verification_pb2.VerifyCode.ValueType(pick.choice((*CODES[:2], Code.NOT_FOUND))))
    if pick.random() < 0.2:
        wanted.api_ids.append(pick.choice(model.keys).api_id)
    if pick.random() < 0.1:
        wanted.calling_service_ids.append(ids.format_id(ids.MANAGEMENT_KEY, pick.choice(CALLERS[:2])))
    if pick.random() < 0.1:
        wanted.models.append(pick.choice(("", "small")))
    if pick.random() < 0.1:
        wanted.tags.append(pick.choice(("a", "b")))
    if pick.random() < 0.1:
        wanted.key_ids.append(ids.format_id(ids.KEY, pick.choice(model.keys).key_id))
    if pick.random() < 0.1:
        wanted.unknown_secrets = True
    return wanted


async def pages(owner: Client, request: Request) -> tuple[list[Row], int]:
    """Return all rows of a report and its total, which every page tells alike."""
    asked, rows, totals = Request(), list[Row](), set[int]()
    asked.CopyFrom(request)
    while True:
        answer = await owner.usage.QueryVerifications(asked)
        rows += answer.rows
        totals.add(answer.total)
        asked.page_token = answer.next_page_token
        if not asked.page_token:
            [total] = totals
            return rows, total


async def check_one(owner: Client, model: Model, request: Request) -> None:
    """Compare a report with the sums of the verifications by bucket and group."""
    rows, total = await pages(owner, request)
    zone, names, width = ZoneInfo(request.time_zone or "UTC"), names_of(request), width_of(request)
    found = [
        ((bucket_of(row.start_time.ToDatetime(tzinfo=UTC), width, zone), told(row, names)), row.count) for row in rows
    ]
    expected = model.answer(request)
    assert dict(found) == expected, f"seed {SEED}: {request}"
    assert len(found) == len(expected), f"seed {SEED}: {request}"
    assert total == expected.total(), f"seed {SEED}: {request}"


async def check_top(owner: Client, model: Model, request: Request) -> None:
    """Compare the groups that a report shows, and the rest, with the largest ones."""
    totals: Counter[Group] = Counter()
    for (_, group), number in model.answer(request).items():
        totals[group] += number
    request.top = model.random.randrange(1, 4)
    shown: Counter[Group] = Counter()
    rest = 0
    rows, total = await pages(owner, request)
    for row in rows:
        if row.other:
            rest += row.count
        else:
            shown[told(row, names_of(request))] += row.count
    largest = sorted(totals.values(), reverse=True)
    assert sorted(shown.values(), reverse=True) == largest[: request.top], f"seed {SEED}: {request}"
    assert shown.items() <= totals.items(), f"seed {SEED}: {request}"
    assert (rest, total) == (sum(largest[request.top :]), totals.total()), f"seed {SEED}: {request}"


async def check(owner: Client, model: Model, number: int) -> None:
    for request in questions(model, number):
        await check_one(owner, model, request)
        if request.group_by:
            await check_top(owner, model, request)


async def test_every_report_is_the_sum_of_the_verifications_whatever_is_reattributed(owner: Client, dsn: str) -> None:
    """Verifications, retagging and reattribution in turn; TEST_SEED repeats a run."""
    print(f"TEST_SEED={SEED}")
    model = Model(SEED)
    workspace_id = await make_keys(owner, model, 8)
    async with database_of(dsn) as database:
        recording = Recording(PostgresStore(database), workspace_id)
        await recording.record(model.verify(workspace_id, 300))
        await check(owner, model, 25)
        for _ in range(3):
            for _ in range(3):
                await retag(owner, model)
            await check(owner, model, 15)
            await maintain(dsn)
            assert await label_differences(dsn) == 0, f"seed {SEED}"
            await check(owner, model, 15)
            await retag(owner, model)
            await recording.record(model.verify(workspace_id, 60))
            assert await label_differences(dsn) == 0, f"seed {SEED}"
            await check(owner, model, 10)


async def test_reattribution_changes_no_report_and_leaves_nothing_where_it_moved_from(owner: Client, dsn: str) -> None:
    print(f"TEST_SEED={SEED}")
    model = Model(SEED)
    workspace_id = await make_keys(owner, model, 4)
    asked = list(questions(model, 40))
    async with database_of(dsn) as database:
        await Recording(PostgresStore(database), workspace_id).record(model.verify(workspace_id, 200))
        for key in model.keys:
            key.environment = "moved"
            await update(owner, key_pb2.Key(key_id=ids.format_id(ids.KEY, key.key_id), environment="moved"))
        before = [await pages(owner, request) for request in asked]
        await maintain(dsn)
        after = [await pages(owner, request) for request in asked]
        async with database.connection() as connection:
            labels = await connection.fetch("SELECT DISTINCT environment FROM verification_label_quarter")

    assert before == after, f"seed {SEED}"
    assert {row["environment"] for row in labels} == {"moved", ""}
    assert await label_differences(dsn) == 0, f"seed {SEED}"


async def test_unknown_secrets_have_no_label_and_no_api_and_are_never_the_unlabeled_ones(
    owner: Client, dsn: str
) -> None:
    model = Model(SEED)
    workspace_id = await make_keys(owner, model, 4)
    unlabeled = model.keys[3]
    quarter = quarter_of(NOW)
    unknown = CountKey(workspace_id, UNKNOWN, Code.NOT_FOUND, CALLERS[0], prefix="sk_live")
    known = CountKey(workspace_id, unlabeled.key_id, Code.VALID, CALLERS[0])
    async with database_of(dsn) as database:
        await Recording(PostgresStore(database), workspace_id).record({(quarter, unknown): 3, (quarter, known): 5})

    async def found(wanted: usage_service_pb2.VerificationFilter) -> set[tuple[str, bool, str, int]]:
        request = asking("ENVIRONMENT", "API")
        request.filter.CopyFrom(wanted)
        answer = await owner.usage.QueryVerifications(request)
        return {(row.group.environment, row.group.unlabeled, row.group.api_id, row.count) for row in answer.rows}

    of_unlabeled, of_unknown = ("", True, unlabeled.api_id, 5), ("", False, "", 3)
    wanted = usage_service_pb2.VerificationFilter
    assert await found(wanted()) == {of_unlabeled, of_unknown}
    assert await found(wanted(environments=environment_pb2.EnvironmentFilter(unlabeled=True))) == {of_unlabeled}
    assert await found(wanted(api_ids=[unlabeled.api_id])) == {of_unlabeled}
    assert await found(wanted(api_ids=[ids.format_id(ids.API, UNKNOWN)])) == set()
    assert await found(wanted(unknown_secrets=True)) == {of_unknown}


async def test_a_key_that_does_not_exist_fails_no_batch_and_is_told_as_ever(owner: Client, dsn: str) -> None:
    """It has no label and no api, but is no unknown secret either."""
    model = Model(SEED)
    workspace_id = await make_keys(owner, model, 1)
    gone = Known(ids.new_id(), "", "")
    counts = {
        (quarter_of(NOW), CountKey(workspace_id, key.key_id, Code.VALID, CALLERS[0], tags=("a",))): 2
        for key in (gone, model.keys[0])
    }
    async with database_of(dsn) as database:
        await Recording(PostgresStore(database), workspace_id).record(counts)

    by_label = (await owner.usage.QueryVerifications(asking("ENVIRONMENT", "API"))).rows
    by_key = (await owner.usage.QueryVerifications(asking("KEY"))).rows
    request = asking()
    request.filter.unknown_secrets = True
    assert {(row.group.environment, row.group.unlabeled, row.group.api_id) for row in by_label} == {
        ("prod", False, model.keys[0].api_id),
        ("", False, ""),
    }
    assert {row.group.HasField("key"): row.count for row in by_key} == {True: 2, False: 2}
    assert (await owner.usage.QueryVerifications(request)).total == 0
    assert await label_differences(dsn) == 0


async def test_beyond_a_thousand_tags_the_sums_by_label_are_those_by_key(owner: Client, dsn: str) -> None:
    model = Model(SEED)
    workspace_id = await make_keys(owner, model, 2)
    quarter, [first, second] = quarter_of(NOW), model.keys
    second.environment = first.environment
    await update(owner, key_pb2.Key(key_id=ids.format_id(ids.KEY, second.key_id), environment=first.environment))
    counts = {
        (quarter, CountKey(workspace_id, key.key_id, Code.VALID, CALLERS[0], tags=(f"tag {number}",))): 1
        for key, numbers in ((first, range(1_100)), (second, range(1_050, 1_150)))
        for number in numbers
    }
    async with database_of(dsn) as database:
        await Recording(PostgresStore(database), workspace_id).record(counts)
    for _ in range(2):
        request = asking("ENVIRONMENT", "TAG")
        request.page_size = 10_000
        answer = await owner.usage.QueryVerifications(request)
        beyond = [row for row in answer.rows if row.group.other]
        assert (answer.total, sum(row.count for row in answer.rows)) == (1_200, 1_200)
        # Of the first key's thousand combinations one is that of the verifications themselves.
        assert [(row.group.environment, row.group.tag, row.count) for row in beyond] == [("prod", "", 101)]
        assert await label_differences(dsn) == 0
        await maintain(dsn)


async def test_a_wrong_count_by_label_is_found_by_its_day_and_written_right(owner: Client, dsn: str) -> None:
    print(f"TEST_SEED={SEED}")
    model = Model(SEED)
    workspace_id = await make_keys(owner, model, 4)
    async with database_of(dsn) as database:
        await Recording(PostgresStore(database), workspace_id).record(model.verify(workspace_id, 300))
        await retag(owner, model)
        async with database.connection() as connection:
            day_of = "(quarter AT TIME ZONE 'UTC')::date"
            days = await connection.fetch(
                f"SELECT DISTINCT {day_of} AS day FROM verification_label_quarter ORDER BY day LIMIT 2"
            )
            of_one = f"WHERE ctid = (SELECT ctid FROM verification_label_quarter WHERE {day_of} = $1 LIMIT 1)"
            more = f"UPDATE verification_label_quarter SET verifications = verifications + 1 {of_one}"
            for statement, row in zip((more, f"DELETE FROM verification_label_quarter {of_one}"), days, strict=True):
                await connection.execute(statement, row["day"])
    wrong = {f"{row['day']} verifications": "1 by label" for row in days}

    assert await differences(dsn) == wrong, f"seed {SEED}"
    assert await differences(dsn, write=True) == wrong
    assert await differences(dsn) == {}
    assert await label_differences(dsn) == 0
    await check(owner, model, 10)


async def test_counts_by_label_are_kept_as_long_as_those_by_key(
    owner: Client, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In portions of whole quarters, after each of which both are the same."""
    print(f"TEST_SEED={SEED}")
    monkeypatch.setattr("latchkey_server.storage.outcomes.retention.BATCH", 20)
    model = Model(SEED)
    workspace_id = await make_keys(owner, model, 4)
    later = NOW + timedelta(days=80)
    async with database_of(dsn) as database:
        await Recording(PostgresStore(database), workspace_id).record(model.verify(workspace_id, 300))
        await retag(owner, model)

        done = await maintain(dsn, now=later)

        async with database.connection() as connection:
            oldest = await connection.fetch(
                "SELECT min(quarter) AS quarter, count(*) AS rows FROM verification_key_quarter "
                "UNION ALL SELECT min(quarter), count(*) FROM verification_label_quarter"
            )
    kept = datetime.combine((later - timedelta(days=90)).date(), datetime.min.time(), UTC)
    model.verified = [one for one in model.verified if one.quarter >= kept]
    assert done.counts_forgotten > 20
    assert model.verified
    assert all(row["rows"] > 0 and row["quarter"] >= kept for row in oldest)
    assert await label_differences(dsn) == 0, f"seed {SEED}"
    await check(owner, model, 10)


async def test_labels_are_moved_though_verifications_are_flushed_without_a_pause(
    service: Service, owner: Client, dsn: str
) -> None:
    print(f"TEST_SEED={SEED}")
    model = Model(SEED)
    workspace_id = await make_keys(owner, model, 6)
    stop = asyncio.Event()
    counted: Counter[str] = Counter()

    async def flush(database: Database, process: int) -> None:
        counter = VerificationCounter()
        recorder = VerificationRecorder(PostgresStore(database), utc_now)
        flushing = VerificationFlush(recorder, counter, KeyUses(), f"process {process}")
        number = 0
        while not stop.is_set():
            for _ in range(20):
                number += 1
                key = model.keys[number % len(model.keys)]
                place = CountKey(workspace_id, key.key_id, Code.VALID, CALLERS[0], tags=("a",))
                counter.count(place, NOW - timedelta(hours=(number + process) % 48))
            await flushing.flush()
        await flushing.drain()
        counted["all"] += number
        counted["dropped"] += counter.dropped

    async with database_of(dsn) as first, database_of(dsn) as second:
        flushers = [
            asyncio.create_task(flush(database, process)) for process, database in enumerate((first, second) * 2)
        ]
        async with asyncio.timeout(60):
            for label in ("green", "blue", "green"):
                for key in model.keys:
                    await update(owner, key_pb2.Key(key_id=ids.format_id(ids.KEY, key.key_id), environment=label))
                while await retagged_workspaces(first):
                    await maintain(dsn)
                assert await label_differences(dsn) == 0
        stop.set()
        await asyncio.gather(*flushers)

    rows = (await owner.usage.QueryVerifications(asking("ENVIRONMENT"))).rows
    assert counted["dropped"] == 0
    assert [(row.group.environment, row.count) for row in rows] == [("green", counted["all"])]
    assert (await owner.usage.QueryVerifications(asking("TAG"))).total == counted["all"]
    assert await label_differences(dsn) == 0


class Watched(PostgresStore):
    """Tells when a fence kept somebody out."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.kept_out = asyncio.Event()

    async def write(self, work: Callable[[PostgresTransaction], Awaitable[T]]) -> T:
        try:
            return await super().write(work)
        except UsageFenced:
            self.kept_out.set()
            raise


async def test_a_report_that_meets_a_fold_is_written_after_it(owner: Client, dsn: str) -> None:
    """And under the label that it was moved to."""
    model = Model(SEED)
    workspace_id = await make_keys(owner, model, 1)
    key = model.keys[0]
    place = CountKey(workspace_id, key.key_id, Code.VALID, CALLERS[0])
    async with database_of(dsn) as database, database_of(dsn) as other:
        store = Watched(database)
        recording = Recording(store, workspace_id)
        async with other.transaction() as reattribution:
            raised = "UPDATE workspace SET usage_fence = now() + $2 WHERE workspace_id = $1"
            async with other.connection() as raising:
                await raising.execute(raised, workspace_id, timedelta(minutes=1))
            writing = asyncio.create_task(recording.record({(quarter_of(NOW), place): 4}))
            async with asyncio.timeout(20):
                await store.kept_out.wait()
            moved = "UPDATE key SET environment = 'moved', attributed_environment = 'moved' WHERE key_id = $1"
            await reattribution.execute(moved, key.key_id)
            written = await reattribution.fetchval("SELECT count(*) FROM verification_key_quarter")
            lowered = "UPDATE workspace SET usage_fence = NULL WHERE workspace_id = $1"
            await reattribution.execute(lowered, workspace_id)
        await writing
        async with database.connection() as connection:
            labels = await connection.fetch("SELECT environment, verifications FROM verification_label_quarter")

    assert written == 0
    assert [tuple(row) for row in labels] == [("moved", 4)]
