"""ReportUsage: each event becomes NEW, DUPLICATE, CONFLICT or REJECTED by itself; acknowledged means committed."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import NamedTuple
from uuid import UUID

from latchkey_server.domain.model import Caller
from latchkey_server.domain.store import Clock, Store
from latchkey_server.domain.turns import in_slices
from latchkey_server.domain.usage.combinations import CombinationMemory, bounded
from latchkey_server.domain.usage.event import EVENTS_MAX, ItemResult, StoredEvent
from latchkey_server.domain.usage.fence import unfenced
from latchkey_server.domain.usage.group_commit import GroupCommit
from latchkey_server.domain.usage.outcomes import (
    Candidate,
    Checked,
    Prepared,
    ReportedItem,
    Window,
    checked,
    first_of_each,
    outcomes,
    refused,
    sort_out,
)
from latchkey_server.domain.usage.ports import Transaction
from latchkey_server.domain.usage.rollups import Bounded, UsageCombination, roll_up, sum_up, wanted_combinations
from latchkey_server.domain.validation import require_number

AHEAD = timedelta(minutes=5)


class Submission(NamedTuple):
    """What one call reports."""

    caller: Caller
    items: Sequence[Checked]


class UsageRecorder:
    """Records usage events; ``accepted`` is how far back they may have happened."""

    def __init__(self, store: Store[Transaction], clock: Clock, accepted: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._accepted = accepted
        self._combinations: CombinationMemory[UsageCombination] = CombinationMemory()
        self.groups: GroupCommit[Submission, list[ItemResult]] = GroupCommit(self._write)

    async def report(self, caller: Caller, items: Sequence[ReportedItem]) -> list[ItemResult]:
        """Record the events and return a result for each, in order.

        Raises InvalidField for their number, Overloaded, and DatabaseUnavailable: then they may have been recorded, and
        are safe to send again.
        """
        require_number("events", len(items), EVENTS_MAX)
        submission = Submission(caller, await in_slices(checked, items))
        return await self.groups.submit(caller.workspace_id, submission, len(items))

    async def _write(self, workspace_id: UUID, submissions: Sequence[Submission]) -> list[list[ItemResult]]:
        async def work(tx: Transaction) -> tuple[list[list[ItemResult]], Bounded]:
            now = self._clock()
            await tx.usage.begin(workspace_id)
            keys = await tx.usage.keys(workspace_id, _key_ids(submissions))
            window = Window(now - self._accepted, now + AHEAD)
            sorted_out = [
                await in_slices(partial(sort_out, submission.caller, keys, window), submission.items)
                for submission in submissions
            ]
            new, results = await _claim(tx, workspace_id, sorted_out)
            summed = sum_up(new)
            wanted = wanted_combinations(summed, keys)
            tracked = await self._combinations.admit(workspace_id, wanted, tx.usage.combinations, tx.usage.lock_keys)
            await tx.usage.insert(workspace_id, new, now)
            await tx.usage.roll_up(workspace_id, roll_up(summed, keys, bounded(wanted, tracked)))
            return results, tracked

        results, tracked = await unfenced(lambda: self._store.write(work))
        # Only after the commit: what is rolled back is not tracked.
        self._combinations.remember(workspace_id, tracked)
        return results


def _key_ids(submissions: Sequence[Submission]) -> list[UUID]:
    found = {
        item.event.key_id for submission in submissions for item in submission.items if isinstance(item, Candidate)
    }
    return sorted(found)


async def _claim(
    tx: Transaction, workspace_id: UUID, sorted_out: Sequence[Sequence[Prepared]]
) -> tuple[list[StoredEvent], list[list[ItemResult]]]:
    """Return the events to record, their identities claimed, and what becomes of each item.

    What may be recorded is claimed without a look-up, since nearly all of it is new: only identities found taken, by an
    earlier or a concurrent call, are compared with what is recorded. What may not be recorded is looked up too, for
    identity comes before time and key (spec §5).
    """
    fresh = first_of_each(sorted_out)
    claimed = await tx.usage.claim(workspace_id, [fresh[id_hash] for id_hash in sorted(fresh)])
    taken = (refused(sorted_out) | fresh.keys()) - claimed
    recorded = await tx.usage.known(workspace_id, sorted(taken)) if taken else {}
    new = [item for id_hash, item in fresh.items() if id_hash in claimed]
    return new, outcomes(sorted_out, recorded)
