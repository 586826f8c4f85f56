"""Workspaces, apis, identities, management keys and audit between the wire and the domain."""

from typing import Final

from latchkey.v1 import (
    admin_service_pb2,
    api_pb2,
    audit_pb2,
    identity_pb2,
    management_key_pb2,
    workspace_pb2,
)
from latchkey_server.domain import ids
from latchkey_server.domain.access.management_keys import API_IDS_MAX, ManagementKeyFields, ManagementKeyView
from latchkey_server.domain.model import Api, AuditEvent, Identity, Role, Workspace, WorkspaceSettings, etag_of
from latchkey_server.domain.store import AuditFilter
from latchkey_server.domain.tenants.identities import IdentityFields
from latchkey_server.domain.tenants.workspaces import WorkspaceFields
from latchkey_server.domain.validation import Violations, check_storable
from latchkey_server.transport.convert_key import (
    ratelimit_messages,
    read_ratelimits,
    revocation_message,
    secret_messages,
)
from latchkey_server.transport.wire import (
    duration,
    optional_timestamp,
    read_duration,
    read_enum,
    read_id,
    read_ids,
    read_struct,
    read_time,
    struct,
    timestamp,
)

WORKSPACE_MUTABLE: Final = (
    "name",
    "enabled",
    "settings",
    "settings.default_prefix",
    "settings.max_cacheable_for",
)
API_MUTABLE: Final = ("name",)
IDENTITY_MUTABLE: Final = ("metadata", "ratelimits")
MANAGEMENT_KEY_MUTABLE: Final = ("name", "role", "member", "api_ids", "expire_time")

BOOTSTRAP = "bootstrap"


def read_workspace(message: workspace_pb2.Workspace, found: Violations) -> WorkspaceFields:
    """Return the editable fields of a workspace; what can't be read is noted."""
    settings = message.settings
    cacheable = read_duration(found, "settings.max_cacheable_for", settings, "max_cacheable_for")
    default = WorkspaceSettings()
    return WorkspaceFields(
        name=message.name,
        enabled=message.enabled if message.HasField("enabled") else True,
        settings=WorkspaceSettings(
            settings.default_prefix, default.max_cacheable_for if cacheable is None else cacheable
        ),
    )


def workspace_fields_message(fields: WorkspaceFields) -> workspace_pb2.Workspace:
    """Return a workspace message that holds the editable fields only."""
    return workspace_pb2.Workspace(
        name=fields.name,
        enabled=fields.enabled,
        settings=workspace_pb2.WorkspaceSettings(
            default_prefix=fields.settings.default_prefix,
            max_cacheable_for=duration(fields.settings.max_cacheable_for),
        ),
    )


def workspace_message(workspace: Workspace) -> workspace_pb2.Workspace:
    """Return a workspace as it travels."""
    message = workspace_fields_message(WorkspaceFields(workspace.name, workspace.enabled, workspace.settings))
    message.MergeFrom(
        workspace_pb2.Workspace(
            workspace_id=ids.format_id(ids.WORKSPACE, workspace.workspace_id),
            default_api_id=ids.format_id(ids.API, workspace.default_api_id),
            root=workspace.root,
            create_time=timestamp(workspace.create_time),
            update_time=timestamp(workspace.update_time),
            etag=etag_of(workspace.revision),
        )
    )
    return message


def api_message(api: Api) -> api_pb2.Api:
    """Return an api as it travels."""
    return api_pb2.Api(
        api_id=ids.format_id(ids.API, api.api_id),
        workspace_id=ids.format_id(ids.WORKSPACE, api.workspace_id),
        name=api.name,
        is_default=api.is_default,
        create_time=timestamp(api.create_time),
        update_time=timestamp(api.update_time),
        etag=etag_of(api.revision),
    )


def read_identity(message: identity_pb2.Identity, found: Violations) -> IdentityFields:
    """Return the editable fields of an identity; what can't be read is noted."""
    return IdentityFields(
        metadata=read_struct(found, "metadata", message.metadata),
        ratelimits=read_ratelimits(message.ratelimits, found),
    )


