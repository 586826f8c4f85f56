"""Management keys and workspaces as their OWNERs change them (spec §6)."""

import grpc

from latchkey.v1 import admin_service_pb2 as pb
from latchkey.v1 import key_pb2, management_key_pb2
from latchkey_server.domain import ids
from tests.support.service import Client, rejection


async def test_revoking_a_revoked_management_key_leaves_it_as_it_is(owner: Client) -> None:
    made = (await owner.create_management_key(management_key_pb2.ROLE_VIEWER)).management_key

    def revoke(note: str) -> pb.RevokeManagementKeyRequest:
        return pb.RevokeManagementKeyRequest(
            management_key_id=made.management_key_id, reason=key_pb2.REVOKE_REASON_COMPROMISED, note=note
        )

    first = (await owner.admin.RevokeManagementKey(revoke("leaked"))).management_key
    again = (await owner.admin.RevokeManagementKey(revoke("leaked again"))).management_key

    assert again == first
    assert first.revocation.note == "leaked"


async def test_a_management_key_needs_a_role(owner: Client) -> None:
    failed = await rejection(owner.create_management_key(management_key_pb2.ROLE_UNSPECIFIED))

    assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["management_key.role"])


async def test_a_workspace_that_nobody_made_is_not_found_by_the_root_owner(root: Client) -> None:
    request = pb.GetWorkspaceRequest(workspace_id=ids.format_id(ids.WORKSPACE, ids.new_id()))

    assert (await rejection(root.admin.GetWorkspace(request))).reason == "WORKSPACE_NOT_FOUND"
