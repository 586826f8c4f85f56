"""What begins or ends at an instant does so exactly then, by the server's clock (spec §3)."""

from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration

from latchkey.v1 import key_pb2, key_service_pb2, usage_pb2, usage_service_pb2, verify_service_pb2
from latchkey_server.storage.database import open_database
from latchkey_server.storage.usage.partitions import ensure_partitions
from tests.integration.keys.test_keys import NOT_FOUND, VALID, at, get, update, usd
from tests.support.clock import TICK, Hands, instant, owner_by
from tests.support.service import Client, rejection

NOW = instant("2026-05-30T12:34:56.789012")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FRESH = verify_service_pb2.VerifyRequest(max_staleness=Duration())
DAILY, MONTHLY = key_pb2.REFILL_INTERVAL_DAILY, key_pb2.REFILL_INTERVAL_MONTHLY


async def test_a_key_can_be_undeleted_until_30_days_after_its_deletion(dsn: str) -> None:
    clock = Hands(NOW)
    async with owner_by(dsn, clock) as owner:
        made = [(await owner.create_key()).key for _ in range(2)]
        for key in made:
            await owner.keys.DeleteKey(key_service_pb2.DeleteKeyRequest(key_id=key.key_id))
        asked = [key_service_pb2.UndeleteKeyRequest(key_id=key.key_id) for key in made]

        clock.now = NOW + 30 * DAY
        back = (await owner.keys.UndeleteKey(asked[0])).key
        clock.now += TICK
        refused = await rejection(owner.keys.UndeleteKey(asked[1]))

    assert (back.status, back.HasField("delete_time")) == (key_pb2.KEY_STATUS_ACTIVE, False)
    assert (refused.reason, dict(refused.info.metadata)) == ("UNDELETE_WINDOW_PASSED", {"key_id": made[1].key_id})


async def test_a_request_id_is_good_for_24_hours_and_may_then_be_used_for_another_request(dsn: str) -> None:
    clock = Hands(NOW)
    async with owner_by(dsn, clock) as owner:
        request = key_service_pb2.CreateKeyRequest(key=key_pb2.Key(name="first"), request_id="once")
        other = key_service_pb2.CreateKeyRequest(key=key_pb2.Key(name="second"), request_id="once")
        first = await owner.keys.CreateKey(request)

        clock.now = NOW + DAY - TICK
        again, refused = await owner.keys.CreateKey(request), await rejection(owner.keys.CreateKey(other))
        clock.now = NOW + DAY
        second = await owner.keys.CreateKey(other)
        clock.now += DAY - TICK
        replayed = await owner.keys.CreateKey(other)

    assert (again.key, again.revision, again.replayed, again.secret) == (first.key, first.revision, True, "")
    assert refused.reason == "REQUEST_ID_REUSED"
    assert (second.key.name, second.replayed, bool(second.secret)) == ("second", False, True)
    assert (replayed.key, replayed.revision, replayed.replayed) == (second.key, second.revision, True)


async def test_an_older_secret_is_accepted_until_the_grace_ends_and_not_at_its_end(dsn: str) -> None:
    clock = Hands(NOW)
    async with owner_by(dsn, clock) as owner:
        made = await owner.create_key()
        rotate = key_service_pb2.RotateKeyRequest(key_id=made.key.key_id, grace=Duration(seconds=3_600))
        rotated = await owner.keys.RotateKey(rotate)

        clock.now = NOW + HOUR - TICK
        before = [(await owner.verify(secret, FRESH)).code for secret in (made.secret, rotated.secret)]
        clock.now = NOW + HOUR
        after = [(await owner.verify(secret, FRESH)).code for secret in (made.secret, rotated.secret)]

    ends = [secret.end_time if secret.HasField("end_time") else None for secret in rotated.key.secrets]
    assert ends == [None, at(NOW + HOUR)]
    assert (before, after) == ([VALID, VALID], [NOT_FOUND, VALID])


async def test_without_a_grace_a_clock_that_is_set_back_revives_no_secret(dsn: str) -> None:
    clock = Hands(NOW)
    async with owner_by(dsn, clock) as owner:
        made = await owner.create_key()
        await owner.keys.RotateKey(key_service_pb2.RotateKeyRequest(key_id=made.key.key_id))

        clock.now = NOW - HOUR
        answer = await owner.verify(made.secret, FRESH)

    assert (answer.code, answer.HasField("key")) == (NOT_FOUND, False)


