"""What an update mask names and the message leaves out (spec §2)."""

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from latchkey.v1 import (
    admin_service_pb2,
    key_pb2,
)
from tests.integration.keys.test_keys import update
from tests.support.matrix_world import own_workspace
from tests.support.service import Client, rejection

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


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
