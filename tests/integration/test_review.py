"""Faults that a review found, each held here for good."""

import asyncio
import hashlib
from datetime import timedelta

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr

from latchkey.v1 import (
    admin_service_pb2,
    api_pb2,
    environment_pb2,
    identity_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    ratelimit_pb2,
    usage_pb2,
    usage_service_pb2,
    workspace_pb2,
)
from latchkey_server.domain.secret import MANAGEMENT_PREFIX, new_secret
from latchkey_server.opening import utc_now
from tests.integration.test_keys import update
from tests.integration.test_usage import NEW, REJECTED, event, nanos, report
from tests.support.matrix_calls import call
from tests.support.matrix_world import own_workspace, today
from tests.support.service import PEPPERS, Client, Service, rejection, serving, settings_for
from tests.support.upkeep import differences

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


@pytest.mark.parametrize("entries", [60, 256, 100_000])
async def test_many_violations_are_told_in_a_trailer_that_clients_take(owner: Client, entries: int) -> None:
    failed = await rejection(owner.create_key(key_pb2.Key(allow_ips=["not an address at all"] * entries)))

    assert (failed.code, failed.reason) == INVALID
    assert 0 < len(failed.fields) <= 16


async def test_many_wrong_paths_of_a_mask_are_told_too(owner: Client) -> None:
    key_id = (await owner.create_key()).key.key_id
    mask = FieldMask(paths=[f"wrong_{number}_{'x' * 200}" for number in range(40)])
    request = key_service_pb2.UpdateKeyRequest(key=key_pb2.Key(key_id=key_id), update_mask=mask)

    failed = await rejection(owner.keys.UpdateKey(request))

    assert (failed.code, failed.reason) == INVALID


async def test_an_over_long_name_is_echoed_in_part_only(owner: Client) -> None:
    request = admin_service_pb2.GetIdentityRequest(external_id="x" * 20_000)

    failed = await rejection(owner.admin.GetIdentity(request))

    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "IDENTITY_NOT_FOUND")


async def test_an_owner_that_will_expire_is_not_the_lasting_one(owner: Client, service: Service) -> None:
    listed = await owner.admin.ListManagementKeys(admin_service_pb2.ListManagementKeysRequest())
    first = listed.management_keys[0].management_key_id
    end = Timestamp()
    end.FromSeconds(int(utc_now().timestamp()) + 3600)
    wanted = management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_OWNER, expire_time=end)
    made = await owner.admin.CreateManagementKey(admin_service_pb2.CreateManagementKeyRequest(management_key=wanted))
    expiring = await service.client(made.secret)

    failed = await rejection(
        expiring.admin.RevokeManagementKey(
            admin_service_pb2.RevokeManagementKeyRequest(
                management_key_id=first, reason=key_pb2.REVOKE_REASON_NO_LONGER_USED
            )
        )
    )

    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_OWNER")


async def test_a_replay_shows_nothing_that_the_caller_may_no_longer_see(owner: Client, service: Service) -> None:
    api = (await owner.admin.CreateApi(admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="other")))).api
    developer = await owner.create_management_key(management_key_pb2.ROLE_DEVELOPER)
    caller = await service.client(developer.secret)
    request = key_service_pb2.CreateKeyRequest(request_id="r1")
    await caller.keys.CreateKey(request)
    bound = management_key_pb2.ManagementKey(
        management_key_id=developer.management_key.management_key_id, api_ids=[api.api_id]
    )
    await owner.admin.UpdateManagementKey(admin_service_pb2.UpdateManagementKeyRequest(management_key=bound))

    failed = await rejection(caller.keys.CreateKey(request))

    assert failed.reason == "KEY_NOT_FOUND"


@pytest.mark.parametrize("path", ["enabled", "model_limits.enabled"])
async def test_a_mask_does_not_switch_a_key_by_what_was_not_sent(owner: Client, path: str) -> None:
    limits = key_pb2.ModelLimits(enabled=True, models=["small"])
    made = (await owner.create_key(key_pb2.Key(enabled=False, model_limits=limits))).key

    failed = await rejection(update(owner, key_pb2.Key(key_id=made.key_id), "name", path))
    limits_only = key_pb2.Key(key_id=made.key_id, model_limits=limits)
    starred = (await update(owner, limits_only, "*")).key

    assert (failed.code, failed.reason, failed.fields) == (*INVALID, [f"key.{path}"])
    assert (starred.enabled, starred.model_limits) == (False, limits)


