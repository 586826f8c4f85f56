"""ReportVerifications: what client caches decided by themselves, taken once by client and sequence (spec §4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from latchkey_server.domain.access import Caller
from latchkey_server.domain.ports import Clock, Store, Transaction
from latchkey_server.domain.validation import UNITS_MAX, Violations, check_range, check_token
from latchkey_server.domain.verification import Code

COUNTS_MAX = 10_000
USES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """How many equal outcomes there were in a quarter of an hour."""

    quarter_time: datetime
    key_id: UUID
    code: Code
    model: str
    tag: str
    count: int


@dataclass(frozen=True, slots=True)
class KeyUse:
    """When a key was last used; ``workspace_id`` is None for the caller's own workspace."""

    key_id: UUID
    workspace_id: UUID | None
    used_time: datetime


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """One report of one client."""

    client_id: str
    sequence: int
    counts: tuple[OutcomeCount, ...]
    uses: tuple[KeyUse, ...]


class VerificationReports:
    """Takes reports."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def take(self, caller: Caller, report: VerificationReport) -> bool:
        """Record a report and tell whether it had been recorded before; raises InvalidField."""
        _check(report)

        async def work(tx: Transaction) -> bool:
            now = self._clock()
            if not await tx.reports.advance(caller.workspace_id, report.client_id, report.sequence, now):
                return True
            for workspace_id, used in _by_workspace(caller, report.uses, now).items():
                await tx.reports.used(workspace_id, caller.api_ids, used)
            return False

        return await self._store.write(work)


def _check(report: VerificationReport) -> None:
    found = Violations()
    check_token(found, "client_id", report.client_id, required=True)
    check_range(found, "sequence", report.sequence, 1, 2**63 - 1)
    for index, count in enumerate(report.counts):
        check_range(found, f"counts[{index}].count", count.count, 1, UNITS_MAX)
    found.check()


def _by_workspace(caller: Caller, uses: Sequence[KeyUse], now: datetime) -> Mapping[UUID, Mapping[UUID, datetime]]:
    """Return the uses by workspace, those that the caller may tell of; none lies ahead of now."""
    found: dict[UUID, dict[UUID, datetime]] = {}
    for use in uses:
        workspace_id = use.workspace_id or caller.workspace_id
        if caller.all_workspaces or workspace_id == caller.workspace_id:
            minute = min(use.used_time, now).replace(second=0, microsecond=0)
            of_workspace = found.setdefault(workspace_id, {})
            of_workspace[use.key_id] = max(minute, of_workspace.get(use.key_id, minute))
    return found
