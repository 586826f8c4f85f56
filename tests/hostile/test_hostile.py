"""One caller can't stop the others: a victim's cached Verify goes on beside each attack.

How long the victim's calls take meanwhile is measured by `make bench`; here none of them may fail, the attacker is told
what its requests are worth, and the server stays within its bounds (SECURITY.md, What is bounded).
"""

from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

from tests.hostile.attacks import ATTACKS
from tests.hostile.measure import World, make_world
from tests.support.postgres import own_postgres
from tests.support.trial import servers

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
GROWN_MAX = 1_024 * MIB
"""What a server may grow by under an attack: the frames of all callers (128 MiB), and what the attacker has on the way,
8 requests of 4 MiB, which are held several times while they are read."""

LEFT_MAX = 192 * MIB
"""What it may keep of that afterwards: 64 MiB may lie free, the rest is what it has learnt to cache."""

TOLD = {
    "labels_of_marks": {"OK"},
    "labels_of_marks_created": {"OK"},
    "labels_of_marks_listed": {"OK"},
    "huge_key": {"INVALID_ARGUMENT"},
    "huge_metadata": {"INVALID_ARGUMENT"},
    "large_metadata": {"INVALID_ARGUMENT"},
    "huge_metadata_of_usage": {"OK"},
    "empty_items": {"INVALID_ARGUMENT"},
    "empty_events": {"INVALID_ARGUMENT"},
    "empty_groups": {"INVALID_ARGUMENT"},
    "unknown_credentials": {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"},
}
"""What attackers are told, all of it and nothing else, where that is certain."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    async with own_postgres() as (postgres, _), servers(postgres.dsn(), {}) as (server,):
        yield await make_world(server.pid, server.address, server.owner.secret)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "nothing"])
async def test_a_victim_is_answered_beside_an_attack_and_the_server_stays_within_its_bounds(
    world: World, name: str
) -> None:
    before = psutil.Process(world.pid).memory_info().rss

    measured = await world.measure(name, 1.0)

    assert measured.during.failed == 0
    assert len(measured.during.all) > 0
    assert measured.grown < GROWN_MAX
    assert set(measured.told) == TOLD.get(name, set(measured.told)), measured.told
    async for attempt in AsyncRetrying(stop=stop_after_delay(40), wait=wait_fixed(0.5), reraise=True):
        with attempt:
            assert psutil.Process(world.pid).memory_info().rss - before < LEFT_MAX
