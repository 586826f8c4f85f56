"""Events of a day whose partition is being made."""

import asyncio
from datetime import timedelta

import asyncpg

from latchkey_server.storage.usage.partitions import partition_of
from tests.integration.usage.test_usage import NEW, NOW, event, report
from tests.support.postgres import until_somebody_waits
from tests.support.service import Client


async def test_an_event_that_is_reported_while_the_partition_of_its_day_is_attached_is_recorded(
    dsn: str, owner: Client
) -> None:
    key_id = (await owner.create_key()).key.key_id
    day = (NOW - timedelta(days=1)).date()
    name = partition_of(day)
    upkeep = await asyncpg.connect(dsn)
    await upkeep.execute(f"ALTER TABLE usage_event DETACH PARTITION {name}")
    async with upkeep.transaction():
        await upkeep.execute(
            f"ALTER TABLE usage_event ATTACH PARTITION {name} "
            f"FOR VALUES FROM ('{day} 00:00+00') TO ('{day + timedelta(days=1)} 00:00+00')"
        )
        reporting = asyncio.ensure_future(report(owner, [event(key_id, "1", moment=NOW - timedelta(days=1))]))
        await until_somebody_waits(dsn)
    await upkeep.close()

    assert await reporting == [NEW]