async def test_a_mask_does_not_enable_a_workspace_by_what_was_not_sent(owner: Client, root: Client) -> None:
    wanted = await own_workspace(owner)
    wanted.enabled = False
    await root.admin.UpdateWorkspace(
        admin_service_pb2.UpdateWorkspaceRequest(workspace=wanted, update_mask=FieldMask(paths=["enabled"]))
    )
    wanted.ClearField("enabled")
    request = admin_service_pb2.UpdateWorkspaceRequest(workspace=wanted, update_mask=FieldMask(paths=["enabled"]))

    failed = await rejection(root.admin.UpdateWorkspace(request))
    request.update_mask.paths[:] = ["*"]
    starred = (await root.admin.UpdateWorkspace(request)).workspace

    assert (failed.code, failed.reason, failed.fields) == (*INVALID, ["workspace.enabled"])
    assert not starred.enabled


MANY = 50_000


JUNK = ["junk\0"] * MANY


def asking() -> usage_service_pb2.QueryUsageRequest:
    start, end = today()
    return usage_service_pb2.QueryUsageRequest(start_time=start, end_time=end)


def filtered(name: str) -> Message:
    request = asking()
    getattr(request.filter, name).extend(JUNK)
    return request


def creating(key: key_pb2.Key) -> Message:
    return key_service_pb2.CreateKeyRequest(key=key)


def too_long() -> dict[str, Message]:
    """Return a request of each list, by the name under which too many entries are refused."""
    grouped = asking()
    grouped.group_by.extend([usage_pb2.UsageDimension.ValueType(99)] * MANY)
    labels = environment_pb2.EnvironmentFilter(labels=JUNK)
    wrong_window = ratelimit_pb2.RateLimit(window=Duration(nanos=-1))
    bound = management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_VIEWER, api_ids=JUNK)
    return {
        "statuses": key_service_pb2.ListKeysRequest(statuses=[key_pb2.KeyStatus.ValueType(99)] * MANY),
        "environments.labels": key_service_pb2.ListKeysRequest(environments=labels),
        "event_types": usage_service_pb2.ListUsageEventsRequest(event_types=[usage_pb2.UsageType.ValueType(99)] * MANY),
        "group_by": grouped,
        **{
            f"filter.{name}": filtered(name)
            for name in ("models", "members", "tasks", "external_ids", "key_ids", "api_ids")
        },
        "key.allow_ips": creating(key_pb2.Key(allow_ips=JUNK)),
        "key.scopes": creating(key_pb2.Key(scopes=JUNK)),
        "key.model_limits.models": creating(key_pb2.Key(model_limits=key_pb2.ModelLimits(models=JUNK))),
        "key.ratelimits": creating(key_pb2.Key(ratelimits=[wrong_window] * MANY)),
        "management_key.api_ids": admin_service_pb2.CreateManagementKeyRequest(management_key=bound),
        "update_mask": admin_service_pb2.UpdateWorkspaceRequest(update_mask=FieldMask(paths=JUNK)),
    }


@pytest.mark.parametrize("field", sorted(too_long()))
async def test_a_list_is_counted_before_it_is_read(owner: Client, field: str) -> None:
    refused = (await call(owner.channel, too_long()[field])).refusal

    assert refused is not None
    assert (refused.code, refused.reason, refused.fields) == (*INVALID, [field])


@pytest.mark.parametrize(
    ("reader", "request_", "field"),
    [
        (
            "key_servicer._read_item",
            key_service_pb2.ImportKeysRequest(items=[key_service_pb2.ImportKeyItem()] * 1_001),
            "items",
        ),
        (
            "usage_servicer.read_event",
            usage_service_pb2.ReportUsageRequest(events=[usage_pb2.UsageEvent()] * 1_001),
            "events",
        ),
    ],
)
async def test_items_are_counted_before_they_are_read(
    owner: Client, monkeypatch: pytest.MonkeyPatch, reader: str, request_: Message, field: str
) -> None:
    read: list[object] = []
    monkeypatch.setattr(f"latchkey_server.transport.{reader}", read.append)

    refused = (await call(owner.channel, request_)).refusal

    assert refused is not None
    assert (refused.code, refused.reason, refused.fields, read) == (*INVALID, [field], [])


