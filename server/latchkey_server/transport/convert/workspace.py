"""Workspaces between the wire and the domain."""

from typing import Final

from latchkey.v1 import workspace_pb2
from latchkey_server.domain import ids
from latchkey_server.domain.model import Workspace, WorkspaceSettings, etag_of
from latchkey_server.domain.tenants.workspaces import WorkspaceFields
from latchkey_server.domain.validation import Violations
from latchkey_server.transport.convert.well_known import duration, read_duration, timestamp

WORKSPACE_MUTABLE: Final = (
    "name",
    "enabled",
    "settings",
    "settings.default_prefix",
    "settings.max_cacheable_for",
)


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
    """Return a workspace as a message."""
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
