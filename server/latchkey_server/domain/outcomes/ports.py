"""What the counts of verifications ask of storage, beside what usage asks."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from latchkey_server.domain.outcomes.by_label import LabelCount
from latchkey_server.domain.outcomes.counts import Outcomes, VerificationCombination
from latchkey_server.domain.outcomes.report import VerificationQuery, VerificationReport
from latchkey_server.domain.usage import ports as usage
from latchkey_server.domain.usage.combinations import KeyDay


class VerificationRepository(Protocol):
    """Counts of verifications, last uses of keys, and which reports of them were recorded."""

    async def advance(self, workspace_id: UUID, client_id: str, sequence: int, now: datetime) -> bool:
        """Record a report as a client's last; False if it or a later one was recorded before."""
        ...

    async def used(self, workspace_id: UUID, api_ids: frozenset[UUID], used: Mapping[UUID, datetime]) -> None:
        """Record later uses of keys, of these apis if any are named; unknown keys are ignored."""
        ...

    async def combinations(
        self, workspace_id: UUID, key_days: Sequence[KeyDay]
    ) -> Mapping[KeyDay, set[VerificationCombination]]:
        """Return the combinations that the counts hold of each of these keys and days."""
        ...

    async def count(self, workspace_id: UUID, outcomes: Outcomes) -> None:
        """Add to the counts by key."""
        ...

    async def count_by_label(self, workspace_id: UUID, rows: Sequence[LabelCount]) -> None:
        """Add to the counts by label, in order; last in a transaction, for others wait for its locks."""
        ...

    async def report(self, workspace_id: UUID, query: VerificationQuery) -> VerificationReport:
        """Return one page of a report with the total of the whole.

        Raises DeadlineExceeded for one that takes too long.
        """
        ...


class Transaction(usage.Transaction, Protocol):
    """A transaction in which verifications are counted or counts are read."""

    @property
    def verifications(self) -> VerificationRepository: ...
