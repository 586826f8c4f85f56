"""Flushing what was counted: what can't be written now is kept, what never can is told as dropped (spec §5)."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.outcomes import counts as outcome_counts
from latchkey_server.domain.outcomes import recorder as flushing
from latchkey_server.domain.outcomes.counts import (
    CountKey,
    Outcome,
    Tally,
    VerificationCounter,
    combination_of,
    wanted_combinations,
    within,
)
from latchkey_server.domain.outcomes.last_uses import KeyUses
from latchkey_server.domain.outcomes.recorder import Noted, VerificationFlush, VerificationRecorder
from latchkey_server.domain.verify.model import Code
from tests.unit.builders import KEY_ID, MANAGEMENT_KEY_ID, NOW, OTHER_WORKSPACE_ID, WORKSPACE_ID

COUNTED = CountKey(WORKSPACE_ID, KEY_ID, Code.VALID, MANAGEMENT_KEY_ID, tags=("a", "b"))


class Recorder:
    """Writes nothing, fails as it is told, and remembers what it was asked to write."""

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)
        self.asked: list[tuple[int, Noted]] = []
        self.answering = asyncio.Event()
        self.answering.set()

    async def record(self, client_id: str, sequence: int, noted: Noted) -> bool:
        self.asked.append((sequence, noted))
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        await self.answering.wait()
        return False

    @property
    def sequences(self) -> Sequence[int]:
        return [sequence for sequence, _ in self.asked]


def flush_of(recorder: Recorder, counter: VerificationCounter) -> VerificationFlush:
    return VerificationFlush(cast(VerificationRecorder, recorder), counter, KeyUses(), "a server")


async def test_what_an_outage_keeps_from_being_written_is_sent_again_under_its_number() -> None:
    recorder, counter = Recorder(DatabaseUnavailable()), VerificationCounter()
    flush = flush_of(recorder, counter)
    counter.count(COUNTED, NOW)
    await flush.flush()
    counter.count(COUNTED, NOW)
    await flush.drain()

    assert recorder.sequences == [1, 1, 2]
    assert recorder.asked[0] == recorder.asked[1]
    assert counter.dropped == 0


async def test_what_can_never_be_written_is_dropped_once_however_many_tags_it_has_and_told() -> None:
    recorder, counter = Recorder(ValueError("never")), VerificationCounter()
    flush = flush_of(recorder, counter)
    counter.count(COUNTED, NOW)
    counter.count(COUNTED, NOW)

    with pytest.raises(ValueError, match="never"):
        await flush.flush()
    await flush.flush()

    assert (recorder.sequences, counter.dropped) == ([1], 2)


async def test_one_workspace_that_cannot_be_written_keeps_no_other_from_it() -> None:
    recorder, counter = Recorder(DatabaseUnavailable()), VerificationCounter()
    flush = flush_of(recorder, counter)
    counter.count(COUNTED, NOW)
    counter.count(COUNTED._replace(workspace_id=OTHER_WORKSPACE_ID), NOW)
    await flush.flush()
    await flush.flush()

    assert len(recorder.sequences) == 3
    assert {noted.workspace_id for _, noted in recorder.asked[:2]} == {WORKSPACE_ID, OTHER_WORKSPACE_ID}
    assert recorder.asked[2] == recorder.asked[0]


async def test_one_workspace_that_can_never_be_written_has_no_other_written_twice() -> None:
    recorder, counter = Recorder(ValueError("never")), VerificationCounter()
    flush = flush_of(recorder, counter)
    counter.count(COUNTED, NOW)
    counter.count(COUNTED._replace(workspace_id=OTHER_WORKSPACE_ID), NOW)
    recorder.answering.clear()
    flushes = [asyncio.create_task(flush.flush()) for _ in range(2)]
    for _ in range(20):
        # A turn of everything that can go on.
        await asyncio.sleep(0)
    recorder.answering.set()
    failed, done = await asyncio.gather(*flushes, return_exceptions=True)

    assert sorted(recorder.sequences) == [1, 2]
    assert isinstance(failed, ValueError)
    assert (done, counter.dropped) == (None, 1)


async def test_a_drain_writes_what_was_counted_behind_a_batch_that_can_never_be() -> None:
    recorder, counter = Recorder(DatabaseUnavailable(), ValueError("never")), VerificationCounter()
    flush = flush_of(recorder, counter)
    counter.count(COUNTED, NOW)
    await flush.flush()
    counter.count(COUNTED, NOW)

    with pytest.raises(ValueError, match="never"):
        await flush.drain()

    assert recorder.sequences == [1, 1, 2]
    assert counter.dropped == 1


async def test_a_workspaces_counts_are_sent_in_batches_of_bounded_size_up_to_one_that_cannot_be_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flushing, "COUNTS_AT_ONCE", 2)
    recorder, counter = Recorder(None, DatabaseUnavailable()), VerificationCounter()
    flush = flush_of(recorder, counter)
    for number in range(5):
        counter.count(COUNTED._replace(model=f"m{number}", tags=()), NOW)
    await flush.flush()
    sent = recorder.sequences
    counter.count(COUNTED, NOW)
    await flush.drain()

    assert sent == [1, 2]
    assert recorder.sequences == [1, 2, 2, 3, 4]
    assert [len(noted.outcomes) for _, noted in recorder.asked] == [2, 2, 2, 1, 3]
    assert counter.dropped == 0


async def test_what_can_never_be_written_is_dropped_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flushing, "COUNTS_AT_ONCE", 2)
    recorder, counter = Recorder(ValueError("never")), VerificationCounter()
    flush = flush_of(recorder, counter)
    for number in range(3):
        counter.count(COUNTED._replace(model=f"m{number}"), NOW)
    with pytest.raises(ValueError, match="never"):
        await flush.flush()
    await flush.flush()

    assert (recorder.sequences, counter.dropped) == ([1, 2], 2)


def test_tallies_beyond_those_that_may_count_at_once_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome_counts, "BEGUN_MAX", 1)
    counter = VerificationCounter()
    counter.look(NOW)
    for key_number in range(3):
        tally = Tally(COUNTED._replace(model=f"m{key_number}"))
        counter.begin(tally)
        tally.value += 1

    counts = counter.take()[WORKSPACE_ID]

    assert {place.model: count for (_, place), count in counts.items()} == {"m0": 1, "m1": 1, "m2": 1}


async def test_what_is_other_already_asks_for_no_room_of_its_own() -> None:
    tracked = Outcome(NOW, Code.VALID, MANAGEMENT_KEY_ID, "m")
    other = tracked._replace(model="", other=True)
    outcomes = {tracked: {KEY_ID: 1}, other: {KEY_ID: 1}}

    assert await wanted_combinations(outcomes) == {(KEY_ID, NOW.date()): {combination_of(tracked): None}}
    assert await within(outcomes, {(KEY_ID, NOW.date()): set()}) == {other: {KEY_ID: 2}}
