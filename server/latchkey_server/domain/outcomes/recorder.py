"""Verifications recorded: counts by outcome and last uses, once by client and sequence (spec §4, §5).

Client caches and the processes of a server report what they decided; both are recorded in the same way.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import count, islice
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.lateness import own_time
from latchkey_server.domain.outcomes.by_label import by_label
from latchkey_server.domain.outcomes.counts import (
    UNKNOWN,
    CountKey,
    Counts,
    Outcomes,
    VerificationCombination,
    VerificationCounter,
    by_outcome,
    wanted_combinations,
    within,
)
from latchkey_server.domain.outcomes.last_uses import KeyUses
from latchkey_server.domain.outcomes.ports import Transaction
from latchkey_server.domain.outcomes.tracked import TrackedOutcomes
from latchkey_server.domain.store import Clock, Store
from latchkey_server.domain.usage.combinations import CombinationMemory, KeyDay, bounded
from latchkey_server.domain.usage.fence import unfenced

AT_A_TIME = 4
"""Workspaces that are flushed at the same time."""

COUNTS_AT_ONCE = 2_000
"""Counts of one batch: each is a row, and one more for each of its tags."""

SEND_SECONDS = 5.0
"""How long a flush waits for one workspace before its batch is left for the next flush."""

Tracked = dict[KeyDay, set[VerificationCombination]]


class Noted(NamedTuple):
    """What one report says of one workspace; ``api_ids`` are those that its client may report on, all if empty."""

    workspace_id: UUID
    outcomes: Outcomes = MappingProxyType({})
    uses: Mapping[UUID, datetime] = MappingProxyType({})
    api_ids: frozenset[UUID] = frozenset()


class _Recorded(NamedTuple):
    """What a report wrote, and which combinations it found tracked."""

    tracked: Tracked
    outcomes: Outcomes


class VerificationRecorder:
    """Records reports."""

    def __init__(self, store: Store[Transaction], clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._combinations: CombinationMemory[VerificationCombination] = CombinationMemory()
        self._tracked = TrackedOutcomes()

    async def record(self, client_id: str, sequence: int, noted: Noted) -> bool:
        """Record what a client's report says of a workspace, and tell whether it had been recorded before.

        Raises DatabaseUnavailable; it may have been recorded then, and is safe to send again.
        """
        workspace_id = noted.workspace_id

        async def work(tx: Transaction) -> _Recorded | None:
            if noted.outcomes:
                await tx.usage.begin(workspace_id)
            if not await tx.verifications.advance(workspace_id, client_id, sequence, self._clock()):
                return None
            if noted.uses:
                await tx.verifications.used(workspace_id, noted.api_ids, noted.uses)
            if not noted.outcomes:
                return _Recorded({}, {})
            wanted = await wanted_combinations(await self._tracked.unknown(workspace_id, noted.outcomes))
            tracked = await self._combinations.admit(
                workspace_id, wanted, tx.verifications.combinations, tx.usage.lock_keys
            )
            outcomes = await within(noted.outcomes, bounded(wanted, tracked))
            keys = await tx.usage.keys(workspace_id, list(set().union(*outcomes.values()) - {UNKNOWN}))
            await tx.verifications.count(workspace_id, outcomes)
            await tx.verifications.count_by_label(workspace_id, await by_label(outcomes, keys))
            return _Recorded(tracked, outcomes)

        recorded = await unfenced(lambda: self._store.write(work))
        if recorded is None:
            return True
        self._combinations.remember(workspace_id, recorded.tracked)
        self._tracked.remember(workspace_id, recorded.outcomes)
        return False


class _Batch(NamedTuple):
    sequence: int
    workspace_id: UUID
    counts: Counts
    uses: Mapping[UUID, datetime]


class VerificationFlush:
    """Flushes what a process has counted; a batch keeps its sequence number until it is known to be written.

    A workspace whose batch can't be written at the moment does not delay the others.
    """

    def __init__(
        self,
        recorder: VerificationRecorder,
        counter: VerificationCounter,
        uses: KeyUses,
        client_id: str,
        interval: float = 1.0,
    ) -> None:
        self._recorder = recorder
        self._counter = counter
        self._uses = uses
        self._client_id = client_id
        self._interval = interval
        self._sequences = count(1)
        self._batches: dict[UUID, deque[_Batch]] = {}
        self._flushing = asyncio.Lock()

    async def run(self) -> None:
        """Flush every ``interval`` seconds until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            await self.flush()

    async def drain(self) -> None:
        """Flush everything, batches left by an earlier flush too; in an outage they are lost."""
        try:
            await self.flush()
        finally:
            await self.flush()

    async def flush(self) -> None:
        """Flush now; a batch that can't be written is left for the next flush, later counts of its workspace behind.

        Raises what keeps a batch from ever being written, once all others are sent.
        """
        async with self._flushing:
            self._begin_batches()
            slots = asyncio.Semaphore(AT_A_TIME)
            sending = [self._send(workspace_id, slots) for workspace_id in list(self._batches)]
            # Else the first failure would end the flush, and the next one send again what is still being sent.
            ends = await asyncio.gather(*sending, return_exceptions=True)
        for end in ends:
            if end is not None:
                raise end

    def _begin_batches(self) -> None:
        counts, uses = self._counter.take(self._batches), self._uses.take(self._batches)
        for workspace_id in counts.keys() | uses.keys():
            counted = iter(counts.get(workspace_id, {}).items())
            first, *more = list(_portions(counted)) or [{}]
            used = uses.get(workspace_id, {})
            self._batches[workspace_id] = deque(
                [self._batch(workspace_id, first, used), *(self._batch(workspace_id, portion, {}) for portion in more)]
            )

    def _batch(self, workspace_id: UUID, counts: Counts, uses: Mapping[UUID, datetime]) -> _Batch:
        return _Batch(next(self._sequences), workspace_id, counts, uses)

    async def _send(self, workspace_id: UUID, slots: asyncio.Semaphore) -> None:
        """Send the batches of a workspace in order, up to one that can't be written now."""
        batches = self._batches[workspace_id]
        async with slots:
            while batches and await self._sent(batches[0], batches):
                batches.popleft()
        if not batches:
            del self._batches[workspace_id]

    async def _sent(self, batch: _Batch, batches: deque[_Batch]) -> bool:
        """Tell whether a batch was written; raises what keeps it from ever being."""
        noted = Noted(batch.workspace_id, await by_outcome(batch.counts), batch.uses)
        try:
            async with own_time(SEND_SECONDS):
                await self._recorder.record(self._client_id, batch.sequence, noted)
        except (DatabaseUnavailable, TimeoutError):
            return False
        except Exception:
            # Another attempt would fail too.
            self._counter.dropped += sum(batch.counts.values())
            batches.popleft()
            if not batches:
                del self._batches[batch.workspace_id]
            raise
        return True


def _portions(counted: Iterator[tuple[tuple[datetime, CountKey], int]]) -> Iterator[Counts]:
    while portion := dict(islice(counted, COUNTS_AT_ONCE)):
        yield portion
