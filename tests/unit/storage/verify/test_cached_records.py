"""The source of records: the cache while it is confirmed, else the database, else the rules of an outage (spec §4)."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import cast
from uuid import UUID

import pytest

from latchkey_server.domain.access.credentials import Credential
from latchkey_server.domain.errors import DatabaseUnavailable, RevisionNotReached
from latchkey_server.domain.freshness import HARD_BOUND, Freshness, age, seen_revision
from latchkey_server.domain.model import Change, ChangeKind, CreditState, Revision
from latchkey_server.domain.verify.model import Record
from latchkey_server.storage.verify.availability import Availability
from latchkey_server.storage.verify.cache import KeyCache
from latchkey_server.storage.verify.cached_records import CachedRecords
from latchkey_server.storage.verify.records import DatabaseRecords
from tests.unit.builders import (
    KEY_ID,
    WORKSPACE_ID,
    make_key,
    make_management_key,
    make_record,
    some_credits,
    uuid_of,
)

KNOWN, OTHER, UNKNOWN = b"k" * 32, b"o" * 32, b"u" * 32
STALE_IF_ERROR = 10.0
AT = 1_000.0


class World:
    """A database whose answers can be held back, a cache before it, and the time."""

    def __init__(self) -> None:
        self.now, self.revision_now = AT, 7
        self.credits: CreditState | None = None
        self.there = {KNOWN: KEY_ID, OTHER: uuid_of(22)}
        self.lost = False
        self.open, self.read = asyncio.Event(), asyncio.Event()
        self.open.set()
        self.asked: list[list[bytes]] = []
        self.revisions_asked = 0
        self.cache, self.availability = KeyCache(1_000, 1_000_000), Availability()
        self.source = CachedRecords(
            cast(DatabaseRecords, self),
            self.cache,
            self.availability,
            timedelta(seconds=STALE_IF_ERROR),
            lambda: self.now,
        )

    async def records(self, sha256s: Sequence[bytes]) -> dict[bytes, Record]:
        self.asked.append(sorted(sha256s))
        if self.lost:
            raise DatabaseUnavailable
        read_at, revision = self.now, self.revision_now
        self.read.set()
        await self.open.wait()
        history = self.cache.history(WORKSPACE_ID, revision, read_at)
        return {
            sha256: make_record(
                make_key(key_id=self.there[sha256]),
                revision=revision,
                read_at=read_at,
                history=history,
                credits=self.credits,
            )
            for sha256 in sha256s
            if sha256 in self.there
        }

    async def credentials(self, sha256s: Sequence[bytes]) -> dict[bytes, Credential]:
        if self.lost:
            raise DatabaseUnavailable
        history = self.cache.history(WORKSPACE_ID, self.revision_now, self.now)
        return {
            sha256: Credential(make_management_key(), False, None, False, self.revision_now, self.now, history)
            for sha256 in sha256s
            if sha256 in self.there
        }

    async def revision(self, workspace_id: UUID) -> int:
        self.revisions_asked += 1
        if self.lost:
            raise DatabaseUnavailable
        return self.revision_now if workspace_id == WORKSPACE_ID else 0

    def change(self, key_id: UUID = KEY_ID) -> None:
        """Change a key and let the change feed tell of it."""
        self.revision_now += 1
        self.cache.apply(
            Revision(WORKSPACE_ID, self.revision_now), [(self.revision_now, Change(ChangeKind.KEY_CHANGED, key_id))]
        )
        self.confirm()

    def confirm(self) -> None:
        self.cache.histories[WORKSPACE_ID].confirmed_at = self.now

    def lose(self) -> None:
        """Let the database be gone, and known to be."""
        self.lost = True
        self.availability.failed()

    async def get(self, sha256: bytes) -> Record | DatabaseUnavailable | None:
        return (await self.source.records([sha256])).get(sha256)


@pytest.fixture
def world() -> World:
    """A database with two keys."""
    return World()


async def test_what_is_confirmed_is_answered_without_asking(world: World) -> None:
    first = await world.get(KNOWN)
    world.now += HARD_BOUND

    assert await world.get(KNOWN) is first
    assert world.asked == [[KNOWN]]


async def test_what_is_not_confirmed_any_more_is_asked_for(world: World) -> None:
    await world.get(KNOWN)
    world.now += HARD_BOUND + 0.001

    assert world.source.fresh(KNOWN, world.now) is None
    found = await world.get(KNOWN)
    assert isinstance(found, Record)
    assert found.read_at == world.now
    assert world.source.fresh(KNOWN, world.now) is found


async def test_an_unknown_secret_is_asked_for_again_after_2_seconds(world: World) -> None:
    assert await world.get(UNKNOWN) is None
    world.now += HARD_BOUND
    assert await world.get(UNKNOWN) is None
    assert len(world.asked) == 1

    world.now += 0.001
    assert await world.get(UNKNOWN) is None
    assert len(world.asked) == 2


async def test_in_an_outage_a_known_key_is_answered_for_a_while(world: World) -> None:
    first = await world.get(KNOWN)
    world.lose()

    world.now += STALE_IF_ERROR
    assert await world.get(KNOWN) is first
    world.now += 0.001
    assert isinstance(await world.get(KNOWN), DatabaseUnavailable)


async def test_in_an_outage_nothing_is_called_unknown(world: World) -> None:
    """Not even what was found to be so a moment before."""
    await world.get(UNKNOWN)
    assert await world.source.credential(UNKNOWN) is None
    world.lose()

    assert isinstance(await world.get(UNKNOWN), DatabaseUnavailable)
    with pytest.raises(DatabaseUnavailable):
        await world.source.credential(UNKNOWN)


async def test_in_an_outage_what_a_budget_is_spent_on_fails_closed(world: World) -> None:
    world.credits = some_credits()
    assert isinstance(await world.get(KNOWN), Record)
    world.lose()

    assert isinstance(await world.get(KNOWN), DatabaseUnavailable)


async def test_an_outage_is_told_at_once_to_whoever_waits(world: World) -> None:
    world.open.clear()
    waiting = asyncio.create_task(world.get(KNOWN))
    await world.read.wait()

    world.lose()

    assert isinstance(await waiting, DatabaseUnavailable)


async def test_in_an_outage_a_demand_that_cannot_be_met_is_not_answered(world: World) -> None:
    await world.get(KNOWN)
    world.lose()

    for demand in (Freshness(0.0), Freshness(min_revision=Revision(WORKSPACE_ID, 8))):
        world.now += 0.001
        with pytest.raises(DatabaseUnavailable):
            await world.source.record(KNOWN, demand)


async def test_in_an_outage_a_demand_that_is_met_by_what_is_kept_is_answered(world: World) -> None:
    kept = await world.get(KNOWN)
    world.lose()
    world.now += 1.0

    assert await world.source.record(KNOWN, Freshness(1.0, Revision(WORKSPACE_ID, 7))) is kept


@pytest.mark.parametrize("sha256", [KNOWN, UNKNOWN], ids=["a known key", "an unknown one"])
async def test_a_revision_that_is_not_there_yet_is_not_reached(world: World, sha256: bytes) -> None:
    with pytest.raises(RevisionNotReached):
        await world.source.record(sha256, Freshness(min_revision=Revision(WORKSPACE_ID, 8)))


async def test_a_demand_of_no_age_is_always_read(world: World) -> None:
    await world.get(KNOWN)
    for reads in (2, 3):
        world.now += 0.001
        await world.source.record(KNOWN, Freshness(0.0))
        assert len(world.asked) == reads


async def test_many_unknown_secrets_at_one_revision_ask_for_it_once(world: World) -> None:
    """Look-ups have few connections, and the change feed is to find one of them."""
    demand = Freshness(min_revision=Revision(WORKSPACE_ID, 7))

    found = await asyncio.gather(*(world.source.record(bytes([at]) * 32, demand) for at in range(100)))

    assert found == [None] * 100
    assert world.revisions_asked == 1


async def test_what_a_load_read_before_a_change_says_no_more_than_it_read(world: World) -> None:
    await world.get(OTHER)
    world.open.clear()
    waiting = asyncio.create_task(world.get(KNOWN))
    world.read.clear()
    await world.read.wait()

    world.now += 1.0
    world.change()
    world.open.set()
    found = await waiting

    assert isinstance(found, Record)
    assert (seen_revision(found), age(found, world.now)) == (7, 1.0)


async def test_what_took_too_long_to_load_is_asked_for_again(world: World) -> None:
    await world.get(OTHER)
    world.open.clear()
    world.read.clear()
    waiting = asyncio.create_task(world.get(KNOWN))
    await world.read.wait()

    world.now += HARD_BOUND + 0.001
    world.change()
    world.open.set()
    found = await waiting

    assert isinstance(found, Record)
    assert (found.revision, age(found, world.now)) == (8, 0.0)


async def test_what_was_cached_is_asked_for_again_if_a_change_took_it_while_the_rest_was_loaded(world: World) -> None:
    await world.get(KNOWN)
    world.open.clear()
    world.read.clear()
    waiting = asyncio.create_task(world.source.records([KNOWN, OTHER]))
    await world.read.wait()

    world.change()
    world.now += HARD_BOUND + 0.001
    world.confirm()
    world.open.set()
    found = (await waiting)[KNOWN]

    assert isinstance(found, Record)
    assert found.revision == 8


async def test_whoever_still_holds_what_a_change_took_away_sees_it_grow_old(world: World) -> None:
    held = await world.get(KNOWN)
    assert isinstance(held, Record)

    world.now += 1.0
    world.change()
    world.now += 5.0
    world.confirm()

    assert age(held, world.now) == 6.0
    assert seen_revision(held) == 7


async def test_look_ups_are_counted_and_those_of_what_was_cached_too_long_ago_apart() -> None:
    world = World()
    await world.source.records([KNOWN, OTHER])
    await world.source.records([KNOWN, OTHER])
    counted = [(world.source.looked_up, world.source.expired)]
    world.now += HARD_BOUND + 0.1
    await world.get(KNOWN)
    counted.append((world.source.looked_up, world.source.expired))
    world.lose()
    world.now += HARD_BOUND + 0.1
    await world.get(KNOWN)
    counted.append((world.source.looked_up, world.source.expired))

    assert counted == [(2, 0), (3, 1), (3, 2)]
