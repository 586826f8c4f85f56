"""Etags of what AdminService changes: an old one is aborted and changes nothing (spec §6)."""

import grpc
import pytest_asyncio

from latchkey.v1 import admin_service_pb2 as pb
from latchkey.v1 import api_pb2, identity_pb2, management_key_pb2
from tests.support.service import Client, rejection

OLD = "r0"


@pytest_asyncio.fixture
async def api(owner: Client) -> api_pb2.Api:
    return (await owner.admin.CreateApi(pb.CreateApiRequest(api=api_pb2.Api(name="first")))).api


@pytest_asyncio.fixture
async def identity(owner: Client) -> identity_pb2.Identity:
    wanted = identity_pb2.Identity(external_id="acme")
    request = pb.UpdateIdentityRequest(identity=wanted, allow_missing=True)
    return (await owner.admin.UpdateIdentity(request)).identity


@pytest_asyncio.fixture
async def developer(owner: Client) -> management_key_pb2.ManagementKey:
    return (await owner.create_management_key(management_key_pb2.ROLE_DEVELOPER)).management_key


def renamed(api: api_pb2.Api, etag: str) -> pb.UpdateApiRequest:
    return pb.UpdateApiRequest(api=api_pb2.Api(api_id=api.api_id, name="second"), etag=etag)


def tagged(identity: identity_pb2.Identity, etag: str) -> pb.UpdateIdentityRequest:
    changed = identity_pb2.Identity(identity_id=identity.identity_id)
    changed.metadata.update({"tier": 2})
    return pb.UpdateIdentityRequest(identity=changed, etag=etag)


def called(developer: management_key_pb2.ManagementKey, etag: str) -> pb.UpdateManagementKeyRequest:
    changed = management_key_pb2.ManagementKey(management_key_id=developer.management_key_id, name="second")
    return pb.UpdateManagementKeyRequest(management_key=changed, etag=etag)


async def test_an_api_is_changed_and_deleted_only_as_it_was_seen(owner: Client, api: api_pb2.Api) -> None:
    refused = [
        await rejection(owner.admin.UpdateApi(renamed(api, OLD))),
        await rejection(owner.admin.DeleteApi(pb.DeleteApiRequest(api_id=api.api_id, etag=OLD))),
    ]
    unchanged = (await owner.admin.GetApi(pb.GetApiRequest(api_id=api.api_id))).api
    changed = (await owner.admin.UpdateApi(renamed(api, api.etag))).api
    await owner.admin.DeleteApi(pb.DeleteApiRequest(api_id=api.api_id, etag=changed.etag))

    assert [(failed.code, failed.reason) for failed in refused] == [(grpc.StatusCode.ABORTED, "ETAG_MISMATCH")] * 2
    assert unchanged == api
    assert (changed.name, changed.etag != api.etag) == ("second", True)


async def test_an_identity_is_changed_and_deleted_only_as_it_was_seen(
    owner: Client, identity: identity_pb2.Identity
) -> None:
    named = identity.identity_id
    refused = [
        await rejection(owner.admin.UpdateIdentity(tagged(identity, OLD))),
        await rejection(owner.admin.DeleteIdentity(pb.DeleteIdentityRequest(identity_id=named, etag=OLD))),
    ]
    unchanged = (await owner.admin.GetIdentity(pb.GetIdentityRequest(identity_id=named))).identity
    changed = (await owner.admin.UpdateIdentity(tagged(identity, identity.etag))).identity
    await owner.admin.DeleteIdentity(pb.DeleteIdentityRequest(identity_id=named, etag=changed.etag))

    assert [failed.reason for failed in refused] == ["ETAG_MISMATCH"] * 2
    assert unchanged == identity
    assert changed.metadata["tier"] == 2


async def test_a_management_key_is_changed_only_as_it_was_seen(
    owner: Client, developer: management_key_pb2.ManagementKey
) -> None:
    failed = await rejection(owner.admin.UpdateManagementKey(called(developer, OLD)))
    changed = (await owner.admin.UpdateManagementKey(called(developer, developer.etag))).management_key

    assert (failed.code, failed.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert changed.name == "second"
