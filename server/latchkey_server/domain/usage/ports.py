"""What usage asks of storage: events, their identities, and the roll-ups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from latchkey_server.domain.usage.combinations import KeyDay
from latchkey_server.domain.usage.event import StoredEvent, UsageEvent
from latchkey_server.domain.usage.report import EventPage, Measure, UsageQuery, UsageReport
from latchkey_server.domain.usage.rollups import KeyFacts, RollUps, UsageCombination


@dataclass(frozen=True, slots=True)
class EventRow:
    """A recorded event with its defaults, its id hash, and when it was recorded."""

    event: UsageEvent
    id_hash: bytes
    record_time: datetime


class UsageFenced(Exception):
    """A fence keeps others from recording for a workspace at the moment: begin again a little later."""


class UsageRepository(Protocol):
    """Usage events, their identities for ever, and the roll-ups that change with them."""

    async def begin(self, workspace_id: UUID) -> None:
        """Keep labels from being moved until this transaction ends; raises UsageFenced while they are.

        It is the first step of a transaction that records.
        """
        ...

    async def lock_keys(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> None:
        """Make everybody else who admits combinations of these keys wait until this transaction ends."""
        ...

    async def keys(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> Mapping[UUID, KeyFacts]:
        """Return the facts of the keys that exist, deleted ones included."""
        ...

    async def known(self, workspace_id: UUID, id_hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return id hash → content hash of the events that are recorded."""
        ...

    async def claim(self, workspace_id: UUID, events: Sequence[StoredEvent]) -> set[bytes]:
        """Add the identities that are new and return their id hashes."""
        ...

    async def combinations(
        self, workspace_id: UUID, key_days: Sequence[KeyDay]
    ) -> Mapping[KeyDay, set[UsageCombination]]:
        """Return the combinations that the roll-ups hold of each of these keys and days."""
        ...

    async def insert(self, workspace_id: UUID, events: Sequence[StoredEvent], record_time: datetime) -> None:
        """Add events whose identities were claimed in this transaction."""
        ...

    async def roll_up(self, workspace_id: UUID, rollups: RollUps) -> None:
        """Add to the roll-ups; last in a transaction, for others wait for its locks."""
        ...

    async def report(self, workspace_id: UUID, query: UsageQuery, order_by: Measure) -> UsageReport:
        """Return one page of a report with the totals of the whole.

        Raises DeadlineExceeded for one that takes too long.
        """
        ...

    async def events(self, workspace_id: UUID, page: EventPage) -> list[EventRow]:
        """Return events newest first; raises DeadlineExceeded."""
        ...


class Transaction(Protocol):
    """A transaction in which usage is recorded or read."""

    @property
    def usage(self) -> UsageRepository: ...