async def test_a_second_rotation_ends_each_older_secret_at_the_earlier_of_its_two_ends(dsn: str) -> None:
    clock = Hands(NOW)
    async with owner_by(dsn, clock) as owner:
        key_id = (await owner.create_key()).key.key_id
        ask = key_service_pb2.RotateKeyRequest
        await owner.keys.RotateKey(ask(key_id=key_id, grace=Duration(seconds=3_600)))
        clock.now = NOW + HOUR / 2
        longer = (await owner.keys.RotateKey(ask(key_id=key_id, grace=Duration(seconds=7_200)))).key
        shorter = (await owner.keys.RotateKey(ask(key_id=key_id, grace=Duration(seconds=60)))).key

    def ends(key: key_pb2.Key) -> list[datetime]:
        return [secret.end_time.ToDatetime(NOW.tzinfo) for secret in key.secrets[1:]]

    assert ends(longer) == [clock.now + 2 * HOUR, NOW + HOUR]
    assert ends(shorter) == [clock.now + timedelta(minutes=1)] * 3


async def test_statuses_follow_the_clock_in_get_and_in_lists(dsn: str) -> None:
    clock = Hands(NOW)
    begin, end = NOW + HOUR, NOW + 2 * HOUR
    instants = [begin - TICK, begin, end - TICK, end]
    async with owner_by(dsn, clock) as owner:
        key_id = (await owner.create_key(key_pb2.Key(not_before_time=at(begin), expire_time=at(end)))).key.key_id
        told, listed = [], []
        for clock.now in instants:
            told.append((await get(owner, key_id)).status)
            listed.append(await _statuses_that_find(owner, key_id))

    pending, active, expired = (
        key_pb2.KEY_STATUS_NOT_YET_VALID,
        key_pb2.KEY_STATUS_ACTIVE,
        key_pb2.KEY_STATUS_EXPIRED,
    )
    assert told == [pending, active, active, expired]
    assert listed == [[status] for status in told]


async def _statuses_that_find(owner: Client, key_id: str) -> list[key_pb2.KeyStatus.ValueType]:
    found = []
    for status in key_pb2.KeyStatus.values()[1:]:
        request = key_service_pb2.ListKeysRequest(statuses=[status], show_deleted=True)
        if key_id in {key.key_id for key in (await owner.keys.ListKeys(request)).keys}:
            found.append(status)
    return found


async def test_keys_that_expire_before_an_instant_are_not_those_that_expire_then_or_never(dsn: str) -> None:
    async with owner_by(dsn, Hands(NOW)) as owner:
        sooner = (await owner.create_key(key_pb2.Key(expire_time=at(NOW - TICK)))).key
        for key in (key_pb2.Key(expire_time=at(NOW)), key_pb2.Key()):
            await owner.create_key(key)

        request = key_service_pb2.ListKeysRequest(expire_before_time=at(NOW))
        listed = list((await owner.keys.ListKeys(request)).keys)

    assert listed == [sooner]


async def test_a_refill_revives_an_exhausted_key_at_its_midnight_in_utc_and_once(dsn: str) -> None:
    refills = [
        (key_pb2.CreditRefill(interval=DAILY, amount=10), "2026-05-31", "2026-06-01"),
        (key_pb2.CreditRefill(interval=MONTHLY, amount=10), "2026-12-01", "2027-01-01"),
        (key_pb2.CreditRefill(interval=MONTHLY, amount=10, day_of_month=29), "2027-02-28", "2027-03-29"),
        (key_pb2.CreditRefill(interval=MONTHLY, amount=10, day_of_month=31), "2028-02-29", "2028-03-31"),
    ]
    clock = Hands(NOW)
    async with owner_by(dsn, clock) as owner:
        for refill, due, following in refills:
            await _check_refill(owner, clock, refill, instant(due), instant(following))


async def _check_refill(
    owner: Client, clock: Hands, refill: key_pb2.CreditRefill, due: datetime, following: datetime
) -> None:
    clock.now = due - HOUR
    key_id = (await owner.create_key(key_pb2.Key(credits=key_pb2.Credits(amount=0, refill=refill)))).key.key_id
    clock.now = due - TICK
    before = await get(owner, key_id)
    clock.now = due
    after = await get(owner, key_id)
    ask = key_service_pb2.AdjustCreditsRequest
    added = (await owner.keys.AdjustCredits(ask(key_id=key_id, add=5))).balance
    await owner.keys.AdjustCredits(ask(key_id=key_id, set=2))
    clock.now = following - TICK
    spent = await get(owner, key_id)

    def balance(remaining: int, refill_time: datetime) -> key_pb2.CreditBalance:
        return key_pb2.CreditBalance(remaining=remaining, next_refill_time=at(refill_time))

    assert (before.status, before.credit_balance) == (key_pb2.KEY_STATUS_EXHAUSTED, balance(0, due))
    assert (after.status, after.credit_balance) == (key_pb2.KEY_STATUS_ACTIVE, balance(10, following))
    assert added == balance(15, following)
    assert spent.credit_balance == balance(2, following)


