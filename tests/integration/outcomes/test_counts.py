"""QueryVerifications: outcomes counted once, by live label, unknown secrets by caller and prefix (spec §5)."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from latchkey.v1 import (
    environment_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    usage_service_pb2,
    verification_pb2,
    verify_service_pb2,
)
from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.ids import new_id
from latchkey_server.domain.model import Caller, Role
from latchkey_server.domain.outcomes.counts import CountKey, VerificationCounter, shown_prefix
from latchkey_server.domain.outcomes.last_uses import KeyUses
from latchkey_server.domain.outcomes.recorder import Noted, VerificationFlush, VerificationRecorder
from latchkey_server.domain.secret import new_secret
from latchkey_server.domain.verify.model import Code
from latchkey_server.opening import utc_now
from latchkey_server.storage.store import PostgresStore
from tests.integration.keys.test_keys import update
from tests.integration.usage.test_usage import at
from tests.support.service import Client, Service, serving
from tests.support.upkeep import database_of, maintain

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
Request = usage_service_pb2.QueryVerificationsRequest


def asking(*group_by: str) -> Request:
    return Request(
        start_time=at(TODAY - timedelta(days=2)),
        end_time=at(TODAY + timedelta(days=2)),
        group_by=[usage_service_pb2.VerificationDimension.Value(f"VERIFICATION_DIMENSION_{name}") for name in group_by],
    )


async def counted(client: Client, total: int, *group_by: str) -> usage_service_pb2.QueryVerificationsResponse:
    """Return a report once it tells of so many verifications."""
    async with asyncio.timeout(20):
        while True:
            answer = await client.usage.QueryVerifications(asking(*group_by))
            if answer.total >= total:
                return answer
            await asyncio.sleep(0.05)


def codes(answer: usage_service_pb2.QueryVerificationsResponse) -> dict[str, int]:
    return {
        verification_pb2.VerifyCode.Name(row.group.code).removeprefix("VERIFY_CODE_"): row.count for row in answer.rows
    }


async def verify(client: Client, secret: str, times: int = 1, **asked: object) -> None:
    for _ in range(times):
        await client.verify(secret, verify_service_pb2.VerifyRequest(**asked))  # type: ignore[arg-type]


async def test_outcomes_are_counted_once_by_whatever_way_they_are_asked(owner: Client) -> None:
    made = await owner.create_key(key_pb2.Key(environment="prod"))
    off = await owner.create_key(key_pb2.Key(enabled=False))
    await verify(owner, made.secret, 7)
    await verify(owner, off.secret, 2)
    await verify(owner, made.secret, 3, dry_run=True)
    items = [verify_service_pb2.VerifyRequest(key=secret) for secret in (made.secret, off.secret, "sk_unknown")]
    await owner.verifier.BatchVerify(verify_service_pb2.BatchVerifyRequest(items=items))
    frame = verify_service_pb2.VerifyStreamRequest(frame_id=1, items=items)
    metadata = (("authorization", f"Bearer {owner.secret}"),)
    async for _ in owner.verifier.VerifyStream(iter([frame]), metadata=metadata):
        pass

    answer = await counted(owner, 15, "CODE")

    assert answer.total == 15
    assert codes(answer) == {"VALID": 9, "DISABLED": 4, "NOT_FOUND": 2}


async def test_a_report_follows_the_label_and_flags_deleted_keys(owner: Client) -> None:
    first, second = [await owner.create_key(key_pb2.Key(environment=label)) for label in ("prod", "dev")]
    await verify(owner, first.secret, 3)
    await verify(owner, second.secret, 2)
    await counted(owner, 5)

    await update(owner, key_pb2.Key(key_id=first.key.key_id, environment="dev"))
    await owner.keys.DeleteKey(key_service_pb2.DeleteKeyRequest(key_id=second.key.key_id))
    by_label = await owner.usage.QueryVerifications(asking("ENVIRONMENT"))
    by_key = await owner.usage.QueryVerifications(asking("KEY"))

    assert [(row.group.environment, row.count) for row in by_label.rows] == [("dev", 5)]
    assert {(row.group.key.key_id, row.group.key.deleted, row.count) for row in by_key.rows} == {
        (first.key.key_id, False, 3),
        (second.key.key_id, True, 2),
    }


async def test_unknown_secrets_show_by_caller_and_prefix_and_never_more_than_that(
    owner: Client, service: Service
) -> None:
    made = await owner.create_management_key(management_key_pb2.ROLE_VERIFIER)
    gateway = await service.client(made.secret)
    forged = "sk_live_" + "x" * 38
    await verify(gateway, forged, 3)
    await verify(gateway, "Passw0rd!_is_here")
    await verify(owner, forged)
    await verify(owner, new_secret("sk_live"))

    answer = await counted(owner, 6, "CALLING_SERVICE", "PREFIX", "KEY", "ENVIRONMENT")

    told = {
        (row.group.calling_service_id == made.management_key.management_key_id, row.group.prefix): row.count
        for row in answer.rows
    }
    assert told == {(True, "sk"): 3, (True, ""): 1, (False, "sk"): 1, (False, "sk_live"): 1}
    assert not any(row.group.HasField("key") or row.group.unlabeled for row in answer.rows)
    request = asking("PREFIX")
    request.filter.unknown_secrets = True
    assert (await owner.usage.QueryVerifications(request)).total == 6


async def test_tags_count_once_in_each_and_models_are_told(owner: Client) -> None:
    made = await owner.create_key()
    await verify(owner, made.secret, 2, tags=["a", "b", "a"], model="small")
    await verify(owner, made.secret, 1, tags=["b"])
    await verify(owner, made.secret, 1)

    await counted(owner, 4)
    by_tag = await owner.usage.QueryVerifications(asking("TAG"))
    by_model = await owner.usage.QueryVerifications(asking("MODEL"))

    assert [(row.group.tag, row.count) for row in by_tag.rows] == [("b", 3), ("a", 2)]
    assert by_tag.total == 5
    assert {(row.group.model, row.count) for row in by_model.rows} == {("small", 2), ("", 2)}
    assert by_model.total == 4


async def test_what_client_caches_report_is_counted_once_and_for_the_reporter(owner: Client, service: Service) -> None:
    made = await owner.create_management_key(management_key_pb2.ROLE_VERIFIER)
    cache = await service.client(made.secret)
    key_id = (await owner.create_key()).key.key_id
    stranger = await service.workspace("stranger")
    foreign = (await stranger.create_key()).key.key_id
    report = verify_service_pb2.ReportVerificationsRequest(client_id="cache-1", sequence=1)
    for of, tag in ((key_id, ""), (key_id, "web"), (foreign, "")):
        count = report.counts.add(key_id=of, code=verification_pb2.VERIFY_CODE_VALID, count=5, tag=tag)
        count.quarter_time.CopyFrom(at(TODAY))

    for _ in range(2):
        await cache.verifier.ReportVerifications(report)
    answer = await owner.usage.QueryVerifications(asking("CALLING_SERVICE"))

    caller = made.management_key.management_key_id
    assert [(row.group.calling_service_id, row.count) for row in answer.rows] == [(caller, 5)]
    assert [(row.group.tag, row.count) for row in (await owner.usage.QueryVerifications(asking("TAG"))).rows] == [
        ("web", 5)
    ]
    assert (await stranger.usage.QueryVerifications(asking())).total == 0


async def test_filters_select_and_top_sums_the_rest(owner: Client) -> None:
    secrets = []
    for number in range(1, 5):
        made = await owner.create_key(key_pb2.Key(environment=f"e{number}"))
        secrets.append(made.secret)
        await verify(owner, made.secret, number)
    await counted(owner, 10)
    top = asking("ENVIRONMENT")
    top.top = 2
    one = asking()
    one.filter.environments.CopyFrom(environment_pb2.EnvironmentFilter(labels=["e3"]))
    refused = asking()
    refused.filter.codes.append(verification_pb2.VERIFY_CODE_EXPIRED)

    answer = await owner.usage.QueryVerifications(top)

    assert [(row.group.environment, row.other, row.count) for row in answer.rows] == [
        ("e4", False, 4),
        ("e3", False, 3),
        ("", True, 3),
    ]
    assert (await owner.usage.QueryVerifications(one)).total == 3
    assert (await owner.usage.QueryVerifications(refused)).total == 0


async def test_a_bound_caller_sees_its_apis_only(owner: Client, service: Service) -> None:
    made = await owner.create_key()
    await verify(owner, made.secret, 2)
    await verify(owner, "sk_unknown")
    await counted(owner, 3)
    bound = await owner.create_management_key(management_key_pb2.ROLE_VIEWER, (made.key.api_id,))

    assert (await (await service.client(bound.secret)).usage.QueryVerifications(asking())).total == 2


async def test_a_stop_flushes_what_was_counted(dsn: str, owner: Client) -> None:
    made = await owner.create_key()
    async with serving(dsn) as other:
        client = await other.client(owner.secret)
        await verify(client, made.secret, 4)

    assert (await owner.usage.QueryVerifications(asking())).total == 4


def place(workspace_id: UUID, key_id: UUID, model: str = "") -> CountKey:
    return CountKey(workspace_id, key_id, Code.VALID, CALLER.management_key_id, model)


CALLER = Caller(new_id(), new_id(), Role.VERIFIER)


class Lost:
    """A recorder whose answers are lost, before or after the commit, until it is told otherwise."""

    def __init__(self, recorder: VerificationRecorder, plan: Sequence[str]) -> None:
        self._recorder = recorder
        self._plan = list(plan)

    async def record(self, client_id: str, sequence: int, noted: Noted) -> bool:
        loss = self._plan.pop(0) if self._plan else ""
        if loss == "before":
            raise DatabaseUnavailable
        done = await self._recorder.record(client_id, sequence, noted)
        if loss == "after":
            raise DatabaseUnavailable
        return done


@pytest.mark.parametrize("plan", [["after"], ["before", "after", "before", "after"], ["after"] * 5])
async def test_a_flush_whose_answer_was_lost_is_repeated_and_counts_once(
    dsn: str, owner: Client, plan: list[str]
) -> None:
    workspace_id, key_id = new_id(), new_id()
    counter = VerificationCounter()
    async with database_of(dsn) as database:
        recorder = Lost(VerificationRecorder(PostgresStore(database), utc_now), plan)
        flush = VerificationFlush(recorder, counter, KeyUses(), "a process")  # type: ignore[arg-type]
        for number in range(8):
            counter.count(place(workspace_id, key_id, f"m{number % 3}"), utc_now())
            with suppress(DatabaseUnavailable):
                await flush.flush()
        await flush.flush()
        async with database.connection() as connection:
            rows = await connection.fetch(
                "SELECT model, verifications FROM verification_key_quarter WHERE workspace_id = $1", workspace_id
            )

    totals: Counter[str] = Counter()
    for row in rows:
        totals[row["model"]] += row["verifications"]
    assert totals == {"m0": 3, "m1": 3, "m2": 2}


async def test_what_is_held_in_an_outage_is_bounded_and_the_rest_told(dsn: str) -> None:
    counter = VerificationCounter(most=10)
    workspace_id = new_id()
    for _ in range(25):
        counter.count(place(workspace_id, new_id()), utc_now())

    assert (sum(map(len, counter.take().values())), counter.dropped) == (10, 15)


async def test_beyond_a_thousand_combinations_counts_go_to_other(dsn: str, owner: Client) -> None:
    workspace_id, key_id = new_id(), new_id()
    async with database_of(dsn) as database:
        for process in range(2):
            counter = VerificationCounter()
            recorder = VerificationRecorder(PostgresStore(database), utc_now)
            flush = VerificationFlush(recorder, counter, KeyUses(), f"process {process}")
            for number in range(700):
                counter.count(place(workspace_id, key_id, f"model {process} {number}"), utc_now())
            await flush.flush()
        async with database.connection() as connection:
            rows = await connection.fetch(
                "SELECT other, count(*), sum(verifications)::int FROM verification_key_quarter "
                "WHERE workspace_id = $1 GROUP BY other ORDER BY other",
                workspace_id,
            )

    assert sum(row["count"] for row in rows if not row["other"]) >= 1_000
    assert sum(row["sum"] for row in rows) == 1_400
    assert len({row["other"] for row in rows}) == 2


async def test_counts_are_kept_as_long_as_is_set(dsn: str, owner: Client) -> None:
    made = await owner.create_key()
    await verify(owner, made.secret)
    await counted(owner, 1)

    done = await maintain(dsn, now=utc_now() + timedelta(days=200))

    assert done.counts_forgotten == 1
    assert (await owner.usage.QueryVerifications(asking())).total == 0


async def test_a_verification_is_not_usage(owner: Client) -> None:
    made = await owner.create_key()
    await verify(owner, made.secret, 3)
    await counted(owner, 3)

    request = usage_service_pb2.QueryUsageRequest(start_time=asking().start_time, end_time=asking().end_time)
    answer = await owner.usage.QueryUsage(request)
    assert (list(answer.rows), answer.totals.requests) == ([], 0)


async def test_a_stop_writes_what_was_counted_during_its_last_flush(dsn: str, owner: Client) -> None:
    workspace_id, key_id = new_id(), new_id()
    counter = VerificationCounter()
    async with database_of(dsn) as database:
        recorder = Lost(VerificationRecorder(PostgresStore(database), utc_now), ["before"])
        flush = VerificationFlush(recorder, counter, KeyUses(), "a process")  # type: ignore[arg-type]
        counter.count(place(workspace_id, key_id), utc_now())
        await flush.flush()
        counter.count(place(workspace_id, key_id), utc_now())
        await flush.drain()
        async with database.connection() as connection:
            written = await connection.fetchval(
                "SELECT sum(verifications) FROM verification_key_quarter WHERE workspace_id = $1", workspace_id
            )

    assert written == 2


async def test_a_workspace_that_cannot_be_written_keeps_no_other_from_it(dsn: str, owner: Client) -> None:
    stuck, others = [new_id() for _ in range(9)], [new_id() for _ in range(9)]
    counter = VerificationCounter()

    class Stuck:
        """Reaches the database for some workspaces only."""

        def __init__(self, recorder: VerificationRecorder) -> None:
            self._recorder = recorder

        async def record(self, client_id: str, sequence: int, noted: Noted) -> bool:
            if noted.workspace_id in stuck:
                raise DatabaseUnavailable
            return await self._recorder.record(client_id, sequence, noted)

    async with database_of(dsn) as database:
        recorder = Stuck(VerificationRecorder(PostgresStore(database), utc_now))
        flush = VerificationFlush(recorder, counter, KeyUses(), "a process")  # type: ignore[arg-type]
        for _ in range(3):
            for workspace_id in [*stuck, *others]:
                counter.count(place(workspace_id, new_id()), utc_now())
            await flush.flush()
        async with database.connection() as connection:
            rows = await connection.fetch(
                "SELECT workspace_id, sum(verifications)::int AS n FROM verification_key_quarter GROUP BY workspace_id"
            )

    written = {row["workspace_id"]: row["n"] for row in rows}
    assert [written.get(workspace_id, 0) for workspace_id in others] == [3] * 9
    assert not set(stuck) & set(written)


def test_what_is_told_of_an_unknown_secret_is_never_part_of_what_could_be_one() -> None:
    told = {
        secret: shown_prefix(secret) for secret in ("key_RVtacu73xyX2Fhh6TE_STM", "hunter2", "aB3dE5fG7_x", "", "ß_x")
    }

    assert told == {"key_RVtacu73xyX2Fhh6TE_STM": "key", "hunter2": "", "aB3dE5fG7_x": "", "": "", "ß_x": ""}
    assert shown_prefix(new_secret("sk_live")) == "sk_live"


def test_of_a_workspace_with_too_many_outcomes_the_free_text_is_left_out() -> None:
    counter = VerificationCounter(most=100, texts_most=10)
    workspace_id, other, key_id = new_id(), new_id(), new_id()
    for number in range(50):
        counter.count(place(workspace_id, key_id, f"model {number}"), utc_now())
    counter.count(place(other, key_id, "model"), utc_now())

    taken = counter.take()

    assert {at[1].other: count for at, count in taken[workspace_id].items() if at[1].other} == {True: 40}
    assert sum(taken[workspace_id].values()) == 50
    assert [at[1].model for at in taken[other]] == ["model"]
    assert counter.dropped == 0
