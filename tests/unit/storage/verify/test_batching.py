"""Look-up batching: concurrent look-ups share queries, and none gets what was read before it asked."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from latchkey_server.storage.verify.batching import BATCH_MAX, ENOUGH, FLIGHTS_MAX, LookupBatcher


class Source:
    """A table whose queries can be held open."""

    def __init__(self) -> None:
        self.rows: dict[int, str] = {}
        self.queries: list[list[int]] = []
        self.sent = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def fetch(self, keys: Sequence[int]) -> Mapping[int, str]:
        self.queries.append(sorted(keys))
        self.sent.set()
        snapshot = {key: self.rows[key] for key in keys if key in self.rows}
        await self.open.wait()
        if self.error:
            raise self.error
        return snapshot


async def test_look_ups_of_one_moment_are_one_query_and_each_key_is_in_it_once() -> None:
    source = Source()
    source.rows = {1: "a", 2: "b"}
    batcher = LookupBatcher(source.fetch)

    found = await asyncio.gather(batcher.find(1), batcher.find(2), batcher.find(1), batcher.find(3))

    assert list(found) == ["a", "b", "a", None]
    assert source.queries == [[1, 2, 3]]


async def test_a_look_up_never_joins_a_query_that_was_sent_before_it_asked() -> None:
    source = Source()
    source.open.clear()
    batcher = LookupBatcher(source.fetch)
    early = asyncio.create_task(batcher.find(1))
    await source.sent.wait()

    source.rows[1] = "written meanwhile"
    late = asyncio.create_task(batcher.find(1))
    source.open.set()

    assert (await early, await late) == (None, "written meanwhile")
    assert source.queries == [[1], [1]]


async def test_while_queries_are_under_way_the_next_one_fills_up() -> None:
    source = Source()
    source.open.clear()
    # However slow the machine is, those to come are waited for.
    batcher = LookupBatcher(source.fetch, linger=3_600)
    waiting = []
    for key in range(ENOUGH * (FLIGHTS_MAX + 1)):
        waiting.append(asyncio.create_task(batcher.find(key)))
        for _ in range(5):
            await asyncio.sleep(0)
    source.open.set()
    await asyncio.gather(*waiting)

    assert [len(query) for query in source.queries[:FLIGHTS_MAX]] == [1, ENOUGH]
    assert sorted(key for query in source.queries for key in query) == list(range(len(waiting)))


async def test_a_lone_look_up_is_sent_at_once_and_one_in_company_waits_for_more() -> None:
    source = Source()
    batcher = LookupBatcher(source.fetch)
    await batcher.find(1)

    for key in (2, 3, 4):
        await asyncio.gather(batcher.find(key), *(_later(batcher, key * 10 + turns, turns) for turns in range(9)))

    assert len(source.queries) <= 1 + 3


async def _later(batcher: LookupBatcher[int, str], key: int, turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
    await batcher.find(key)


async def test_a_query_is_bounded() -> None:
    source = Source()
    batcher = LookupBatcher(source.fetch)

    await batcher.find_all(range(BATCH_MAX * 2 + 1))

    assert sorted(map(len, source.queries)) == [1, BATCH_MAX, BATCH_MAX]


async def test_a_cancelled_look_up_leaves_the_others_their_answer() -> None:
    source = Source()
    source.rows = {1: "a"}
    source.open.clear()
    batcher = LookupBatcher(source.fetch)
    cancelled, kept = asyncio.create_task(batcher.find(1)), asyncio.create_task(batcher.find(1))
    await source.sent.wait()
    cancelled.cancel()
    source.open.set()

    assert await kept == "a"
    assert cancelled.cancelled()


async def test_a_failed_query_fails_its_look_ups_and_no_later_one() -> None:
    source = Source()
    source.error = RuntimeError("down")
    batcher = LookupBatcher(source.fetch)
    with pytest.raises(RuntimeError, match="down"):
        await asyncio.gather(batcher.find(1), batcher.find(2))

    source.error = None
    source.rows = {1: "back"}

    assert await batcher.find(1) == "back"