async def test_adjusting_credits_moves_neither_the_revision_nor_the_etag_nor_the_update_time(dsn: str) -> None:
    clock = Hands(NOW)
    async with owner_by(dsn, clock) as owner:
        made = await owner.create_key(key_pb2.Key(credits=key_pb2.Credits(amount=5)))
        clock.now = NOW + HOUR
        await owner.keys.AdjustCredits(key_service_pb2.AdjustCreditsRequest(key_id=made.key.key_id, add=2))
        read = await get(owner, made.key.key_id)
        following = await owner.create_key()

    made.key.credit_balance.remaining = 7
    assert read == made.key
    assert following.revision.number == made.revision.number + 1


async def test_a_cap_begins_anew_at_the_midnight_that_ends_a_day_a_week_and_a_month(dsn: str) -> None:
    midnight = instant("2026-06-01")
    resets = {
        key_pb2.SPEND_RESET_DAILY: instant("2026-06-02"),
        key_pb2.SPEND_RESET_WEEKLY: instant("2026-06-08"),
        key_pb2.SPEND_RESET_MONTHLY: instant("2026-07-01"),
        key_pb2.SPEND_RESET_NONE: None,
    }
    clock = Hands(midnight - TICK)
    async with open_database(dsn, pool_size=1, timeout=30) as database, database.connection() as upkeep:
        await ensure_partitions(upkeep, clock.now, timedelta(days=35))
    async with owner_by(dsn, clock) as owner:
        for reset in resets:
            limit = key_pb2.SpendLimit(amount=usd(3), reset_interval=reset)
            await owner.create_key(key_pb2.Key(spend_limit=limit))
        before = await _spent(owner, "in-time", clock.now)
        clock.now = midnight
        after = await _spent(owner, "late", midnight - TICK)
        new = await _spent(owner, "new", midnight)

    def state(spent: int, remaining: int, end: datetime | None) -> key_pb2.SpendState:
        window_end = None if end is None else at(end)
        return key_pb2.SpendState(
            limit=usd(3), spent=usd(spent), reserved=usd(0), remaining=usd(remaining), window_end=window_end
        )

    ends = list(resets.values())[:3]
    active, exhausted = key_pb2.KEY_STATUS_ACTIVE, key_pb2.KEY_STATUS_EXHAUSTED
    assert before == [*[(active, state(2, 1, midnight))] * 3, (active, state(2, 1, None))]
    assert after == [*[(active, state(0, 3, end)) for end in ends], (exhausted, state(4, 0, None))]
    assert new == [*[(active, state(2, 1, end)) for end in ends], (exhausted, state(6, 0, None))]


async def _spent(owner: Client, event_id: str, occurred: datetime) -> list[tuple[int, key_pb2.SpendState]]:
    """Report an event of 2 dollars for each key and return their statuses and caps, in the order of their making."""
    keys = (await owner.keys.ListKeys(key_service_pb2.ListKeysRequest())).keys
    events = [
        usage_pb2.UsageEvent(
            source=key.key_id,
            event_id=event_id,
            key_id=key.key_id,
            type=usage_pb2.USAGE_TYPE_CONSUME,
            cost=usd(2),
            occurred_time=at(occurred),
        )
        for key in keys
    ]
    answer = await owner.usage.ReportUsage(usage_service_pb2.ReportUsageRequest(events=events))
    assert [result.outcome for result in answer.results] == [usage_service_pb2.USAGE_OUTCOME_NEW] * len(keys)
    listed = (await owner.keys.ListKeys(key_service_pb2.ListKeysRequest())).keys
    return [(key.status, key.spend) for key in reversed(listed)]


async def test_a_change_that_is_made_later_is_told_by_update_time_and_a_new_etag(dsn: str) -> None:
    clock = Hands(NOW)
    async with owner_by(dsn, clock) as owner:
        made = (await owner.create_key(key_pb2.Key(name="old"))).key
        clock.now = NOW + HOUR
        changed = (await update(owner, key_pb2.Key(key_id=made.key_id, name="new"))).key

    assert changed.etag != made.etag
    made.name, made.etag = "new", changed.etag
    made.update_time.CopyFrom(at(NOW + HOUR))
    assert changed == made
