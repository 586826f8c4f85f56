"""Who may call what, as the specification's table says it, and a valid request of every method.

Written from the specification, on purpose not from the server's own table.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from latchkey.v1 import (
    admin_service_pb2,
    api_pb2,
    identity_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    usage_pb2,
    usage_service_pb2,
    verify_service_pb2,
    workspace_pb2,
)
from tests.support.matrix_world import Target, random_sha256, today, usage_event

VERIFIER, VIEWER, DEVELOPER, ADMIN, OWNER = "VERIFIER", "VIEWER", "DEVELOPER", "ADMIN", "OWNER"
ROLES = (VERIFIER, VIEWER, DEVELOPER, ADMIN, OWNER)
ROOT_OWNER = "OWNER of the root workspace"

MAY: Mapping[str, frozenset[str]] = {
    VERIFIER: frozenset({VERIFIER, DEVELOPER, ADMIN, OWNER}),
    VIEWER: frozenset({VIEWER, DEVELOPER, ADMIN, OWNER}),
    DEVELOPER: frozenset({DEVELOPER, ADMIN, OWNER}),
    ADMIN: frozenset({ADMIN, OWNER}),
    OWNER: frozenset({OWNER}),
}
"""Which roles hold all that a role may do."""

OK = "OK"


@dataclass(frozen=True, slots=True)
class Row:
    """What is expected of one method.

    ``done`` is the answer to a request that is allowed, ``stranger`` the answer when it is aimed at what is foreign or
    unknown, ``bound`` the answer to a caller who is bound to the target's api and ``outside`` when it is bound to
    others. None stands for the same as ``done`` (``stranger`` for ``outside``).
    """

    needed: str
    request: Callable[[Target], Message]
    done: str = OK
    stranger: str | None = None
    bound: str | None = None
    outside: str | None = None

    @property
    def for_stranger(self) -> str:
        """The answer when the target is foreign or unknown."""
        return self.stranger or self.done

    @property
    def for_bound(self) -> str:
        """The answer to a caller bound to the target's api."""
        return self.bound or self.done

    @property
    def for_outside(self) -> str:
        """The answer to a caller bound to other apis than the target's."""
        return self.outside or self.bound or self.for_stranger

    def done_by(self, role: str) -> str:
        """The answer to an unbound caller of an ordinary workspace."""
        if role not in MAY[self.needed]:
            return "ROLE_TOO_LOW"
        return self.done


def _query_usage(target: Target) -> Message:
    start, end = today()
    wanted = usage_pb2.UsageFilter(key_ids=[target.key_id], api_ids=[target.api_id])
    return usage_service_pb2.QueryUsageRequest(start_time=start, end_time=end, filter=wanted)


def _query_verifications(target: Target) -> Message:
    start, end = today()
    wanted = usage_service_pb2.VerificationFilter(key_ids=[target.key_id])
    return usage_service_pb2.QueryVerificationsRequest(start_time=start, end_time=end, filter=wanted)


def _revoke_management_key(target: Target) -> Message:
    return admin_service_pb2.RevokeManagementKeyRequest(
        management_key_id=target.management_key_id, reason=key_pb2.REVOKE_REASON_OTHER
    )


def _create_management_key(target: Target) -> Message:
    wanted = management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_VERIFIER, api_ids=[target.api_id])
    return admin_service_pb2.CreateManagementKeyRequest(management_key=wanted)


def _update_management_key(target: Target) -> Message:
    wanted = management_key_pb2.ManagementKey(management_key_id=target.management_key_id, name="renamed")
    return admin_service_pb2.UpdateManagementKeyRequest(management_key=wanted)


def _update_workspace(target: Target) -> Message:
    wanted = workspace_pb2.Workspace(workspace_id=target.workspace_id, name="renamed")
    return admin_service_pb2.UpdateWorkspaceRequest(workspace=wanted, update_mask=FieldMask(paths=["name"]))


def _update_identity(target: Target) -> Message:
    wanted = identity_pb2.Identity(identity_id=target.identity_id)
    return admin_service_pb2.UpdateIdentityRequest(identity=wanted, update_mask=FieldMask(paths=["metadata"]))


