"""Callers' credentials: which management secrets are accepted, and whom they stand for."""

from dataclasses import dataclass, field
from datetime import datetime

from latchkey.rules import unexpired
from latchkey_server.domain import errors
from latchkey_server.domain.access import Caller, caller_of
from latchkey_server.domain.freshness import Confirmed, History, Instant
from latchkey_server.domain.model import ManagementKey

_SCHEME = "bearer "


@dataclass(slots=True)
class Credential(Confirmed):
    """All that accepting a management secret may depend on; it and the workspace's ``revision`` are one snapshot."""

    management_key: ManagementKey
    root: bool
    secret_end_time: datetime | None
    secret_ended: bool
    revision: int
    read_at: Instant = field(compare=False)
    history: History = field(compare=False)
    caller: Caller = field(init=False, compare=False)

    def __post_init__(self) -> None:
        self.caller = caller_of(self.management_key, self.root)


def bearer_secret(authorization: str | None) -> str:
    """Return the secret of an ``authorization`` header; raises CredentialMissing."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise errors.CredentialMissing
    secret = authorization[len(_SCHEME) :].strip()
    if not secret:
        raise errors.CredentialMissing
    return secret


def accept(credential: Credential | None, now: datetime) -> Caller:
    """Return the caller that a credential stands for now; raises CredentialInvalid."""
    if credential is None or credential.secret_ended:
        raise errors.CredentialInvalid
    key = credential.management_key
    lasting = unexpired(credential.secret_end_time, now) and unexpired(key.expire_time, now)
    if key.revocation is not None or not lasting:
        raise errors.CredentialInvalid
    return credential.caller
