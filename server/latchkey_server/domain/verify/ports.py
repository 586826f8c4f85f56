"""What verifications ask of the rest: records of keys, callers' credentials, notes, and the feed."""

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from latchkey_server.domain.access.credentials import Credential
from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.freshness import Freshness, Instant
from latchkey_server.domain.model import Caller
from latchkey_server.domain.verify.model import AppliedChange, Question, Record, Verdict


class RecordSource(Protocol):
    """The source of records of secrets and of callers' credentials, never staler than promised."""

    def cached(self, sha256: bytes, /) -> Record | None:
        """Return the cached record of a secret, however old, or None; never waits."""
        ...

    def cached_credential(self, sha256: bytes, /) -> Credential | None:
        """Return the cached credential of a management secret, likewise."""
        ...

    def fresh(self, sha256: bytes, at: Instant) -> Record | None:
        """Return the cached record of a secret if it is within the hard bound at an instant; never waits."""
        ...

    def grew(self, record: Record, more: int) -> None:
        """Count bytes that a record takes in addition, if it is cached."""
        ...

    async def records(self, sha256s: Sequence[bytes]) -> Mapping[bytes, Record | DatabaseUnavailable]:
        """Return what is known of the keys of these secrets, by SHA-256; unknown ones are absent.

        In an outage a known one may be older than the hard bound, and an unknown one is DatabaseUnavailable: an outage
        never looks like an unknown secret.
        """
        ...

    async def record(self, sha256: bytes, freshness: Freshness) -> Record | None:
        """Return what is known of a secret's key, as fresh as demanded, outage or not.

        Raises DatabaseUnavailable and RevisionNotReached.
        """
        ...

    def fresh_credential(self, sha256: bytes, at: Instant) -> Credential | None:
        """Return the cached credential of a management secret if it is within the hard bound; never waits."""
        ...

    def unknown_credential(self, sha256: bytes, at: Instant) -> bool:
        """Tell whether a management secret is known to be nobody's at an instant; never waits."""
        ...

    async def credential(self, sha256: bytes) -> Credential | None:
        """Return what is known of a management secret; raises DatabaseUnavailable."""
        ...


class Notes(Protocol):
    """Takes a note of each verification that was answered; never fails and never waits."""

    def note(self, caller: Caller, question: Question, prefix: str, verdict: Verdict) -> None:
        """Note a verdict; ``prefix`` is what the secret began with."""
        ...


class Feed(Protocol):
    """How far this process has followed the changes, for those who watch."""

    @property
    def epoch(self) -> str:
        """The history of the database that revisions belong to: another one after a failover or a restore."""
        ...

    async def caught_up(self) -> None:
        """Wait for a poll of everything that begins after this call; raises DatabaseUnavailable."""
        ...

    def confirmed_at(self, workspace_id: UUID | None) -> Instant:
        """Return when a workspace, or everything, was last confirmed."""
        ...

    def revision(self, workspace_id: UUID) -> int:
        """Return the last change of a workspace that was applied, 0 for one that is not followed."""
        ...

    async def since(self, workspace_id: UUID, after: int, until: int) -> list[AppliedChange] | None:
        """Return the changes behind ``after`` up to ``until``, or None if some are no longer stored.

        Raises DatabaseUnavailable.
        """
        ...
