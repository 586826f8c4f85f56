"""What the domain asks of storage: one Protocol a noun, gathered in a Transaction that a Store runs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol, TypeVar
from uuid import UUID

from latchkey_server.domain import verification_counts, verification_labels
from latchkey_server.domain.combinations import KeyDay
from latchkey_server.domain.credentials import Credential
from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.freshness import Freshness, Instant
from latchkey_server.domain.model import (
    Api,
    AuditEvent,
    Balance,
    Change,
    EnvironmentCounts,
    Identity,
    Json,
    Key,
    KeyStatus,
    ManagementKey,
    Revision,
    Secret,
    Workspace,
)
from latchkey_server.domain.usage import StoredEvent, UsageEvent
from latchkey_server.domain.usage_report import EventPage, UsageQuestion, UsageReport
from latchkey_server.domain.usage_rollups import Combination, KeyFacts, RollUps
from latchkey_server.domain.verification import Record
from latchkey_server.domain.verification_report import VerificationQuestion, VerificationSums

T = TypeVar("T")

Clock = Callable[[], datetime]
"""Gives the time now, in UTC."""


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys a list holds; what is None is not asked for. An empty ``api_ids`` means all."""

    api_ids: frozenset[UUID] = frozenset()
    labels: tuple[str, ...] = ()
    unlabeled: bool = False
    external_id: str | None = None
    member: str | None = None
    statuses: frozenset[KeyStatus] = frozenset()
    prefix: str | None = None
    expire_before: datetime | None = None
    unused_since: datetime | None = None
    show_deleted: bool = False


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which audit events a list holds; what is None is not asked for."""

    target_id: str | None = None
    actor_id: UUID | None = None
    action: str | None = None
    start: datetime | None = None
    end: datetime | None = None


class Workspaces(Protocol):
    """Tenants, and the counter of their changes."""

    async def get(self, workspace_id: UUID) -> Workspace | None: ...
    async def page(self, before: UUID | None, limit: int) -> list[Workspace]: ...
    async def insert(self, workspace: Workspace) -> None: ...
    async def update(self, workspace: Workspace) -> None: ...
    async def lock_bootstrap(self) -> None:
        """Keep every other first start waiting until this transaction ends."""
        ...

    async def lock_revision(self, workspace_id: UUID) -> int:
        """Return the current revision and keep every other mutation of the workspace waiting."""
        ...

    async def append_changes(self, workspace_id: UUID, after: int, changes: Sequence[Change], now: datetime) -> None:
        """Record changes as the revisions ``after`` + 1, + 2, …"""
        ...


class Apis(Protocol):
    """Named sets of keys."""

    async def get(self, workspace_id: UUID, api_id: UUID) -> Api | None: ...
    async def page(
        self, workspace_id: UUID, api_ids: frozenset[UUID], before: UUID | None, limit: int
    ) -> list[Api]: ...
    async def insert(self, api: Api) -> None: ...
    async def update(self, api: Api) -> None: ...
    async def has_keys(self, workspace_id: UUID, api_id: UUID) -> bool: ...
    async def delete(self, workspace_id: UUID, api_id: UUID) -> None: ...


class Identities(Protocol):
    """End customers."""

    async def get(self, workspace_id: UUID, identity_id: UUID) -> Identity | None: ...
    async def by_external_id(self, workspace_id: UUID, external_id: str) -> Identity | None: ...
    async def page(self, workspace_id: UUID, before: UUID | None, limit: int) -> list[Identity]: ...
    async def insert(self, identity: Identity) -> None: ...
    async def update(self, identity: Identity) -> None: ...
    async def has_keys(self, workspace_id: UUID, identity_id: UUID) -> bool: ...
    async def delete(self, workspace_id: UUID, identity_id: UUID) -> None: ...


class Keys(Protocol):
    """API keys and what is kept beside them."""

    async def get(self, workspace_id: UUID, key_id: UUID) -> Key | None: ...
    async def page(
        self, workspace_id: UUID, wanted: KeyFilter, before: UUID | None, limit: int, now: datetime
    ) -> list[Key]:
        """Return keys newest first; those that a status can't be excluded for by facts alone are included."""
        ...

    async def insert(self, keys: Sequence[Key]) -> None: ...
    async def update(self, key: Key) -> None: ...
    async def environments(self, workspace_id: UUID, api_ids: frozenset[UUID], limit: int) -> EnvironmentCounts: ...
    async def balances(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> Mapping[UUID, Balance]: ...
    async def insert_balances(self, workspace_id: UUID, balances: Mapping[UUID, Balance]) -> None:
        """Add balances for the keys that have none yet."""
        ...

    async def update_balance(self, workspace_id: UUID, key_id: UUID, balance: Balance) -> None: ...
    async def lock_balance(self, workspace_id: UUID, key_id: UUID) -> Balance | None: ...
    async def net_spend(self, workspace_id: UUID, since: Mapping[UUID, date | None]) -> Mapping[UUID, int]:
        """Return each key's net spend in nano-dollars from a UTC day on, or over its life for None."""
        ...

    async def last_used(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> Mapping[UUID, datetime]: ...


class Secrets(Protocol):
    """Secrets of keys and management keys, and the one global table of their hashes."""

    async def find(self, hashes: Sequence[bytes]) -> Secret | None:
        """Return the secret kept under one of these hashes, in any workspace."""
        ...

    async def claim(self, secrets: Sequence[Secret]) -> set[bytes]:
        """Add the secrets whose hash exists nowhere and return those hashes."""
        ...

    async def hold(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Return those that exist nowhere, and keep everybody else from adding them until this transaction ends."""
        ...

    async def of(self, workspace_id: UUID, holder_ids: Sequence[UUID]) -> Mapping[UUID, tuple[Secret, ...]]:
        """Return the secrets of each holder, newest first."""
        ...

    async def end(self, workspace_id: UUID, holder_id: UUID, end_time: datetime, at_once: bool) -> None:
        """End every secret of a holder at min(its end, ``end_time``); ``at_once`` makes it a fact."""
        ...


class ManagementKeys(Protocol):
    """Credentials for Latchkey's own RPCs."""

    async def get(self, workspace_id: UUID, management_key_id: UUID) -> ManagementKey | None: ...
    async def page(
        self, workspace_id: UUID, show_revoked: bool, before: UUID | None, limit: int
    ) -> list[ManagementKey]: ...
    async def insert(self, management_key: ManagementKey) -> None: ...
    async def update(self, management_key: ManagementKey) -> None: ...
    async def other_lasting_owner_exists(self, workspace_id: UUID, management_key_id: UUID) -> bool:
        """Tell whether another OWNER has neither a binding nor an end."""
        ...


class Audit(Protocol):
    """The record of mutations."""

    async def append(self, events: Sequence[AuditEvent]) -> None: ...
    async def page(
        self, workspace_id: UUID, wanted: AuditFilter, before: UUID | None, limit: int
    ) -> list[AuditEvent]: ...


@dataclass(frozen=True, slots=True)
class RequestKey:
    """The scope of a request_id."""

    workspace_id: UUID
    caller_id: UUID
    method: str
    request_id: str


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """A mutation that was answered before."""

    content_hash: bytes
    outcome: Json


class Requests(Protocol):
    """Answered request_ids, for 24 hours."""

    async def find(self, key: RequestKey, since: datetime) -> AnsweredRequest | None: ...
    async def record(self, key: RequestKey, answered: AnsweredRequest, since: datetime, now: datetime) -> bool:
        """Keep the answer; False when somebody else answered the same request_id meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class EventRow:
    """A recorded event with its defaults, its id hash, and when it was recorded."""

    event: UsageEvent
    id_hash: bytes
    record_time: datetime


class UsageFenced(Exception):
    """Somebody has a workspace's usage to themselves for a moment: begin again a little later."""


class Usage(Protocol):
    """Usage events, their identities for ever, and the roll-ups that change with them."""

    async def begin(self, workspace_id: UUID) -> None:
        """Keep labels from being moved until this transaction ends; raises UsageFenced while they are.

        It comes before everything else in a transaction that records.
        """
        ...

    async def lock_keys(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> None:
        """Keep everybody else from admitting combinations of these keys until this transaction ends."""
        ...

    async def keys(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> Mapping[UUID, KeyFacts]:
        """Return what there is to know of the keys that exist, deleted ones included."""
        ...

    async def known(self, workspace_id: UUID, id_hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return id hash → content hash of the events that are recorded."""
        ...

    async def claim(self, workspace_id: UUID, events: Sequence[StoredEvent]) -> set[bytes]:
        """Add the identities that are new and return their id hashes."""
        ...

    async def combinations(self, workspace_id: UUID, places: Sequence[KeyDay]) -> Mapping[KeyDay, set[Combination]]:
        """Return the combinations that are kept apart of each of these keys and days."""
        ...

    async def insert(self, workspace_id: UUID, events: Sequence[StoredEvent], record_time: datetime) -> None: ...
    async def roll_up(self, workspace_id: UUID, rollups: RollUps) -> None:
        """Add to the roll-ups; last in a transaction, for it keeps others waiting."""
        ...

    async def report(self, workspace_id: UUID, question: UsageQuestion) -> UsageReport: ...
    async def events(self, workspace_id: UUID, question: EventPage) -> list[EventRow]:
        """Return events newest first."""
        ...


class Reports(Protocol):
    """Reports of client caches."""

    async def advance(self, workspace_id: UUID, client_id: str, sequence: int, now: datetime) -> bool:
        """Take a report as a client's last; False when it, or a later one, was taken before."""
        ...

    async def used(self, workspace_id: UUID, api_ids: frozenset[UUID], used: Mapping[UUID, datetime]) -> None:
        """Remember later uses of keys, of these apis if any are named; what is no key is passed over."""
        ...

    async def combinations(
        self, workspace_id: UUID, places: Sequence[KeyDay]
    ) -> Mapping[KeyDay, set[verification_counts.Combination]]:
        """Return the combinations that are kept apart of each of these keys and days."""
        ...

    async def count(self, workspace_id: UUID, rows: Sequence[verification_counts.CountRow]) -> None:
        """Add to the counts by key; the rows are in order."""
        ...

    async def count_by_label(self, workspace_id: UUID, rows: Sequence[verification_labels.LabelCount]) -> None:
        """Add to the counts by label, in order; last in a transaction, for it keeps others waiting."""
        ...

    async def report(self, workspace_id: UUID, question: VerificationQuestion) -> VerificationSums: ...


class RecordSource(Protocol):
    """Where verifications get what is known of secrets, and callers their credentials, never staler than promised."""

    def kept(self, sha256: bytes, /) -> Record | None:
        """Return what is kept in memory of a secret, however old; never waits."""
        ...

    def kept_credential(self, sha256: bytes, /) -> Credential | None:
        """Return what is kept of a management secret, likewise."""
        ...

    def fresh(self, sha256: bytes, at: Instant) -> Record | None:
        """Return what is known of a secret if it is at hand and, at an instant, within the hard bound; never waits."""
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
        """Return what is known of a management secret, likewise."""
        ...

    async def credential(self, sha256: bytes) -> Credential | None:
        """Return what is known of a management secret; raises DatabaseUnavailable."""
        ...


class ChangeListener(Protocol):
    """Learns what this process has committed, before anybody is answered."""

    def committed(self, revision: Revision, changes: Sequence[Change]) -> None:
        """Take account of changes, the last of which made ``revision``."""
        ...


class Transaction(Protocol):
    """One transaction's view of every repository."""

    @property
    def workspaces(self) -> Workspaces: ...
    @property
    def apis(self) -> Apis: ...
    @property
    def identities(self) -> Identities: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def secrets(self) -> Secrets: ...
    @property
    def management_keys(self) -> ManagementKeys: ...
    @property
    def audit(self) -> Audit: ...
    @property
    def requests(self) -> Requests: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def reports(self) -> Reports: ...


class Store(Protocol):
    """Runs work in transactions; deadlocks and serialisation failures are retried with the whole work."""

    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run ``work`` in one read-committed transaction and commit it."""
        ...

    async def read(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run ``work`` in one snapshot that can't write."""
        ...