async def make_large_events(owner: Client, service: Service, value: int, *columns: str) -> None:
    """Record three events and give them a number that no event may have any more."""
    key_id = (await owner.create_key()).key.key_id
    now = utc_now()
    moments = [now - timedelta(minutes=20 * number) for number in range(3)]
    await report(owner, [event(key_id, f"large-{at}", moment=moment) for at, moment in enumerate(moments)])
    connection = await asyncpg.connect(service.dsn)
    await connection.execute(f"UPDATE usage_event SET {', '.join(f'{column} = $1' for column in columns)}", value)
    await connection.close()
    assert await differences(service.dsn, write=True)


@pytest.mark.parametrize(
    ("column", "measure"),
    [
        ("requests", "requests"),
        ("input_tokens", "input_tokens"),
        ("output_tokens", "output_tokens"),
        ("cached_tokens", "cached_tokens"),
    ],
)
async def test_a_sum_beyond_int64_is_out_of_range_and_says_what_to_do(
    owner: Client, service: Service, column: str, measure: str
) -> None:
    await make_large_events(owner, service, 2**62, column)

    failed = await rejection(owner.usage.QueryUsage(asking()))

    assert (failed.code, failed.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SUM_OUT_OF_RANGE")
    assert failed.info.metadata["measure"] == measure


async def test_total_tokens_beyond_int64_are_out_of_range_too(owner: Client, service: Service) -> None:
    await make_large_events(owner, service, 2**61, "input_tokens", "output_tokens")

    failed = await rejection(owner.usage.QueryUsage(asking()))

    assert failed.info.metadata["measure"] == "total_tokens"


async def test_a_sum_of_money_does_not_end_at_int64_nano_dollars(owner: Client, service: Service) -> None:
    await make_large_events(owner, service, 2**62, "cost_nanos")

    totals = (await owner.usage.QueryUsage(asking())).totals

    assert nanos(totals.spend) == 3 * 2**62


@pytest.mark.parametrize("name", ["requests", "input_tokens", "output_tokens"])
async def test_an_event_holds_at_most_a_thousand_million_of_a_count(owner: Client, name: str) -> None:
    key_id = (await owner.create_key()).key.key_id
    most, more = event(key_id, "most"), event(key_id, "more")
    setattr(most, name, 1_000_000_000)
    setattr(more, name, 1_000_000_001)

    assert await report(owner, [most, more]) == [NEW, REJECTED]


async def test_a_replay_answers_the_api_that_the_first_call_made_though_it_is_gone(owner: Client) -> None:
    request = admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="short-lived"), request_id="r1")
    made = await owner.admin.CreateApi(request)
    renamed = admin_service_pb2.UpdateApiRequest(api=made.api, request_id="r2")
    renamed.api.name = "renamed"
    changed = await owner.admin.UpdateApi(renamed)
    await owner.admin.DeleteApi(admin_service_pb2.DeleteApiRequest(api_id=made.api.api_id))

    assert await owner.admin.CreateApi(request) == made
    assert await owner.admin.UpdateApi(renamed) == changed
    assert (made.api.name, changed.api.name) == ("short-lived", "renamed")


async def test_a_replay_answers_the_identity_that_the_first_call_made_though_it_is_gone(owner: Client) -> None:
    wanted = identity_pb2.Identity(
        external_id="acme",
        ratelimits=[ratelimit_pb2.RateLimit(name="burst", limit=5, window=Duration(seconds=60), auto_apply=True)],
    )
    wanted.metadata.update({"tier": 3, "nested": {"list": [1, None, True, 2.5]}})
    request = admin_service_pb2.UpdateIdentityRequest(identity=wanted, allow_missing=True, request_id="r1")
    made = await owner.admin.UpdateIdentity(request)
    named = admin_service_pb2.DeleteIdentityRequest(identity_id=made.identity.identity_id)
    await owner.admin.DeleteIdentity(named)

    assert await owner.admin.UpdateIdentity(request) == made
    assert (made.identity.metadata, made.identity.ratelimits[0].limit) == (wanted.metadata, 5)


