"""Management keys between the wire and the domain."""

from typing import Final

from latchkey.v1 import management_key_pb2
from latchkey_server.domain import ids
from latchkey_server.domain.access.management_keys import API_IDS_MAX, ManagementKeyFields, ManagementKeyView
from latchkey_server.domain.model import Role, etag_of
from latchkey_server.domain.validation import Violations
from latchkey_server.transport.convert.secret import revocation_message, secret_messages
from latchkey_server.transport.convert.well_known import optional_timestamp, read_enum, read_ids, read_time, timestamp

MANAGEMENT_KEY_MUTABLE: Final = ("name", "role", "member", "api_ids", "expire_time")


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
        role=management_key_pb2.Role.ValueType(fields.role),
        member=fields.member,
        api_ids=[ids.format_id(ids.API, api_id) for api_id in sorted(fields.api_ids)],
        expire_time=optional_timestamp(fields.expire_time),
    )


def management_key_message(view: ManagementKeyView) -> management_key_pb2.ManagementKey:
    """Return a management key as a message."""
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
