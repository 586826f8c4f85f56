"""Group commits: written together, one by one when a group can't be, and never without bound."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest

from latchkey_server.domain.errors import DatabaseUnavailable, Overloaded
from latchkey_server.domain.usage.group_commit import GroupCommit
from tests.unit.builders import OTHER_WORKSPACE_ID, WORKSPACE_ID


class Writer:
    """Writes groups when it is let, and remembers them."""

    def __init__(self) -> None:
        self.groups: list[tuple[UUID, list[str]]] = []
        self.may_go_on = asyncio.Event()
        self.failure: dict[str, Exception] = {}

    async def write(self, workspace_id: UUID, submitted: Sequence[str]) -> list[str]:
        self.groups.append((workspace_id, list(submitted)))
        await self.may_go_on.wait()
        for text in submitted:
            if text in self.failure:
                raise self.failure[text]
        return [text.upper() for text in submitted]


async def begun(
    groups: GroupCommit[str, str], *texts: str, workspace_id: UUID = WORKSPACE_ID
) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(groups.submit(workspace_id, text, 1)) for text in texts]
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_a_group_is_written_is_written_together() -> None:
    writer = Writer()
    groups = GroupCommit(writer.write)
    first = await begun(groups, "a")
    await asyncio.sleep(0)
    later = await begun(groups, "b", "c")
    writer.may_go_on.set()

    assert await asyncio.gather(*first, *later) == ["A", "B", "C"]
    assert writer.groups == [(WORKSPACE_ID, ["a"]), (WORKSPACE_ID, ["b", "c"])]
    assert groups.pending == 0


async def test_workspaces_do_not_wait_for_each_other() -> None:
    writer = Writer()
    groups = GroupCommit(writer.write)
    tasks = [*await begun(groups, "a"), *await begun(groups, "b", workspace_id=OTHER_WORKSPACE_ID)]
    await asyncio.sleep(0)

    assert writer.groups == [(WORKSPACE_ID, ["a"]), (OTHER_WORKSPACE_ID, ["b"])]
    writer.may_go_on.set()
    await asyncio.gather(*tasks)


async def test_a_group_holds_no_more_than_it_may() -> None:
    writer = Writer()
    writer.may_go_on.set()
    groups = GroupCommit(writer.write, group_max=2)

    assert await asyncio.gather(*await begun(groups, *"abcde")) == list("ABCDE")
    assert [texts for _, texts in writer.groups] == [["a", "b"], ["c", "d"], ["e"]]


async def test_one_submission_may_be_larger_than_a_group() -> None:
    writer = Writer()
    writer.may_go_on.set()

    assert await GroupCommit(writer.write, group_max=2).submit(WORKSPACE_ID, "a", 1_000) == "A"


async def test_more_than_may_wait_is_refused_and_what_waits_is_not_lost() -> None:
    writer = Writer()
    groups = GroupCommit(writer.write, pending_max=4)
    tasks = await begun(groups, "a", "b")

    with pytest.raises(Overloaded):
        await groups.submit(WORKSPACE_ID, "c", 1)
    writer.may_go_on.set()

    assert await asyncio.gather(*tasks) == ["A", "B"]
    assert await groups.submit(WORKSPACE_ID, "c", 1) == "C"


async def test_a_workspace_that_fills_its_half_keeps_no_other_from_recording() -> None:
    writer = Writer()
    groups = GroupCommit(writer.write, pending_max=4)
    full = await begun(groups, "a", "b")
    other = await begun(groups, "x", workspace_id=OTHER_WORKSPACE_ID)
    writer.may_go_on.set()

    assert await asyncio.gather(*full, *other) == ["A", "B", "X"]


async def test_an_outage_is_everybodys() -> None:
    writer = Writer()
    writer.may_go_on.set()
    writer.failure = {"a": DatabaseUnavailable()}
    groups = GroupCommit(writer.write)

    results = await asyncio.gather(*await begun(groups, "a", "b"), return_exceptions=True)

    assert [type(result) for result in results] == [DatabaseUnavailable] * 2
    assert groups.pending == 0


async def test_what_cannot_be_written_fails_alone() -> None:
    writer = Writer()
    writer.may_go_on.set()
    writer.failure = {"b": ValueError()}
    groups = GroupCommit(writer.write)

    results = await asyncio.gather(*await begun(groups, "a", "b", "c"), return_exceptions=True)

    assert (results[0], type(results[1]), results[2]) == ("A", ValueError, "C")
    assert groups.pending == 0


async def test_what_nobody_waits_for_any_more_is_not_written() -> None:
    writer = Writer()
    groups = GroupCommit(writer.write)
    first = await begun(groups, "a")
    await asyncio.sleep(0)
    gone, kept = await begun(groups, "b", "c")
    gone.cancel()
    writer.may_go_on.set()

    assert await asyncio.gather(*first, kept) == ["A", "C"]
    assert writer.groups[1:] == [(WORKSPACE_ID, ["c"])]
    assert groups.pending == 0


async def test_draining_waits_for_what_is_being_written() -> None:
    writer = Writer()
    groups = GroupCommit(writer.write)
    [task] = await begun(groups, "a")
    draining = asyncio.create_task(groups.drain())
    await asyncio.sleep(0)
    assert not draining.done()
    writer.may_go_on.set()
    await draining

    assert await task == "A"