@pytest.mark.parametrize("refill", [None, key_pb2.CreditRefill(interval=key_pb2.REFILL_INTERVAL_DAILY, amount=1)])
async def test_a_replayed_adjustment_answers_the_balance_of_its_day(
    owner: Client, refill: key_pb2.CreditRefill | None
) -> None:
    key_id = (await owner.create_key(key_pb2.Key(credits=key_pb2.Credits(amount=10, refill=refill)))).key.key_id
    request = key_service_pb2.AdjustCreditsRequest(key_id=key_id, add=5, request_id="r1")
    first = await owner.keys.AdjustCredits(request)
    await owner.keys.AdjustCredits(key_service_pb2.AdjustCreditsRequest(key_id=key_id, set=2))

    again = await owner.keys.AdjustCredits(request)
    await owner.keys.DeleteKey(key_service_pb2.DeleteKeyRequest(key_id=key_id))

    assert first.balance.remaining == 15
    assert first.balance.HasField("next_refill_time") == (refill is not None)
    assert again == first
    assert await owner.keys.AdjustCredits(request) == first


async def test_a_replayed_adjustment_shows_nothing_that_the_caller_may_no_longer_see(
    owner: Client, service: Service
) -> None:
    api = (await owner.admin.CreateApi(admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="other")))).api
    developer = await owner.create_management_key(management_key_pb2.ROLE_DEVELOPER)
    caller = await service.client(developer.secret)
    key_id = (await owner.create_key(key_pb2.Key(credits=key_pb2.Credits(amount=10)))).key.key_id
    request = key_service_pb2.AdjustCreditsRequest(key_id=key_id, add=5, request_id="r1")
    await caller.keys.AdjustCredits(request)
    bound = management_key_pb2.ManagementKey(
        management_key_id=developer.management_key.management_key_id, api_ids=[api.api_id]
    )
    await owner.admin.UpdateManagementKey(admin_service_pb2.UpdateManagementKeyRequest(management_key=bound))

    failed = await rejection(caller.keys.AdjustCredits(request))

    assert failed.reason == "KEY_NOT_FOUND"


async def test_the_first_wrong_field_is_told_beside_the_reason(owner: Client) -> None:
    failed = await rejection(owner.create_key(key_pb2.Key(name="x" * 129, prefix="-")))

    told = {"field": "key.name", "problem": "must be at most 128 code points"}
    assert (dict(failed.info.metadata), failed.fields) == (told, ["key.name", "key.prefix"])


async def test_keys_made_at_once_are_listed_in_the_order_of_their_making(owner: Client) -> None:
    items = [key_service_pb2.ImportKeyItem(secret_sha256=bytes([number]) * 32) for number in range(100)]
    made = (await owner.keys.ImportKeys(key_service_pb2.ImportKeysRequest(items=items))).results

    listed = (await owner.keys.ListKeys(key_service_pb2.ListKeysRequest(page_size=100))).keys

    assert [key.key_id for key in listed] == [result.key_id for result in reversed(made)]


ROUNDS, ITEMS = 6, 200


async def test_two_servers_that_change_peppers_import_no_secret_twice(dsn: str) -> None:
    old, new = PEPPERS, "next:YW5vdGhlciB0ZXN0IHBlcHBlciwgbm90IHNlY3JldA=="
    settings = [
        settings_for(dsn).model_copy(update={"peppers": SecretStr(peppers)})
        for peppers in (f"{old},{new}", f"{new},{old}")
    ]
    async with serving(dsn, settings=settings[0]) as first, serving(dsn, settings=settings[1]) as second:
        second.root_secret = first.root_secret
        owners = [await first.workspace(), await second.workspace()]
        for round_ in range(ROUNDS):
            digests = [hashlib.sha256(bytes([round_, number])).digest() for number in range(ITEMS)]
            items = [key_service_pb2.ImportKeyItem(secret_sha256=digest) for digest in digests]
            forwards = key_service_pb2.ImportKeysRequest(items=items)
            backwards = key_service_pb2.ImportKeysRequest(items=items[::-1])

            one, other = await asyncio.gather(owners[0].keys.ImportKeys(forwards), owners[1].keys.ImportKeys(backwards))

            made = [
                [mine.HasField("error"), theirs.HasField("error")]
                for mine, theirs in zip(one.results, other.results[::-1], strict=True)
            ]
            assert all(sorted(pair) == [False, True] for pair in made)


