"""UsageService: nothing lost, nothing counted twice, reports that follow the label and add up (spec §5)."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from latchkey.v1 import (
    admin_service_pb2,
    environment_pb2,
    error_reason_pb2,
    key_pb2,
    key_service_pb2,
    usage_pb2,
    usage_service_pb2,
    workspace_pb2,
)
from latchkey_server.opening import utc_now
from tests.integration.keys.test_keys import get, revoke, update
from tests.support.service import Client, Service, serving
from tests.support.upkeep import differences, maintain

NOW = datetime.now(UTC)
TODAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
NEW = usage_service_pb2.USAGE_OUTCOME_NEW
DUPLICATE = usage_service_pb2.USAGE_OUTCOME_DUPLICATE
CONFLICT = usage_service_pb2.USAGE_OUTCOME_CONFLICT
REJECTED = usage_service_pb2.USAGE_OUTCOME_REJECTED
Event = usage_pb2.UsageEvent


def at(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def usd(nanos: int) -> Money:
    sign = -1 if nanos < 0 else 1
    units, rest = divmod(abs(nanos), 1_000_000_000)
    return Money(currency_code="USD", units=sign * units, nanos=sign * rest)


def nanos(money: Money) -> int:
    return money.units * 1_000_000_000 + money.nanos


def event(key_id: str, event_id: str, cost: int = 1_000, moment: datetime = NOW) -> Event:
    return Event(
        source="tests",
        event_id=event_id,
        key_id=key_id,
        type=usage_pb2.USAGE_TYPE_CONSUME,
        cost=usd(cost),
        input_tokens=10,
        output_tokens=5,
        cached_tokens=2,
        occurred_time=at(moment),
    )


async def report(client: Client, events: Iterable[Event]) -> list[usage_service_pb2.UsageOutcome.ValueType]:
    answer = await client.usage.ReportUsage(usage_service_pb2.ReportUsageRequest(events=events))
    return [result.outcome for result in answer.results]


def asking(*group_by: str, days: int = 40) -> usage_service_pb2.QueryUsageRequest:
    return usage_service_pb2.QueryUsageRequest(
        start_time=at(TODAY - timedelta(days=days)),
        end_time=at(TODAY + timedelta(days=1)),
        group_by=[usage_pb2.UsageDimension.Value(f"USAGE_DIMENSION_{name}") for name in group_by],
    )


async def query(client: Client, request: usage_service_pb2.QueryUsageRequest) -> usage_service_pb2.QueryUsageResponse:
    return await client.usage.QueryUsage(request)


async def key_in(client: Client, environment: str) -> str:
    return (await client.create_key(key_pb2.Key(environment=environment))).key.key_id


async def test_an_event_is_new_once_a_duplicate_after_and_a_conflict_when_it_differs(owner: Client) -> None:
    key_id = await key_in(owner, "prod")
    first, other = event(key_id, "1"), event(key_id, "1", cost=2_000)

    assert await report(owner, [first, first, other]) == [NEW, DUPLICATE, CONFLICT]
    assert await report(owner, [other, first]) == [CONFLICT, DUPLICATE]
    assert nanos((await query(owner, asking())).totals.spend) == 1_000


async def test_absent_and_default_are_other_content(owner: Client) -> None:
    key_id = await key_in(owner, "prod")
    absent, given = event(key_id, "1"), event(key_id, "1")
    given.requests = 1

    assert await report(owner, [absent, given]) == [NEW, CONFLICT]


async def test_one_bad_item_never_undoes_the_others(owner: Client) -> None:
    key_id = await key_in(owner, "prod")
    negative = event(key_id, "2", cost=-1)
    old = event(key_id, "3", moment=NOW - timedelta(days=36))
    ahead = event(key_id, "4", moment=datetime.now(UTC) + timedelta(minutes=6))
    stranger = event("key_00000000000000000000000000", "5")
    answer = await owner.usage.ReportUsage(
        usage_service_pb2.ReportUsageRequest(
            events=[event(key_id, "1"), negative, old, ahead, stranger, Event(), event(key_id, "6")]
        )
    )

    assert [result.outcome for result in answer.results] == [NEW, *[REJECTED] * 5, NEW]
    reasons = [error_reason_pb2.ErrorReason.Name(result.reason) for result in answer.results[1:6]]
    assert [reason.removeprefix("ERROR_REASON_") for reason in reasons] == [
        "INVALID_FIELD",
        "OCCURRED_TIME_OUT_OF_RANGE",
        "OCCURRED_TIME_OUT_OF_RANGE",
        "KEY_NOT_FOUND",
        "INVALID_FIELD",
    ]
    assert (await query(owner, asking())).totals.requests == 2


async def test_a_rejected_event_does_not_take_its_identity(owner: Client) -> None:
    key_id = await key_in(owner, "prod")

    outcomes = await report(owner, [event("key_00000000000000000000000000", "1"), event(key_id, "1")])

    assert outcomes == [REJECTED, NEW]


async def test_an_old_duplicate_is_a_duplicate_whatever_the_time(dsn: str, owner: Client) -> None:
    key_id = await key_in(owner, "prod")
    moment = NOW - timedelta(days=34, hours=23)
    await report(owner, [event(key_id, "1", moment=moment)])

    async with serving(dsn, lambda: utc_now() + timedelta(days=10)) as aged:
        again = await aged.client(owner.secret)
        outcomes = await report(again, [event(key_id, "1", moment=moment), event(key_id, "2", moment=moment)])

    assert outcomes == [DUPLICATE, REJECTED]


async def test_usage_is_accepted_for_disabled_revoked_and_deleted_keys_and_in_a_disabled_workspace(
    owner: Client, root: Client
) -> None:
    disabled, revoked, deleted = [await key_in(owner, "prod") for _ in range(3)]
    await update(owner, key_pb2.Key(key_id=disabled, enabled=False))
    await revoke(owner, revoked)
    await owner.keys.DeleteKey(key_service_pb2.DeleteKeyRequest(key_id=deleted))
    workspace_id = (await get(owner, disabled)).workspace_id
    off = workspace_pb2.Workspace(workspace_id=workspace_id, enabled=False)
    await root.admin.UpdateWorkspace(admin_service_pb2.UpdateWorkspaceRequest(workspace=off))

    outcomes = await report(owner, [event(key_id, key_id) for key_id in (disabled, revoked, deleted)])

    assert outcomes == [NEW] * 3
    rows = (await query(owner, asking("KEY"))).rows
    flags = {row.group.key.key_id: (row.group.key.deleted, row.group.key.revoked) for row in rows}
    assert flags == {disabled: (False, False), revoked: (False, True), deleted: (True, False)}


async def test_usage_of_a_foreign_key_is_refused_like_that_of_an_unknown_one(service: Service, owner: Client) -> None:
    other = await service.workspace()
    key_id = await key_in(other, "prod")

    answer = await owner.usage.ReportUsage(usage_service_pb2.ReportUsageRequest(events=[event(key_id, "1")]))

    assert answer.results[0].reason == error_reason_pb2.ERROR_REASON_KEY_NOT_FOUND


async def test_the_same_events_from_many_callers_at_once_are_counted_once(owner: Client) -> None:
    keys = [await key_in(owner, label) for label in ("prod", "dev")]
    events = [event(keys[number % 2], str(number), cost=number) for number in range(60)]
    batches = [events[start:] + events[:start] for start in range(0, 60, 10)]

    outcomes = await asyncio.gather(*(report(owner, batch) for batch in batches))

    told = [outcome for batch in outcomes for outcome in batch]
    assert (told.count(NEW), told.count(DUPLICATE)) == (60, 300)
    totals = (await query(owner, asking())).totals
    assert (nanos(totals.spend), totals.requests) == (sum(range(60)), 60)


async def test_retagging_moves_the_whole_history_and_changes_no_total(owner: Client) -> None:
    moved, kept = await key_in(owner, "staging"), await key_in(owner, "prod")
    events = [event(moved, str(day), moment=NOW - timedelta(days=day)) for day in range(30)]
    await report(owner, [*events, event(kept, "x", cost=7)])
    before = await query(owner, asking("ENVIRONMENT"))

    await update(owner, key_pb2.Key(key_id=moved, environment="prod"))
    together = await query(owner, asking("ENVIRONMENT"))
    await update(owner, key_pb2.Key(key_id=moved, environment=""))
    cleared = await query(owner, asking("ENVIRONMENT"))

    def spent(answer: usage_service_pb2.QueryUsageResponse) -> dict[tuple[str, bool], int]:
        return {(row.group.environment, row.group.unlabeled): nanos(row.measures.spend) for row in answer.rows}

    assert spent(before) == {("staging", False): 30_000, ("prod", False): 7}
    assert spent(together) == {("prod", False): 30_007}
    assert spent(cleared) == {("", True): 30_000, ("prod", False): 7}
    assert before.totals == together.totals == cleared.totals


async def test_every_grouping_sums_to_the_total_and_to_the_listed_events(owner: Client) -> None:
    sent: list[Event] = []
    for number in range(40):
        key_id = await key_in(owner, f"env-{number % 3}") if number % 10 == 0 else sent[-1].key_id
        item = event(key_id, str(number), cost=number * 1_000_000_007, moment=NOW - timedelta(hours=number * 7))
        item.model, item.task, item.member = f"m{number % 4}", f"t{number % 2}", f"p{number % 5}"
        sent.append(item)
    await report(owner, sent)
    groupings = ("", "ENVIRONMENT", "KEY", "MODEL", "MEMBER", "TASK", "IDENTITY", "API", "ENVIRONMENT KEY MODEL TASK")

    answers = [await query(owner, asking(*grouping.split())) for grouping in groupings]
    listed = await owner.usage.ListUsageEvents(
        usage_service_pb2.ListUsageEventsRequest(start_time=asking().start_time, page_size=1000)
    )

    expected = sum(nanos(item.cost) for item in sent)
    assert sum(nanos(record.event.cost) for record in listed.events) == expected
    for answer in answers:
        assert nanos(answer.totals.spend) == expected
        assert sum(nanos(row.measures.spend) for row in answer.rows) == expected
        assert sum(row.measures.total_tokens for row in answer.rows) == answer.totals.total_tokens == 40 * 15


async def test_spend_adjustments_and_net_spend_are_told_apart(owner: Client) -> None:
    key_id = await key_in(owner, "prod")
    refund = Event(
        source="tests",
        event_id="r",
        key_id=key_id,
        type=usage_pb2.USAGE_TYPE_REFUND,
        cost=usd(-300),
        occurred_time=at(NOW),
    )
    adjustment = Event(
        source="tests",
        event_id="a",
        key_id=key_id,
        type=usage_pb2.USAGE_TYPE_ADJUSTMENT,
        cost=usd(50),
        occurred_time=at(NOW),
    )
    blocked = Event(
        source="tests", event_id="b", key_id=key_id, type=usage_pb2.USAGE_TYPE_BLOCKED, occurred_time=at(NOW)
    )
    await report(owner, [event(key_id, "c"), refund, adjustment, blocked])

    totals = (await query(owner, asking())).totals

    assert (nanos(totals.spend), nanos(totals.adjustments), nanos(totals.net_spend)) == (1_000, -250, 750)
    assert totals.requests == 1


async def test_an_empty_workspace_answers_zeros(owner: Client) -> None:
    answer = await query(owner, asking("ENVIRONMENT"))

    zero = usd(0)
    expected = usage_pb2.UsageMeasures(spend=zero, adjustments=zero, net_spend=zero)
    assert (list(answer.rows), answer.totals) == ([], expected)
    assert answer.HasField("as_of")


async def test_top_keeps_the_largest_and_sums_the_rest(owner: Client) -> None:
    events = []
    for number in range(1, 6):
        key_id = await key_in(owner, f"e{number}")
        events.append(event(key_id, str(number), cost=number))
    await report(owner, events)
    request = asking("ENVIRONMENT")
    request.top = 2

    answer = await query(owner, request)

    told = [(row.group.environment, row.other, nanos(row.measures.spend)) for row in answer.rows]
    assert told == [("e5", False, 5), ("e4", False, 4), ("", True, 6)]
    assert nanos(answer.totals.spend) == 15


async def test_filters_select_by_what_the_keys_carry_now(owner: Client) -> None:
    prod, plain = await key_in(owner, "prod"), await key_in(owner, "")
    await report(owner, [event(prod, "1", cost=1), event(plain, "2", cost=2)])

    async def spent(filter_: usage_pb2.UsageFilter) -> int:
        request = asking()
        request.filter.CopyFrom(filter_)
        return nanos((await query(owner, request)).totals.spend)

    labels = environment_pb2.EnvironmentFilter
    assert await spent(usage_pb2.UsageFilter(environments=labels(labels=["prod"]))) == 1
    assert await spent(usage_pb2.UsageFilter(environments=labels(unlabeled=True))) == 2
    assert await spent(usage_pb2.UsageFilter(environments=labels(labels=["prod"], unlabeled=True))) == 3
    assert await spent(usage_pb2.UsageFilter(key_ids=[plain])) == 2
    assert await spent(usage_pb2.UsageFilter(models=["none such"])) == 0


@pytest.mark.parametrize("zone", ["", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe"])
async def test_buckets_add_up_to_the_whole_in_every_zone(owner: Client, zone: str) -> None:
    key_id = await key_in(owner, "prod")
    await report(owner, [event(key_id, str(hour), moment=NOW - timedelta(hours=hour)) for hour in range(0, 800, 5)])

    for width in usage_pb2.BucketWidth.values()[1:]:
        request = asking()
        request.bucket_width, request.time_zone = usage_pb2.BucketWidth.ValueType(width), zone
        answer = await query(owner, request)
        assert sum(row.measures.requests for row in answer.rows) == answer.totals.requests == 160
        starts = [row.start_time.ToNanoseconds() for row in answer.rows]
        assert starts == sorted(set(starts))


async def test_pages_of_a_report_hold_every_row_once_and_the_same_totals(owner: Client) -> None:
    for number in range(5):
        await report(owner, [event(await key_in(owner, f"e{number}"), str(number), cost=number + 1)])
    request = asking("ENVIRONMENT")
    request.page_size = 2
    labels, totals = [], []
    while True:
        answer = await query(owner, request)
        labels += [row.group.environment for row in answer.rows]
        totals.append(nanos(answer.totals.spend))
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token

    assert labels == ["e4", "e3", "e2", "e1", "e0"]
    assert totals == [15, 15, 15]


async def test_events_are_listed_newest_first_with_their_defaults(owner: Client) -> None:
    key = key_pb2.Key(environment="prod", member="ann")
    key_id = (await owner.create_key(key)).key.key_id
    sent = [event(key_id, str(minute), moment=NOW - timedelta(minutes=minute)) for minute in range(5)]
    await report(owner, sent)

    request = usage_service_pb2.ListUsageEventsRequest(page_size=2)
    listed: list[Event] = []
    while True:
        answer = await owner.usage.ListUsageEvents(request)
        listed += [record.event for record in answer.events]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token

    assert [item.event_id for item in listed] == ["0", "1", "2", "3", "4"]
    assert {(item.member, item.requests) for item in listed} == {("ann", 1)}


async def test_the_member_is_stamped_at_ingestion(owner: Client) -> None:
    key_id = (await owner.create_key(key_pb2.Key(member="ann"))).key.key_id
    await report(owner, [event(key_id, "1")])
    await update(owner, key_pb2.Key(key_id=key_id, member="bob"))
    await report(owner, [event(key_id, "2")])

    rows = (await query(owner, asking("MEMBER"))).rows

    assert sorted(row.group.member for row in rows) == ["ann", "bob"]


async def test_spend_in_the_window_counts_against_the_cap_and_exhausts_the_key(owner: Client) -> None:
    cap = key_pb2.SpendLimit(amount=usd(1_000), reset_interval=key_pb2.SPEND_RESET_DAILY)
    key_id = (await owner.create_key(key_pb2.Key(spend_limit=cap))).key.key_id
    await report(owner, [event(key_id, "now", cost=1_500), event(key_id, "then", moment=TODAY - timedelta(hours=1))])

    key = await get(owner, key_id)

    assert (nanos(key.spend.spent), nanos(key.spend.remaining)) == (1_500, 0)
    assert key.status == key_pb2.KEY_STATUS_EXHAUSTED
    assert key.spend.window_end.ToDatetime(tzinfo=UTC) == TODAY + timedelta(days=1)


async def test_a_cap_without_reset_counts_the_whole_life(owner: Client) -> None:
    cap = key_pb2.SpendLimit(amount=usd(10_000))
    key_id = (await owner.create_key(key_pb2.Key(spend_limit=cap))).key.key_id
    await report(owner, [event(key_id, str(day), moment=NOW - timedelta(days=day)) for day in range(30)])

    assert nanos((await get(owner, key_id)).spend.spent) == 30_000


async def test_roll_ups_always_equal_the_rows(owner: Client, dsn: str) -> None:
    keys = [await key_in(owner, label) for label in ("prod", "dev")]
    refund = usage_pb2.USAGE_TYPE_REFUND
    for number in range(30):
        item = event(keys[number % 2], str(number), cost=number, moment=NOW - timedelta(hours=5 * number))
        back = Event(source="tests", event_id=f"r{number}", key_id=keys[0], type=refund, cost=usd(-number))
        back.occurred_time.CopyFrom(item.occurred_time)
        await report(owner, [item, back])

    assert await differences(dsn) == {}
    await maintain(dsn)
    assert await differences(dsn) == {}
