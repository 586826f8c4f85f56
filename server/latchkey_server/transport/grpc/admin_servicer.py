"""AdminService on the wire: convert, call the domain, convert."""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from latchkey.v1 import admin_service_pb2 as pb
from latchkey.v1 import admin_service_pb2_grpc
from latchkey_server.domain import errors, ids
from latchkey_server.domain.access.management_keys import ManagementKeyFields, ManagementKeys
from latchkey_server.domain.tenants.apis import Apis
from latchkey_server.domain.tenants.audit_log import AuditLog
from latchkey_server.domain.tenants.identities import Identities, IdentityFields, Name
from latchkey_server.domain.tenants.workspaces import WorkspaceFields, Workspaces
from latchkey_server.domain.validation import Violations, check_storable
from latchkey_server.transport.call import Context, caller, origin
from latchkey_server.transport.convert.api import API_MUTABLE, api_message
from latchkey_server.transport.convert.audit import audit_message, read_audit_filter
from latchkey_server.transport.convert.identity import (
    IDENTITY_MUTABLE,
    identity_fields_message,
    identity_message,
    read_identity,
)
from latchkey_server.transport.convert.management_key import (
    MANAGEMENT_KEY_MUTABLE,
    management_key_fields_message,
    management_key_message,
    read_management_key,
)
from latchkey_server.transport.convert.masks import applied, paths_of
from latchkey_server.transport.convert.secret import read_revoke_reason
from latchkey_server.transport.convert.well_known import optional_id, read_duration, required_id, revision
from latchkey_server.transport.convert.workspace import (
    WORKSPACE_MUTABLE,
    read_workspace,
    workspace_fields_message,
    workspace_message,
)
from latchkey_server.transport.grpc.lists import one_page


@dataclass(frozen=True, slots=True)
class Nouns:
    """What AdminService is about."""

    workspaces: Workspaces
    apis: Apis
    identities: Identities
    management_keys: ManagementKeys
    audit: AuditLog


