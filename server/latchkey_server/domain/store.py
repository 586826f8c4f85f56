"""What every package of the domain asks of storage: transactions, and in them revisions, audit and answered requests.

Each package adds in its own ``ports`` what else its transactions hold. A ``Store`` of a transaction that holds
everything serves all of them.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar
from uuid import UUID

from latchkey_server.domain.model import AuditEvent, Change, Json, Revision, Workspace

T = TypeVar("T")
Tx_co = TypeVar("Tx_co", covariant=True)

Clock = Callable[[], datetime]
"""Gives the time now, in UTC."""


class WorkspaceRevisions(Protocol):
    """The counter of each workspace's changes."""

    async def get(self, workspace_id: UUID) -> Workspace | None:
        """Return a workspace, or None for an unknown one."""
        ...

    async def lock_revision(self, workspace_id: UUID) -> int:
        """Return the current revision, locked: every other mutation of the workspace waits.

        Raises WorkspaceNotFound.
        """
        ...

    async def append_changes(self, workspace_id: UUID, after: int, changes: Sequence[Change], now: datetime) -> None:
        """Record changes as the revisions ``after`` + 1, + 2, … and notify every process when they are committed."""
        ...


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which audit events a list holds; None does not filter."""

    target_id: str | None = None
    actor_id: UUID | None = None
    action: str | None = None
    start: datetime | None = None
    end: datetime | None = None


class AuditRepository(Protocol):
    """The record of mutations."""

    async def append(self, events: Sequence[AuditEvent]) -> None:
        """Add events; their ids are new."""
        ...

    async def page(self, workspace_id: UUID, wanted: AuditFilter, before: UUID | None, limit: int) -> list[AuditEvent]:
        """Return up to ``limit`` events that the filter lets through, newest first, those older than ``before``."""
        ...


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


class RequestRepository(Protocol):
    """Answered request_ids, for 24 hours."""

    async def find(self, key: RequestKey, since: datetime) -> AnsweredRequest | None:
        """Return the answer to a request_id that was recorded after ``since``, or None."""
        ...

    async def record(self, key: RequestKey, answered: AnsweredRequest, since: datetime, now: datetime) -> bool:
        """Record an answer, in place of one from before ``since``.

        False when another call answered the same request_id meanwhile.
        """
        ...


class MutationTransaction(Protocol):
    """What a mutation needs of a transaction, whatever it changes."""

    @property
    def workspaces(self) -> WorkspaceRevisions: ...
    @property
    def audit(self) -> AuditRepository: ...
    @property
    def requests(self) -> RequestRepository: ...


class Store(Protocol[Tx_co]):
    """Runs work in transactions; deadlocks and serialisation failures are retried with the whole work."""

    async def write(self, work: Callable[[Tx_co], Awaitable[T]]) -> T:
        """Run ``work`` in one read-committed transaction, commit it and return what it gives.

        Raises DatabaseUnavailable, and what the work raises, which rolls back.
        """
        ...

    async def read(self, work: Callable[[Tx_co], Awaitable[T]]) -> T:
        """Run ``work`` in one snapshot that can't write and return what it gives; raises as ``write`` does."""
        ...


class ChangeListener(Protocol):
    """Learns what this process has committed, before the caller is answered."""

    def committed(self, revision: Revision, changes: Sequence[Change]) -> None:
        """Apply changes, the last of which made ``revision``."""
        ...
