"""What is shown of secrets and of why something was revoked, for keys and management keys alike."""

from collections.abc import Iterable

from latchkey.v1 import key_pb2
from latchkey_server.domain import ids
from latchkey_server.domain.model import Revocation, RevokeReason, Secret
from latchkey_server.domain.validation import Violations
from latchkey_server.transport.convert.well_known import optional_timestamp, read_enum, timestamp


def secret_messages(secrets: Iterable[Secret]) -> list[key_pb2.SecretInfo]:
    """Return what describes secrets; never the secrets."""
    return [
        key_pb2.SecretInfo(
            secret_id=ids.format_id(ids.SECRET, secret.secret_id),
            mask=secret.mask,
            create_time=timestamp(secret.create_time),
            end_time=optional_timestamp(secret.end_time),
        )
        for secret in secrets
    ]


def revocation_message(revocation: Revocation | None) -> key_pb2.Revocation | None:
    """Return a revocation as a message."""
    if revocation is None:
        return None
    return key_pb2.Revocation(
        reason=key_pb2.RevokeReason.ValueType(revocation.reason),
        note=revocation.note,
        revoke_time=timestamp(revocation.revoke_time),
    )


def read_revoke_reason(value: int) -> RevokeReason:
    """Return why something is revoked; raises InvalidField for none or an unknown one."""
    found = Violations()
    reason = read_enum(found, "reason", RevokeReason, value)
    found.check()
    return reason
