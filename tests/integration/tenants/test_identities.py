"""Identities: the end customers that keys belong to (spec §1, §6)."""

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from latchkey.v1 import admin_service_pb2, api_pb2, identity_pb2, key_pb2, management_key_pb2
from tests.support.service import Client, rejection


def acme(**metadata: float) -> identity_pb2.Identity:
    identity = identity_pb2.Identity(external_id="acme")
    identity.metadata.update(metadata)
    return identity


async def test_a_missing_identity_is_made_with_all_that_was_sent_whatever_the_mask(owner: Client) -> None:
    request = admin_service_pb2.UpdateIdentityRequest(
        identity=acme(tier=3), update_mask=FieldMask(paths=["ratelimits"]), allow_missing=True
    )

    made = (await owner.admin.UpdateIdentity(request)).identity

    assert made.metadata["tier"] == 3


async def test_a_missing_identity_is_not_found_unless_it_may_be_made(owner: Client) -> None:
    failed = await rejection(owner.admin.UpdateIdentity(admin_service_pb2.UpdateIdentityRequest(identity=acme())))

    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "IDENTITY_NOT_FOUND")


async def test_an_identity_with_keys_can_not_be_deleted(owner: Client) -> None:
    used = (await owner.create_key(key_pb2.Key(external_id="used"))).key.identity_id
    request = admin_service_pb2.UpdateIdentityRequest(identity=acme(), allow_missing=True)
    unused = (await owner.admin.UpdateIdentity(request)).identity.identity_id

    failed = await rejection(owner.admin.DeleteIdentity(admin_service_pb2.DeleteIdentityRequest(identity_id=used)))
    await owner.admin.DeleteIdentity(admin_service_pb2.DeleteIdentityRequest(identity_id=unused))

    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IDENTITY_IN_USE")
    listed = await owner.admin.ListIdentities(admin_service_pb2.ListIdentitiesRequest())
    assert [identity.identity_id for identity in listed.identities] == [used]


async def test_a_management_key_bound_to_a_deleted_api_can_still_be_renamed(owner: Client) -> None:
    api = (await owner.admin.CreateApi(admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="gone")))).api
    bound = (await owner.create_management_key(management_key_pb2.ROLE_VERIFIER, (api.api_id,))).management_key
    await owner.admin.DeleteApi(admin_service_pb2.DeleteApiRequest(api_id=api.api_id))

    sent = management_key_pb2.ManagementKey(management_key_id=bound.management_key_id, name="renamed")
    renamed = await owner.admin.UpdateManagementKey(admin_service_pb2.UpdateManagementKeyRequest(management_key=sent))

    assert (renamed.management_key.name, list(renamed.management_key.api_ids)) == ("renamed", [api.api_id])
