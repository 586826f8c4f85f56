"""What is connected to: a standby, a former primary and another system are told from the database (a failover)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import asyncpg
import pytest
import pytest_asyncio

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.storage.database import Database, open_database
from latchkey_server.storage.timelines import Timelines
from tests.support.postgres import Failover, end_connections, with_standby

SERVER = "SELECT current_setting('unix_socket_directories')"


@pytest_asyncio.fixture
async def failover() -> AsyncIterator[Failover]:
    async with with_standby() as running:
        yield running


class Pools:
    """Two pools of one process, at the address that an application has."""

    def __init__(self, first: Database, second: Database, timelines: Timelines) -> None:
        self.first, self.second, self.timelines = first, second, timelines


async def reached(database: Database) -> str:
    """Return the folder of the server that a connection of a pool reaches."""
    async with database.connection() as connection:
        return str(await connection.fetchval(SERVER))


async def finally_reached(database: Database) -> str:
    """Return what is reached once those connections are gone that were ended."""
    async with asyncio.timeout(30):
        while True:
            with suppress(DatabaseUnavailable):
                return await reached(database)
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def pools(failover: Failover) -> AsyncIterator[Pools]:
    timelines = Timelines()
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(open_database(failover.dsn, pool_size=2, timeout=30, timelines=timelines))
            for _ in range(2)
        ]
        yield Pools(first, second, timelines)


async def test_a_former_primary_is_refused_by_every_pool_once_one_has_met_its_successor(
    failover: Failover, pools: Pools
) -> None:
    former = await reached(pools.first)
    await failover.promote()
    failover.lead_to(failover.standby)
    await end_connections(failover.primary)
    promoted = await finally_reached(pools.first)
    assert promoted != former

    failover.lead_to(failover.primary)
    await end_connections(failover.standby)
    for database in (pools.first, pools.second) * 3:
        with pytest.raises(DatabaseUnavailable):
            await reached(database)

    failover.lead_to(failover.standby)
    assert {await finally_reached(database) for database in (pools.first, pools.second)} == {promoted}


async def test_connections_that_are_open_to_a_former_primary_are_not_lent_again(
    failover: Failover, pools: Pools
) -> None:
    former = await reached(pools.first)
    await failover.promote()
    failover.lead_to(failover.standby)
    assert await reached(pools.first) == former

    promoted = await reached(pools.second)

    assert promoted != former
    assert await reached(pools.first) == promoted


async def test_a_connection_that_reaches_another_server_meanwhile_is_found_out_and_none_is_lent_again(
    failover: Failover, pools: Pools
) -> None:
    """As behind a pooler, which stays while the server behind it changes."""
    await failover.promote()
    async with pools.first.connection() as connection:
        failover.lead_to(failover.standby)
        promoted = await reached(pools.second)
        with pytest.raises(DatabaseUnavailable):
            await pools.first.timeline(connection)

    assert await reached(pools.first) == promoted


async def test_a_standby_is_not_the_database(failover: Failover, pools: Pools) -> None:
    failover.lead_to(failover.standby)
    with pytest.raises(DatabaseUnavailable):
        await reached(pools.first)

    await failover.promote()
    assert await reached(pools.first)


async def test_another_system_is_taken_for_what_it_is_whatever_its_timeline(
    failover: Failover, pools: Pools, dsn: str
) -> None:
    await failover.promote()
    failover.lead_to(failover.standby)
    async with pools.first.connection() as connection:
        promoted = await pools.first.timeline(connection)
    async with (
        open_database(dsn, pool_size=1, timeout=30, timelines=pools.timelines) as restored,
        restored.connection() as connection,
    ):
        other = await restored.timeline(connection)

    assert other.system != promoted.system
    assert other.number < promoted.number


async def test_a_role_without_any_grant_may_ask_for_the_timeline(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("DROP ROLE IF EXISTS ungranted")
    await connection.execute("CREATE ROLE ungranted LOGIN")
    await connection.close()
    ungranted = dsn.replace("postgres@", "ungranted@")
    async with open_database(ungranted, pool_size=1, timeout=30) as database, database.connection() as asked:
        assert await asked.fetchval("SELECT current_user") == "ungranted"
        assert (await database.timeline(asked)).number >= 1
