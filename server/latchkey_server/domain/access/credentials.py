"""Callers' credentials: which management secrets are accepted, and whom they stand for."""

from dataclasses import dataclass, field
from datetime import datetime

from latchkey.rules import unexpired
from latchkey_server.domain import errors
from latchkey_server.domain.access.roles import METHODS, caller_of
from latchkey_server.domain.freshness import Confirmed, History, Instant
from latchkey_server.domain.model import Caller, ManagementKey
from latchkey_server.domain.secret import MANAGEMENT_PREFIX, well_formed

_SCHEME = "bearer "


@dataclass(slots=True)
class Credential(Confirmed):
    """All that accepting a management secret may depend on, read in one snapshot with the workspace's ``revision``."""

    management_key: ManagementKey
    root: bool
    secret_end_time: datetime | None
    secret_ended: bool
    revision: int
    read_at: Instant = field(compare=False)
    history: History = field(compare=False)
    caller: Caller = field(init=False, compare=False)
    usable: bool = field(init=False, compare=False)
    """Whether it was neither ended nor revoked: then it is accepted until ``end_time``."""
    end_time: datetime | None = field(init=False, compare=False)
    methods: frozenset[str] = field(init=False, compare=False)
    cached: bool = field(default=False, init=False, compare=False, repr=False)
    footprint: int = field(default=0, init=False, compare=False, repr=False)
    """The bytes that a cache has counted for it."""

    def __post_init__(self) -> None:
        key = self.management_key
        self.caller = caller_of(key, self.root)
        self.usable = not self.secret_ended and key.revocation is None
        ends = [end for end in (self.secret_end_time, key.expire_time) if end is not None]
        self.end_time = min(ends) if ends else None
        self.methods = METHODS[key.role]


def bearer_secret(authorization: str | None) -> str:
    """Return the secret of an ``authorization`` header; raises CredentialMissing, and CredentialInvalid for junk.

    Management secrets are never imported: one with a wrong prefix or checksum can't exist, and is not looked up.
    """
    secret = bearer_text(authorization)
    if not (secret.startswith(f"{MANAGEMENT_PREFIX}_") and well_formed(secret)):
        raise errors.CredentialInvalid
    return secret


def bearer_text(authorization: str | None) -> str:
    """Return what an ``authorization`` header carries, whatever that is; raises CredentialMissing."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise errors.CredentialMissing
    secret = authorization[len(_SCHEME) :].strip()
    if not secret:
        raise errors.CredentialMissing
    return secret


def accept(credential: Credential | None, now: datetime) -> Caller:
    """Return the caller that a credential stands for now; raises CredentialInvalid."""
    if credential is None or not credential.usable or not unexpired(credential.end_time, now):
        raise errors.CredentialInvalid
    return credential.caller
