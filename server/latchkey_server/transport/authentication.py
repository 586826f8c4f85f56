"""Authentication: who calls, by the text of an ``authorization`` header, and whether their role allows a method.

Nothing here depends on gRPC: of a call it takes a method and an instant.
"""

from typing import Final, Protocol

from lru import LRU

from latchkey.rules import secret_sha256
from latchkey_server.domain import errors
from latchkey_server.domain.access.credentials import Credential, accept, bearer_secret
from latchkey_server.domain.access.roles import require_role
from latchkey_server.domain.freshness import HARD_BOUND, Instant, confirmed
from latchkey_server.domain.model import Caller
from latchkey_server.domain.store import Clock
from latchkey_server.domain.verify.ports import RecordSource
from latchkey_server.transport.admission import UnknownCredentials

_REMEMBERED_MAX: Final = 256
"""Headers whose hash is remembered: callers are few, and use theirs for as long as their connections last."""


class ReadyState(Protocol):
    """Tells whether calls are answered."""

    ready: bool


class Authentication:
    """Authenticates callers."""

    def __init__(self, source: RecordSource, clock: Clock, readiness: ReadyState, unknown: UnknownCredentials) -> None:
        self._unknown = unknown
        self._source = source
        self._cached = source.cached_credential
        self._clock = clock
        self._readiness = readiness
        self._sha256s: LRU[str | None, bytes] = LRU(_REMEMBERED_MAX)

    def require_ready(self) -> None:
        """Raise ServerNotReady while no calls are answered."""
        if not self._readiness.ready:
            raise errors.ServerNotReady

    def at_once(self, authorization: str | None, method: str, at: Instant) -> Caller | None:
        """Return the caller if their credential is cached within the hard bound, else None; never waits.

        Raises CredentialMissing, CredentialInvalid and RoleTooLow.
        """
        sha256 = self._sha256(authorization)
        credential = self._source.fresh_credential(sha256, at)
        if credential is None:
            return None
        caller = self._accepted(credential, method)
        self._sha256s.setdefault(authorization, sha256)
        return caller

    async def look_up(self, authorization: str | None, method: str, peer: str, at: Instant) -> Caller:
        """Return the caller, looked up if need be.

        Raises as ``at_once`` does, DatabaseUnavailable, and ShareExceeded for a peer that sent too many unknown ones.
        """
        sha256 = self._sha256(authorization)
        if self._source.unknown_credential(sha256, at):
            raise errors.CredentialInvalid
        with self._unknown.looking_up(peer, at) as look_up:
            credential = await self._source.credential(sha256)
            look_up.known = credential is not None
        return self._accepted(credential, method)

    def knows(self, sha256: bytes, at: Instant) -> bool:
        """Tell whether a credential is cached within the hard bound, accepted or not."""
        return self._source.fresh_credential(sha256, at) is not None

    def good(self, sha256: bytes, method: str, at: Instant) -> Credential | None:
        """Return the cached credential if it allows ``method`` now and the server is ready, else None; never raises."""
        credential = self._cached(sha256)
        if (
            credential is None
            or not (at - credential.history.confirmed_at <= HARD_BOUND or confirmed(credential, at))
            or not credential.usable
            or method not in credential.methods
            or not self._readiness.ready
        ):
            return None
        end_time = credential.end_time
        return credential if end_time is None or self._clock() < end_time else None

    def _sha256(self, authorization: str | None) -> bytes:
        return self._sha256s.get(authorization) or secret_sha256(bearer_secret(authorization))

    def _accepted(self, credential: Credential | None, method: str) -> Caller:
        caller = accept(credential, self._clock())
        require_role(caller, method)
        return caller