@pytest.mark.parametrize("sent", ["junk", "lkm_" + "A" * 38])
async def test_a_junk_credential_is_refused_without_a_query(service: Service, dsn: str, sent: str) -> None:
    unknown = new_secret(MANAGEMENT_PREFIX)
    connection = await asyncpg.connect(dsn)
    # Whoever looks for a secret fails from here on.
    await connection.execute("ALTER TABLE secret_hash RENAME TO hidden")
    await connection.close()
    channel = (await service.anonymous()).channel

    junk = await call(channel, key_service_pb2.GetKeyRequest(), secret=sent)
    looked_up = await call(channel, key_service_pb2.GetKeyRequest(), secret=unknown)

    assert (junk.outcome, looked_up.outcome) == ("CREDENTIAL_INVALID", "INTERNAL")


async def test_what_can_not_be_read_and_what_breaks_a_rule_is_told_in_one_answer(owner: Client, root: Client) -> None:
    unread = ratelimit_pb2.RateLimit(name="burst", limit=0, window=Duration(nanos=-1_000_000_000))
    key_id = (await owner.create_key()).key.key_id
    wrong_identity = identity_pb2.Identity(external_id="x" * 256, ratelimits=[unread])
    settings = workspace_pb2.WorkspaceSettings(default_prefix="-", max_cacheable_for=Duration(nanos=-1_000_000_000))
    unknown_role = management_key_pb2.Role.ValueType(99)
    answers = [
        await call(channel, request)
        for channel, request in (
            (
                owner.channel,
                key_service_pb2.UpdateKeyRequest(key=key_pb2.Key(key_id=key_id, name="x" * 129, ratelimits=[unread])),
            ),
            (
                owner.channel,
                admin_service_pb2.UpdateIdentityRequest(identity=wrong_identity, allow_missing=True),
            ),
            (
                root.channel,
                admin_service_pb2.CreateWorkspaceRequest(
                    workspace=workspace_pb2.Workspace(name="x" * 129, settings=settings)
                ),
            ),
            (
                owner.channel,
                admin_service_pb2.CreateManagementKeyRequest(
                    management_key=management_key_pb2.ManagementKey(name="x" * 129, role=unknown_role, api_ids=["?"])
                ),
            ),
        )
    ]

    assert [sorted(answer.refusal.fields) if answer.refusal else [] for answer in answers] == [
        ["key.name", "key.ratelimits[0].limit", "key.ratelimits[0].window"],
        [
            "identity.external_id",
            "identity.ratelimits[0].limit",
            "identity.ratelimits[0].window",
        ],
        ["workspace.name", "workspace.settings.default_prefix", "workspace.settings.max_cacheable_for"],
        ["management_key.api_ids[0]", "management_key.name", "management_key.role"],
    ]


async def test_a_tenant_learns_of_a_root_owner_its_id_and_nothing_more(service: Service, root: Client) -> None:
    acting = management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_OWNER, member="ann@operator")
    made = await root.admin.CreateManagementKey(admin_service_pb2.CreateManagementKeyRequest(management_key=acting))
    operator, operator_id = await service.client(made.secret), made.management_key.management_key_id
    tenant_made = await operator.admin.CreateWorkspace(admin_service_pb2.CreateWorkspaceRequest())
    tenant = await service.client(tenant_made.owner_secret)
    for enabled in (False, True):
        changed = workspace_pb2.Workspace(workspace_id=tenant_made.workspace.workspace_id, enabled=enabled)
        await operator.admin.UpdateWorkspace(admin_service_pb2.UpdateWorkspaceRequest(workspace=changed))
    await tenant.create_key()

    request = admin_service_pb2.ListAuditEventsRequest()
    told = (await tenant.admin.ListAuditEvents(request)).audit_events
    request.actor_id = operator_id
    kept = (await root.admin.ListAuditEvents(request)).audit_events

    own, *foreign = [(event.actor_id, event.actor_member, bool(event.peer)) for event in told]
    assert own == (tenant_made.owner.management_key_id, "", True)
    assert foreign == [(operator_id, "", False)] * 4
    assert [event.action for event in kept] == ["workspace.update", "workspace.update", "workspace.create"]
    assert {(event.actor_member, bool(event.peer)) for event in kept} == {("ann@operator", True)}
