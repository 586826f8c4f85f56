"""Group commits whose writers or callers go: nobody else waits for ever, and no room stays taken."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

import pytest

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.usage import group_commit
from latchkey_server.domain.usage.group_commit import GroupCommit
from tests.unit.builders import WORKSPACE_ID


class Gates:
    """Writes each group when its gate is opened, in any order."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.begun: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.open: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.failure = failure

    async def write(self, _workspace_id: UUID, submitted: Sequence[str]) -> list[str]:
        self.begun[submitted[0]].set()
        await self.open[submitted[0]].wait()
        if self.failure:
            raise self.failure
        return list(submitted)


async def submitted(groups: GroupCommit[str, str], *texts: str) -> list[asyncio.Task[str]]:
    """Submit texts one by one, each as much as makes another writer worth while."""
    tasks = []
    for text in texts:
        tasks.append(asyncio.create_task(groups.submit(WORKSPACE_ID, text, group_commit.ENOUGH)))
        for _ in range(5):
            await asyncio.sleep(0)
    return tasks


async def test_a_writer_that_is_done_leaves_the_queue_to_the_other() -> None:
    gates = Gates()
    groups = GroupCommit(gates.write)
    first, second = await submitted(groups, "a", "b")
    gates.open["b"].set()
    written = await second
    third = (await submitted(groups, "c"))[0]
    gates.open["a"].set()
    gates.open["c"].set()

    assert [written, await first, await third] == ["b", "a", "c"]
    await groups.drain()
    assert groups.pending == 0


async def test_when_a_writer_is_cancelled_those_who_wait_behind_it_are_too() -> None:
    gates = Gates()
    groups = GroupCommit(gates.write)
    before = asyncio.all_tasks()
    begun = await submitted(groups, "a", "b")
    waiting = await submitted(groups, "c")
    for writer in asyncio.all_tasks() - before - {*begun, *waiting}:
        writer.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert groups.pending == 0
    for task in begun:
        task.cancel()


async def test_an_outage_is_told_to_those_who_still_wait_for_the_group() -> None:
    gates = Gates(DatabaseUnavailable())
    groups = GroupCommit(gates.write)
    first = await submitted(groups, "a")
    together = [asyncio.create_task(groups.submit(WORKSPACE_ID, text, 1)) for text in ("b", "c")]
    await asyncio.sleep(0)
    gates.open["a"].set()
    await asyncio.wait_for(gates.begun["b"].wait(), 30)
    together[0].cancel()
    await asyncio.sleep(0)
    gates.open["b"].set()

    results = await asyncio.gather(*first, *together, return_exceptions=True)

    assert [type(result) for result in results] == [
        DatabaseUnavailable,
        asyncio.CancelledError,
        DatabaseUnavailable,
    ]
    assert groups.pending == 0


async def test_a_group_that_nobody_waits_for_is_not_written() -> None:
    gates = Gates()
    groups = GroupCommit(gates.write)
    first = await submitted(groups, "a")
    gone = (await submitted(groups, "b"))[0]
    third = asyncio.create_task(groups.submit(WORKSPACE_ID, "c", 1))
    await asyncio.sleep(0)
    third.cancel()
    await asyncio.wait([third])
    gates.open["a"].set()
    gates.open["b"].set()
    await asyncio.gather(*first, gone)
    await groups.drain()

    assert "c" not in gates.begun
    assert groups.pending == 0


async def test_who_gives_up_while_the_group_is_written_keeps_nobody_from_the_result() -> None:
    gates = Gates()
    groups = GroupCommit(gates.write)
    first = await submitted(groups, "a")
    gone, kept = (asyncio.create_task(groups.submit(WORKSPACE_ID, text, 1)) for text in ("b", "c"))
    await asyncio.sleep(0)
    gates.open["a"].set()
    await asyncio.wait_for(gates.begun["b"].wait(), 30)
    gone.cancel()
    await asyncio.sleep(0)
    gates.open["b"].set()

    assert await asyncio.gather(*first, kept) == ["a", "c"]
    assert groups.pending == 0
