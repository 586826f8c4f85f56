"""Turns on the event loop: slices between which others are seen to, fair over workspaces and callers."""

import asyncio
from collections import Counter
from collections.abc import Awaitable
from uuid import UUID

import pytest

from latchkey_server.domain import turns
from latchkey_server.domain.turns import ROUNDS, Share, Turns, in_slices, share_turns, turn

A, B = UUID(int=1), UUID(int=2)
FIRST, SECOND = UUID(int=11), UUID(int=12)


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    """Turns by a clock that only work moves, and who did a step when."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.turns = Turns(self.clock, seconds=1.0)
        self.steps: list[Share] = []

    async def work(self, share: Share, steps: int, seconds: float = 1.0) -> None:
        """Do so many steps, each of so many seconds."""
        share_turns(self.turns, share)
        for _ in range(steps):
            await turn()
            self.steps.append(share)
            self.clock.now += seconds


async def together(*work: Awaitable[None]) -> None:
    await asyncio.gather(*work)


async def test_a_slice_lasts_its_time_and_then_the_loop_is_looked_at() -> None:
    world, looks = World(), 0

    async def looking() -> None:
        nonlocal looks
        while True:
            await asyncio.sleep(0)
            looks += 1

    other = asyncio.create_task(looking())
    await asyncio.create_task(world.work(Share(A, FIRST), 40, seconds=0.25))
    other.cancel()

    # Four steps fill a slice.
    assert len(world.steps) == 40
    assert 9 * ROUNDS <= looks <= 14 * ROUNDS


async def test_workspaces_have_equal_time_however_much_work_each_has_waiting() -> None:
    world = World()
    crowd = [asyncio.create_task(world.work(Share(A, UUID(int=number)), 10)) for number in range(100, 150)]
    one = asyncio.create_task(world.work(Share(B, FIRST), 10))
    await one
    done = Counter(share.workspace_id for share in world.steps)
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)

    assert done[B] == 10
    assert done[A] <= 13


async def test_who_takes_longer_than_a_slice_waits_longer_for_the_next() -> None:
    world = World()
    slow = asyncio.create_task(world.work(Share(A, FIRST), 100, seconds=4.0))
    await asyncio.create_task(world.work(Share(B, FIRST), 40))
    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)

    assert 9 <= sum(share.workspace_id == A for share in world.steps) <= 13


async def test_callers_of_one_workspace_come_in_turn() -> None:
    world = World()
    many = [asyncio.create_task(world.work(Share(A, FIRST), 5)) for _ in range(20)]
    await asyncio.create_task(world.work(Share(A, SECOND), 10))
    done = Counter(share.caller_id for share in world.steps)
    for task in many:
        task.cancel()
    await asyncio.gather(*many, return_exceptions=True)

    assert done[FIRST] <= 13


async def test_who_was_idle_gets_no_turns_for_it_later() -> None:
    world = World()
    await asyncio.create_task(world.work(Share(A, FIRST), 1))
    await asyncio.create_task(world.work(Share(B, FIRST), 50))
    world.steps.clear()
    await together(
        asyncio.create_task(world.work(Share(A, FIRST), 20)), asyncio.create_task(world.work(Share(B, FIRST), 20))
    )

    halfway = Counter(share.workspace_id for share in world.steps[:20])
    assert abs(halfway[A] - halfway[B]) <= 4


@pytest.mark.parametrize("when", ["waiting", "given"])
async def test_who_gives_up_keeps_nobody_from_a_turn(when: str) -> None:
    world = World()
    await asyncio.create_task(world.work(Share(A, FIRST), 1))
    running = asyncio.create_task(world.work(Share(A, FIRST), 3))
    gone = asyncio.create_task(world.work(Share(B, FIRST), 3))
    last = asyncio.create_task(world.work(Share(B, SECOND), 3))
    for _ in range(1 if when == "waiting" else 3):
        await asyncio.sleep(0)
    gone.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(running, last)

    assert sum(share == Share(B, SECOND) for share in world.steps) == 3


async def test_a_turn_that_was_given_and_given_up_goes_to_the_next() -> None:
    """At whatever moment it is given up."""
    for moment in range(12 * ROUNDS):
        world = World()
        tasks = [asyncio.create_task(world.work(Share(A, UUID(int=number)), 4)) for number in range(6)]
        for _ in range(moment):
            await asyncio.sleep(0)
        tasks[moment % 6].cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5):
            await asyncio.create_task(world.work(Share(B, FIRST), 3))


async def test_who_gives_up_between_a_turn_and_taking_it_up_hands_it_on() -> None:
    world, loop = World(), asyncio.get_running_loop()
    await world.turns.take(Share(A, FIRST))
    world.clock.now += 1.0
    gone = asyncio.create_task(world.work(Share(B, FIRST), 1))
    last = asyncio.create_task(world.work(Share(B, SECOND), 1))

    def look() -> None:
        if world.turns.waited:
            gone.cancel()
        else:
            loop.call_soon(look)

    await asyncio.sleep(0)
    loop.call_soon(look)
    async with asyncio.timeout(5):
        await asyncio.gather(gone, last, return_exceptions=True)

    assert gone.cancelled()
    assert world.steps == [Share(B, SECOND)]


async def test_at_most_one_slice_is_under_way_each_time_the_loop_comes_round() -> None:
    world, rounds = World(), 0
    done: list[int] = []

    async def looking() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    async def work(share: Share) -> None:
        share_turns(world.turns, share)
        for _ in range(10):
            await turn()
            done.append(rounds)
            world.clock.now += 1.0

    other = asyncio.create_task(looking())
    await asyncio.gather(*(asyncio.create_task(work(Share(UUID(int=n), FIRST))) for n in range(20)))
    other.cancel()

    assert max(Counter(done).values()) == 1


async def test_items_are_converted_in_order_and_others_have_their_turn_meanwhile() -> None:
    world, between = World(), 0

    def convert(number: int) -> int:
        world.clock.now += 0.5
        return number * 2

    async def other() -> None:
        nonlocal between
        while True:
            await asyncio.sleep(0)
            between += 1

    async def converting() -> list[int]:
        share_turns(world.turns, Share(A, FIRST))
        return await in_slices(convert, range(100))

    beside = asyncio.create_task(other())
    made = await asyncio.create_task(converting())
    beside.cancel()

    assert made == [number * 2 for number in range(100)]
    assert between >= 40


async def test_who_comes_while_a_slice_lasts_joins_it() -> None:
    world = World()
    await world.turns.take(Share(A, FIRST))
    await world.turns.take(Share(B, FIRST))

    assert world.turns.waited == 0


async def test_the_time_of_workspaces_that_wait_for_nothing_is_forgotten_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "WORKSPACES_MAX", 3)
    world = World()
    for number in range(5):
        await asyncio.create_task(world.work(Share(UUID(int=number), FIRST), 2))
    for _ in range(ROUNDS + 1):
        await asyncio.sleep(0)

    assert len(world.turns.spent()) <= 4


async def test_without_a_share_work_goes_on_as_it_is() -> None:
    await turn()

    assert await in_slices(str, [1, 2]) == ["1", "2"]


def test_the_time_that_workspaces_have_had_is_told_without_naming_them() -> None:
    async def run() -> list[float]:
        world = World()
        await asyncio.create_task(world.work(Share(A, FIRST), 2))
        await asyncio.create_task(world.work(Share(B, FIRST), 5))
        await asyncio.sleep(0)
        return world.turns.spent()

    assert asyncio.run(run()) == [5.0, 2.0]