def identity_fields_message(fields: IdentityFields) -> identity_pb2.Identity:
    """Return an identity message that holds the editable fields only."""
    return identity_pb2.Identity(
        metadata=struct(fields.metadata) if fields.metadata else None,
        ratelimits=ratelimit_messages(fields.ratelimits),
    )


def identity_message(identity: Identity) -> identity_pb2.Identity:
    """Return an identity as it travels."""
    message = identity_fields_message(IdentityFields(identity.metadata, identity.ratelimits))
    message.MergeFrom(
        identity_pb2.Identity(
            identity_id=ids.format_id(ids.IDENTITY, identity.identity_id),
            workspace_id=ids.format_id(ids.WORKSPACE, identity.workspace_id),
            external_id=identity.external_id,
            create_time=timestamp(identity.create_time),
            update_time=timestamp(identity.update_time),
            etag=etag_of(identity.revision),
        )
    )
    return message


def read_management_key(message: management_key_pb2.ManagementKey, found: Violations) -> ManagementKeyFields:
    """Return the editable fields of a management key; what can't be read is noted."""
    return ManagementKeyFields(
        name=message.name,
        role=read_enum(found, "role", Role, message.role),
        member=message.member,
        api_ids=frozenset(read_ids(found, "api_ids", ids.API, message.api_ids, API_IDS_MAX)),
        expire_time=read_time(found, "expire_time", message, "expire_time"),
    )


def management_key_fields_message(fields: ManagementKeyFields) -> management_key_pb2.ManagementKey:
    """Return a management key message that holds the editable fields only."""
    return management_key_pb2.ManagementKey(
        name=fields.name,
        role=management_key_pb2.Role.ValueType(fields.role or 0),
        member=fields.member,
        api_ids=[ids.format_id(ids.API, api_id) for api_id in sorted(fields.api_ids)],
        expire_time=optional_timestamp(fields.expire_time),
    )


def management_key_message(view: ManagementKeyView) -> management_key_pb2.ManagementKey:
    """Return a management key as it travels."""
    key = view.management_key
    message = management_key_fields_message(
        ManagementKeyFields(key.name, key.role, key.member, key.api_ids, key.expire_time)
    )
    message.MergeFrom(
        management_key_pb2.ManagementKey(
            management_key_id=ids.format_id(ids.MANAGEMENT_KEY, key.management_key_id),
            workspace_id=ids.format_id(ids.WORKSPACE, key.workspace_id),
            all_workspaces=key.all_workspaces,
            secrets=secret_messages(view.secrets),
            revocation=revocation_message(key.revocation),
            create_time=timestamp(key.create_time),
            update_time=timestamp(key.update_time),
            etag=etag_of(key.revision),
        )
    )
    return message


def read_audit_filter(request: admin_service_pb2.ListAuditEventsRequest) -> AuditFilter:
    """Return which audit events a list asks for; raises InvalidField."""
    found = Violations()
    wanted = AuditFilter(
        target_id=check_storable(found, "target_id", request.target_id) or None,
        actor_id=read_id(found, "actor_id", ids.MANAGEMENT_KEY, request.actor_id) if request.actor_id else None,
        action=check_storable(found, "action", request.action) or None,
        start=read_time(found, "start_time", request, "start_time"),
        end=read_time(found, "end_time", request, "end_time"),
    )
    found.check()
    return wanted


def audit_message(event: AuditEvent) -> audit_pb2.AuditEvent:
    """Return an audit event as it travels."""
    return audit_pb2.AuditEvent(
        audit_event_id=ids.format_id(ids.AUDIT_EVENT, event.audit_event_id),
        workspace_id=ids.format_id(ids.WORKSPACE, event.workspace_id),
        actor_id=ids.format_id(ids.MANAGEMENT_KEY, event.actor_id) if event.actor_id else BOOTSTRAP,
        actor_member=event.actor_member,
        action=event.action,
        target_id=event.target_id,
        before=None if event.before is None else struct(event.before),
        after=None if event.after is None else struct(event.after),
        call_id=event.call_id,
        peer=event.peer,
        event_time=timestamp(event.event_time),
    )
