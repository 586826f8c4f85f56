"""A replayed request_id answers what the first call answered (spec §3)."""

import pytest
from google.protobuf.duration_pb2 import Duration

from latchkey.v1 import (
    admin_service_pb2,
    api_pb2,
    identity_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    ratelimit_pb2,
)
from tests.support.service import Client, Service, rejection


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
