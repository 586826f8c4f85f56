"""ReportVerifications: what client caches decided by themselves, recorded once by client and sequence (spec §4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from latchkey_server.domain.model import Caller
from latchkey_server.domain.outcomes.counts import MODEL_MAX, UNKNOWN, Outcome, Outcomes
from latchkey_server.domain.outcomes.ports import Transaction
from latchkey_server.domain.outcomes.recorder import Noted, VerificationRecorder
from latchkey_server.domain.reporting.buckets import EARLIEST, QUARTER, quarter_of
from latchkey_server.domain.store import Clock, Store
from latchkey_server.domain.turns import turn
from latchkey_server.domain.usage.rollups import KeyFacts
from latchkey_server.domain.validation import UNITS_MAX, Violations, check_range, check_text, check_token
from latchkey_server.domain.verify.model import Code
from latchkey_server.domain.verify.request import TAG_MAX

COUNTS_MAX = 10_000
USES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """How many equal outcomes there were in a quarter of an hour; ``workspace_id`` is None for the caller's own."""

    quarter_time: datetime
    key_id: UUID
    workspace_id: UUID | None
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
class ClientReport:
    """One report of one client."""

    client_id: str
    sequence: int
    counts: tuple[OutcomeCount, ...]
    uses: tuple[KeyUse, ...]


_ByWorkspace = Mapping[UUID, Sequence[OutcomeCount]]


class ClientReports:
    """Records reports; ``accepted`` is how far back their quarters may lie."""

    def __init__(
        self, store: Store[Transaction], recorder: VerificationRecorder, clock: Clock, accepted: timedelta
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._clock = clock
        self._accepted = accepted

    async def take(self, caller: Caller, report: ClientReport) -> bool:
        """Record a report and tell whether it had been recorded before; raises InvalidField."""
        now = self._clock()
        await _check(report)
        uses = await _uses(caller, report.uses, now)
        counts = await _counts(caller, report.counts, now - self._accepted, now)
        keys = await self._keys(counts)
        noted = [
            Noted(
                workspace_id,
                await _outcomes(caller, counts.get(workspace_id, ()), keys.get(workspace_id, {})),
                uses.get(workspace_id, {}),
                caller.api_ids,
            )
            for workspace_id in sorted(uses.keys() | counts.keys())
        ]
        # One transaction a workspace, so that none fails another's; an empty report is the caller's own.
        parts = noted or [Noted(caller.workspace_id)]
        return all([await self._recorder.record(report.client_id, report.sequence, part) for part in parts])

    async def _keys(self, counts: _ByWorkspace) -> Mapping[UUID, Mapping[UUID, KeyFacts]]:
        """Return the facts of the keys that are reported on."""
        if not counts:
            return {}

        async def work(tx: Transaction) -> Mapping[UUID, Mapping[UUID, KeyFacts]]:
            return {
                workspace_id: await tx.usage.keys(workspace_id, sorted({count.key_id for count in reported}))
                for workspace_id, reported in counts.items()
            }

        return await self._store.read(work)


async def _check(report: ClientReport) -> None:
    found = Violations()
    check_token(found, "client_id", report.client_id, required=True)
    check_range(found, "sequence", report.sequence, 1, 2**63 - 1)
    for index, count in enumerate(report.counts):
        await turn()
        check_range(found, f"counts[{index}].count", count.count, 1, UNITS_MAX)
        check_text(found, f"counts[{index}].model", count.model, MODEL_MAX)
        check_text(found, f"counts[{index}].tag", count.tag, TAG_MAX)
        if (count.quarter_time - EARLIEST) % QUARTER:
            found.add(f"counts[{index}].quarter_time", "must be on a quarter of an hour")
    found.check()


async def _uses(caller: Caller, uses: Sequence[KeyUse], now: datetime) -> Mapping[UUID, Mapping[UUID, datetime]]:
    """Return the uses that the caller may report, by workspace; one ahead of now becomes now."""
    found: dict[UUID, dict[UUID, datetime]] = {}
    for use in uses:
        await turn()
        workspace_id = use.workspace_id or caller.workspace_id
        if caller.all_workspaces or workspace_id == caller.workspace_id:
            minute = min(use.used_time, now).replace(second=0, microsecond=0)
            of_workspace = found.setdefault(workspace_id, {})
            of_workspace[use.key_id] = max(minute, of_workspace.get(use.key_id, minute))
    return found


async def _counts(caller: Caller, counts: Sequence[OutcomeCount], earliest: datetime, now: datetime) -> _ByWorkspace:
    """Return the counts that the caller may report, by workspace.

    A quarter ahead of now, by a client's clock, becomes the current one; those before ``earliest`` are left out.
    """
    latest = quarter_of(now)
    found: dict[UUID, list[OutcomeCount]] = {}
    for count in counts:
        await turn()
        workspace_id = count.workspace_id or caller.workspace_id
        allowed = caller.all_workspaces or workspace_id == caller.workspace_id
        if allowed and count.quarter_time >= earliest:
            quarter = min(count.quarter_time, latest)
            found.setdefault(workspace_id, []).append(replace(count, quarter_time=quarter))
    return found


async def _outcomes(caller: Caller, counts: Sequence[OutcomeCount], keys: Mapping[UUID, KeyFacts]) -> Outcomes:
    """Return the counts of keys that exist and that the caller's binding covers; others are left out."""
    found: dict[Outcome, dict[UUID, int]] = {}
    for count in counts:
        await turn()
        facts = keys.get(count.key_id)
        if facts is None or not caller.covers_api(facts.api_id):
            continue
        # Root's own keys are not shown to other workspaces.
        own = count.workspace_id in (None, caller.workspace_id)
        by_key = found.setdefault(
            Outcome(
                count.quarter_time,
                count.code,
                caller.management_key_id if own else UNKNOWN,
                count.model,
                count.tag,
                tagged=bool(count.tag),
            ),
            {},
        )
        by_key[count.key_id] = by_key.get(count.key_id, 0) + count.count
    return found
