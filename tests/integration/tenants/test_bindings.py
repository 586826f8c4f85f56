"""What callers that are bound to apis are told of others: nothing, in reports and in replays too (spec §6)."""

import pytest_asyncio

from latchkey.v1 import admin_service_pb2, api_pb2, management_key_pb2, usage_service_pb2
from tests.integration.outcomes.test_counts import asking as asking_verifications
from tests.integration.outcomes.test_counts import counted
from tests.integration.usage.test_usage import NOW as USED
from tests.integration.usage.test_usage import asking, at, event, report
from tests.support.service import Client, Service, rejection


@pytest_asyncio.fixture
async def other_api(owner: Client) -> str:
    made = await owner.admin.CreateApi(admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="other")))
    return made.api.api_id


async def bind(owner: Client, management_key_id: str, *api_ids: str) -> None:
    bound = management_key_pb2.ManagementKey(management_key_id=management_key_id, api_ids=api_ids)
    await owner.admin.UpdateManagementKey(admin_service_pb2.UpdateManagementKeyRequest(management_key=bound))


async def test_asking_for_another_api_than_the_callers_own_finds_nothing(
    owner: Client, service: Service, other_api: str
) -> None:
    made = await owner.create_key()
    await report(owner, [event(made.key.key_id, "1")])
    await owner.verify(made.secret)
    await counted(owner, 1)
    bound = await owner.create_management_key(management_key_pb2.ROLE_VIEWER, (other_api,))
    viewer = await service.client(bound.secret)
    foreign = [made.key.api_id]
    usage, verifications = asking("KEY"), asking_verifications("KEY")
    events = usage_service_pb2.ListUsageEventsRequest(start_time=at(USED.replace(hour=0)))
    for request in (usage, verifications, events):
        request.filter.api_ids.extend(foreign)

    assert not (await viewer.usage.QueryUsage(usage)).rows
    assert not (await viewer.usage.ListUsageEvents(events)).events
    told = await viewer.usage.QueryVerifications(verifications)
    assert (list(told.rows), told.total) == ([], 0)
    assert len((await owner.usage.ListUsageEvents(events)).events) == 1


async def test_a_replay_shows_no_api_that_the_caller_may_no_longer_see(
    owner: Client, service: Service, other_api: str
) -> None:
    made = await owner.create_management_key(management_key_pb2.ROLE_ADMIN)
    admin = await service.client(made.secret)
    request = admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="mine"), request_id="r1")
    api = (await admin.admin.CreateApi(request)).api
    renamed = admin_service_pb2.UpdateApiRequest(api=api, request_id="r2")
    await admin.admin.UpdateApi(renamed)
    await bind(owner, made.management_key.management_key_id, other_api)

    assert (await rejection(admin.admin.UpdateApi(renamed))).reason == "API_NOT_FOUND"