def _import_keys(target: Target) -> Message:
    item = key_service_pb2.ImportKeyItem(key=key_pb2.Key(api_id=target.api_id), secret_sha256=random_sha256())
    return key_service_pb2.ImportKeysRequest(items=[item])


ROWS: Mapping[str, Row] = {
    # VERIFIER: verify, watch, report.
    "Verify": Row(VERIFIER, lambda at: verify_service_pb2.VerifyRequest(key=at.secret)),
    "BatchVerify": Row(
        VERIFIER,
        lambda at: verify_service_pb2.BatchVerifyRequest(
            items=[
                verify_service_pb2.VerifyRequest(key=at.secret),
                verify_service_pb2.VerifyRequest(key=at.secret, api_id=at.api_id),
            ]
        ),
    ),
    "VerifyStream": Row(
        VERIFIER,
        lambda at: verify_service_pb2.VerifyStreamRequest(items=[verify_service_pb2.VerifyRequest(key=at.secret)]),
    ),
    "WatchKeys": Row(VERIFIER, lambda _at: verify_service_pb2.WatchKeysRequest(nonce=b"nonce")),
    "ReleaseReservation": Row(
        VERIFIER,
        lambda at: verify_service_pb2.ReleaseReservationRequest(key_id=at.key_id, operation_id="operation"),
        done="NOT_IMPLEMENTED",
    ),
    "ReportVerifications": Row(
        VERIFIER,
        lambda _at: verify_service_pb2.ReportVerificationsRequest(client_id=secrets.token_hex(8), sequence=1),
    ),
    "ReportUsage": Row(VERIFIER, lambda at: usage_service_pb2.ReportUsageRequest(events=[usage_event(at.key_id)])),
    # VIEWER: get, list and query everything.
    "GetKey": Row(VIEWER, lambda at: key_service_pb2.GetKeyRequest(key_id=at.key_id), stranger="KEY_NOT_FOUND"),
    "ListKeys": Row(VIEWER, lambda at: key_service_pb2.ListKeysRequest(api_id=at.api_id)),
    "LookupKey": Row(VIEWER, lambda at: key_service_pb2.LookupKeyRequest(secret=at.secret), stranger="KEY_NOT_FOUND"),
    "ListEnvironments": Row(VIEWER, lambda at: key_service_pb2.ListEnvironmentsRequest(api_id=at.api_id)),
    "QueryUsage": Row(VIEWER, _query_usage),
    "ListUsageEvents": Row(
        VIEWER,
        lambda at: usage_service_pb2.ListUsageEventsRequest(filter=usage_pb2.UsageFilter(key_ids=[at.key_id])),
    ),
    "QueryVerifications": Row(VIEWER, _query_verifications),
    "GetWorkspace": Row(
        VIEWER,
        lambda at: admin_service_pb2.GetWorkspaceRequest(workspace_id=at.workspace_id),
        stranger="WORKSPACE_NOT_FOUND",
        outside=OK,
    ),
    "GetApi": Row(VIEWER, lambda at: admin_service_pb2.GetApiRequest(api_id=at.api_id), stranger="API_NOT_FOUND"),
    "ListApis": Row(VIEWER, lambda _at: admin_service_pb2.ListApisRequest()),
    "GetIdentity": Row(
        VIEWER,
        lambda at: admin_service_pb2.GetIdentityRequest(identity_id=at.identity_id),
        stranger="IDENTITY_NOT_FOUND",
        outside=OK,
    ),
    "ListIdentities": Row(VIEWER, lambda _at: admin_service_pb2.ListIdentitiesRequest()),
    "GetManagementKey": Row(
        VIEWER,
        lambda at: admin_service_pb2.GetManagementKeyRequest(management_key_id=at.management_key_id),
        stranger="MANAGEMENT_KEY_NOT_FOUND",
        outside=OK,
    ),
    "ListManagementKeys": Row(VIEWER, lambda _at: admin_service_pb2.ListManagementKeysRequest()),
    # DEVELOPER: keys and identities.
    "CreateKey": Row(
        DEVELOPER,
        lambda at: key_service_pb2.CreateKeyRequest(key=key_pb2.Key(api_id=at.api_id)),
        stranger="API_NOT_FOUND",
    ),
    "UpdateKey": Row(
        DEVELOPER,
        lambda at: key_service_pb2.UpdateKeyRequest(key=key_pb2.Key(key_id=at.key_id, name="renamed")),
        stranger="KEY_NOT_FOUND",
    ),
    "RotateKey": Row(
        DEVELOPER, lambda at: key_service_pb2.RotateKeyRequest(key_id=at.key_id), stranger="KEY_NOT_FOUND"
    ),
    "RevokeKey": Row(
        DEVELOPER,
        lambda at: key_service_pb2.RevokeKeyRequest(key_id=at.key_id, reason=key_pb2.REVOKE_REASON_OTHER),
        stranger="KEY_NOT_FOUND",
    ),
    "DeleteKey": Row(
        DEVELOPER, lambda at: key_service_pb2.DeleteKeyRequest(key_id=at.key_id), stranger="KEY_NOT_FOUND"
    ),
    "UndeleteKey": Row(
        DEVELOPER, lambda at: key_service_pb2.UndeleteKeyRequest(key_id=at.deleted_key_id), stranger="KEY_NOT_FOUND"
    ),
    "ImportKeys": Row(DEVELOPER, _import_keys),
    "AdjustCredits": Row(
        DEVELOPER, lambda at: key_service_pb2.AdjustCreditsRequest(key_id=at.key_id, add=1), stranger="KEY_NOT_FOUND"
    ),
    "UpdateIdentity": Row(DEVELOPER, _update_identity, stranger="IDENTITY_NOT_FOUND", bound="API_BINDING"),
    "DeleteIdentity": Row(
        DEVELOPER,
        lambda at: admin_service_pb2.DeleteIdentityRequest(identity_id=at.unused_identity_id),
        stranger="IDENTITY_NOT_FOUND",
        bound="API_BINDING",
    ),
    # ADMIN: apis, management keys, workspace settings, audit.
    "UpdateWorkspace": Row(ADMIN, _update_workspace, stranger="WORKSPACE_NOT_FOUND", bound="API_BINDING"),
    "CreateApi": Row(
        ADMIN, lambda _at: admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="made")), bound="API_BINDING"
    ),
    "UpdateApi": Row(
        ADMIN,
        lambda at: admin_service_pb2.UpdateApiRequest(api=api_pb2.Api(api_id=at.api_id, name="renamed")),
        stranger="API_NOT_FOUND",
    ),
    "DeleteApi": Row(
        ADMIN,
        lambda at: admin_service_pb2.DeleteApiRequest(api_id=at.empty_api_id),
        stranger="API_NOT_FOUND",
    ),
    "CreateManagementKey": Row(
        ADMIN, _create_management_key, stranger="API_NOT_FOUND", bound=OK, outside="PERMISSIONS_EXCEEDED"
    ),
    "UpdateManagementKey": Row(
        ADMIN, _update_management_key, stranger="MANAGEMENT_KEY_NOT_FOUND", bound=OK, outside="PERMISSIONS_EXCEEDED"
    ),
    "RotateManagementKey": Row(
        ADMIN,
        lambda at: admin_service_pb2.RotateManagementKeyRequest(management_key_id=at.management_key_id),
        stranger="MANAGEMENT_KEY_NOT_FOUND",
        bound=OK,
        outside="PERMISSIONS_EXCEEDED",
    ),
    "RevokeManagementKey": Row(
        ADMIN,
        _revoke_management_key,
        stranger="MANAGEMENT_KEY_NOT_FOUND",
        bound=OK,
        outside="PERMISSIONS_EXCEEDED",
    ),
    "ListAuditEvents": Row(
        ADMIN,
        lambda at: admin_service_pb2.ListAuditEventsRequest(target_id=at.key_id, actor_id=at.management_key_id),
        bound="API_BINDING",
    ),
    # Workspaces belong to the root's OWNERs.
    "CreateWorkspace": Row(OWNER, lambda _at: admin_service_pb2.CreateWorkspaceRequest(), done="ROLE_TOO_LOW"),
    "ListWorkspaces": Row(OWNER, lambda _at: admin_service_pb2.ListWorkspacesRequest(), done="ROLE_TOO_LOW"),
}
"""One row a method, for callers of an ordinary workspace."""
