"""What is wrong with a request is reported, field by field, within what a trailer holds (spec §7)."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from latchkey.v1 import (
    admin_service_pb2,
    identity_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    ratelimit_pb2,
    workspace_pb2,
)
from tests.support.matrix_calls import call
from tests.support.service import Client, rejection

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


async def test_the_first_wrong_field_is_told_beside_the_reason(owner: Client) -> None:
    failed = await rejection(owner.create_key(key_pb2.Key(name="x" * 129, prefix="-")))

    told = {"field": "key.name", "problem": "must be at most 128 code points"}
    assert (dict(failed.info.metadata), failed.fields) == (told, ["key.name", "key.prefix"])


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