class AdminServicer(admin_service_pb2_grpc.AdminServiceServicer):
    """Answers AdminService."""

    def __init__(self, nouns: Nouns) -> None:
        self._workspaces = nouns.workspaces
        self._apis = nouns.apis
        self._identities = nouns.identities
        self._management_keys = nouns.management_keys
        self._audit = nouns.audit

    async def CreateWorkspace(self, request: pb.CreateWorkspaceRequest, context: Context) -> pb.CreateWorkspaceResponse:
        found = Violations("workspace")
        fields = read_workspace(request.workspace, found)
        made = await self._workspaces.create(origin("CreateWorkspace", request), fields, found)
        return pb.CreateWorkspaceResponse(
            workspace=workspace_message(made.value.workspace),
            owner=management_key_message(made.value.owner),
            owner_secret=made.value.secret,
            replayed=made.replayed,
            revision=revision(made.revision),
        )

    async def GetWorkspace(self, request: pb.GetWorkspaceRequest, context: Context) -> pb.GetWorkspaceResponse:
        workspace_id = optional_id("workspace_id", ids.WORKSPACE, request.workspace_id)
        return pb.GetWorkspaceResponse(workspace=workspace_message(await self._workspaces.get(caller(), workspace_id)))

    async def ListWorkspaces(self, request: pb.ListWorkspacesRequest, context: Context) -> pb.ListWorkspacesResponse:
        shown, token = await one_page(
            request, lambda size, cursor: self._workspaces.list(caller(), size, cursor), workspace_message
        )
        return pb.ListWorkspacesResponse(workspaces=shown, next_page_token=token)

    async def UpdateWorkspace(self, request: pb.UpdateWorkspaceRequest, context: Context) -> pb.UpdateWorkspaceResponse:
        workspace_id = optional_id("workspace.workspace_id", ids.WORKSPACE, request.workspace.workspace_id)
        paths = paths_of(request.update_mask, request.workspace, WORKSPACE_MUTABLE, "workspace")

        def edit(fields: WorkspaceFields, found: Violations) -> WorkspaceFields:
            return read_workspace(applied(request.workspace, workspace_fields_message(fields), paths), found)

        asked = origin("UpdateWorkspace", request)
        updated = await self._workspaces.update(asked, workspace_id, edit, request.etag)
        return pb.UpdateWorkspaceResponse(
            workspace=workspace_message(updated.value), revision=revision(updated.revision)
        )

    async def CreateApi(self, request: pb.CreateApiRequest, context: Context) -> pb.CreateApiResponse:
        made = await self._apis.create(origin("CreateApi", request), request.api.name)
        return pb.CreateApiResponse(api=api_message(made.value), revision=revision(made.revision))

    async def GetApi(self, request: pb.GetApiRequest, context: Context) -> pb.GetApiResponse:
        api_id = required_id("api_id", ids.API, request.api_id)
        return pb.GetApiResponse(api=api_message(await self._apis.get(caller(), api_id)))

    async def ListApis(self, request: pb.ListApisRequest, context: Context) -> pb.ListApisResponse:
        shown, token = await one_page(
            request, lambda size, cursor: self._apis.list(caller(), size, cursor), api_message
        )
        return pb.ListApisResponse(apis=shown, next_page_token=token)

    async def UpdateApi(self, request: pb.UpdateApiRequest, context: Context) -> pb.UpdateApiResponse:
        api_id = required_id("api.api_id", ids.API, request.api.api_id)
        paths = paths_of(request.update_mask, request.api, API_MUTABLE, "api")
        name = request.api.name if "name" in paths else None
        renamed = await self._apis.rename(origin("UpdateApi", request), api_id, name, request.etag)
        return pb.UpdateApiResponse(api=api_message(renamed.value), revision=revision(renamed.revision))

    async def DeleteApi(self, request: pb.DeleteApiRequest, context: Context) -> pb.DeleteApiResponse:
        api_id = required_id("api_id", ids.API, request.api_id)
        deleted = await self._apis.delete(origin("DeleteApi", request), api_id, request.etag)
        return pb.DeleteApiResponse(revision=revision(deleted.revision))

    async def GetIdentity(self, request: pb.GetIdentityRequest, context: Context) -> pb.GetIdentityResponse:
        name = _identity_name("", request.identity_id, request.external_id)
        return pb.GetIdentityResponse(identity=identity_message(await self._identities.get(caller(), name)))

    async def ListIdentities(self, request: pb.ListIdentitiesRequest, context: Context) -> pb.ListIdentitiesResponse:
        shown, token = await one_page(
            request, lambda size, cursor: self._identities.list(caller(), size, cursor), identity_message
        )
        return pb.ListIdentitiesResponse(identities=shown, next_page_token=token)

    async def UpdateIdentity(self, request: pb.UpdateIdentityRequest, context: Context) -> pb.UpdateIdentityResponse:
        name = _identity_name("identity.", request.identity.identity_id, request.identity.external_id)
        paths = paths_of(request.update_mask, request.identity, IDENTITY_MUTABLE, "identity")

        def edit(fields: IdentityFields, found: Violations) -> IdentityFields:
            return read_identity(applied(request.identity, identity_fields_message(fields), paths), found)

        make = partial(read_identity, request.identity) if request.allow_missing else None
        asked = origin("UpdateIdentity", request)
        updated = await self._identities.update(asked, name, edit, make=make, etag=request.etag)
        return pb.UpdateIdentityResponse(identity=identity_message(updated.value), revision=revision(updated.revision))

    async def DeleteIdentity(self, request: pb.DeleteIdentityRequest, context: Context) -> pb.DeleteIdentityResponse:
        identity_id = required_id("identity_id", ids.IDENTITY, request.identity_id)
        deleted = await self._identities.delete(origin("DeleteIdentity", request), identity_id, request.etag)
        return pb.DeleteIdentityResponse(revision=revision(deleted.revision))

    async def CreateManagementKey(
        self, request: pb.CreateManagementKeyRequest, context: Context
    ) -> pb.CreateManagementKeyResponse:
        found = Violations("management_key")
        fields = read_management_key(request.management_key, found)
        asked, everywhere = origin("CreateManagementKey", request), request.management_key.all_workspaces
        made = await self._management_keys.create(asked, fields, found, all_workspaces=everywhere)
        return pb.CreateManagementKeyResponse(
            management_key=management_key_message(made.value.view),
            secret=made.value.secret,
            replayed=made.replayed,
            revision=revision(made.revision),
        )

    async def GetManagementKey(
        self, request: pb.GetManagementKeyRequest, context: Context
    ) -> pb.GetManagementKeyResponse:
        management_key_id = required_id("management_key_id", ids.MANAGEMENT_KEY, request.management_key_id)
        view = await self._management_keys.get(caller(), management_key_id)
        return pb.GetManagementKeyResponse(management_key=management_key_message(view))

    async def ListManagementKeys(
        self, request: pb.ListManagementKeysRequest, context: Context
    ) -> pb.ListManagementKeysResponse:
        shown, token = await one_page(
            request,
            lambda size, cursor: self._management_keys.list(caller(), request.show_revoked, size, cursor),
            management_key_message,
        )
        return pb.ListManagementKeysResponse(management_keys=shown, next_page_token=token)

    async def UpdateManagementKey(
        self, request: pb.UpdateManagementKeyRequest, context: Context
    ) -> pb.UpdateManagementKeyResponse:
        sent = request.management_key
        management_key_id = required_id("management_key.management_key_id", ids.MANAGEMENT_KEY, sent.management_key_id)
        paths = paths_of(request.update_mask, sent, MANAGEMENT_KEY_MUTABLE, "management_key")

        def edit(fields: ManagementKeyFields, found: Violations) -> ManagementKeyFields:
            return read_management_key(applied(sent, management_key_fields_message(fields), paths), found)

        asked = origin("UpdateManagementKey", request)
        updated = await self._management_keys.update(asked, management_key_id, edit, request.etag)
        return pb.UpdateManagementKeyResponse(
            management_key=management_key_message(updated.value), revision=revision(updated.revision)
        )

    async def RotateManagementKey(
        self, request: pb.RotateManagementKeyRequest, context: Context
    ) -> pb.RotateManagementKeyResponse:
        management_key_id = required_id("management_key_id", ids.MANAGEMENT_KEY, request.management_key_id)
        found = Violations()
        grace = read_duration(found, "grace", request, "grace") or timedelta(0)
        found.check()
        asked = origin("RotateManagementKey", request)
        rotated = await self._management_keys.rotate(asked, management_key_id, grace)
        return pb.RotateManagementKeyResponse(
            management_key=management_key_message(rotated.value.view),
            secret=rotated.value.secret,
            replayed=rotated.replayed,
            revision=revision(rotated.revision),
        )

    async def RevokeManagementKey(
        self, request: pb.RevokeManagementKeyRequest, context: Context
    ) -> pb.RevokeManagementKeyResponse:
        management_key_id = required_id("management_key_id", ids.MANAGEMENT_KEY, request.management_key_id)
        reason = read_revoke_reason(request.reason)
        asked = origin("RevokeManagementKey", request)
        revoked = await self._management_keys.revoke(asked, management_key_id, reason, request.note)
        return pb.RevokeManagementKeyResponse(
            management_key=management_key_message(revoked.value), revision=revision(revoked.revision)
        )

    async def ListAuditEvents(self, request: pb.ListAuditEventsRequest, context: Context) -> pb.ListAuditEventsResponse:
        shown, token = await one_page(
            request,
            lambda size, cursor: self._audit.list(caller(), read_audit_filter(request), size, cursor),
            audit_message,
        )
        return pb.ListAuditEventsResponse(audit_events=shown, next_page_token=token)


def _identity_name(path: str, identity_id: str, external_id: str) -> Name:
    if identity_id:
        return required_id(f"{path}identity_id", ids.IDENTITY, identity_id)
    if not external_id:
        raise errors.InvalidField.one(f"{path}external_id", "is required unless identity_id is given")
    found = Violations()
    check_storable(found, f"{path}external_id", external_id)
    found.check()
    return external_id
