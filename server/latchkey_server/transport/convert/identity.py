"""Identities between the wire and the domain."""

from typing import Final

from latchkey.v1 import identity_pb2
from latchkey_server.domain import ids
from latchkey_server.domain.model import Identity, etag_of
from latchkey_server.domain.tenants.identities import IdentityFields
from latchkey_server.domain.validation import Violations
from latchkey_server.transport.convert.ratelimit import ratelimit_messages, read_ratelimits
from latchkey_server.transport.convert.well_known import read_struct, struct, timestamp

IDENTITY_MUTABLE: Final = ("metadata", "ratelimits")


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
    """Return an identity as a message."""
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
