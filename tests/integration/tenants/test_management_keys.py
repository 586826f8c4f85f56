"""Management keys: owners that last, and what a tenant learns of root (spec §6)."""

import asyncpg
import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from latchkey.v1 import (
    admin_service_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    workspace_pb2,
)
from latchkey_server.domain.secret import MANAGEMENT_PREFIX, new_secret
from latchkey_server.opening import utc_now
from tests.support.matrix_calls import call
from tests.support.service import Client, Service, rejection

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


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
