"""The database's upkeep, run by a test when it wants it run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from latchkey_server.background import Readiness, Upkeep
from latchkey_server.domain.store import Clock
from latchkey_server.opening import utc_now
from latchkey_server.storage.database import Database, open_database
from latchkey_server.storage.upkeep.maintenance import Retention, UpkeepResult
from latchkey_server.storage.upkeep.rebuild import rebuild_usage

ACCEPTED = timedelta(days=35)
COUNTS = timedelta(days=90)

_ALIKE = "workspace_id, quarter, environment, api_id, code, management_key_id, model, tag, tagged, prefix, other"
_LABEL_DIFFERENCES = f"""
    SELECT count(*) FROM (
        SELECT v.workspace_id, quarter, coalesce(attributed_environment, '') AS environment,
            coalesce(api_id, '00000000-0000-0000-0000-000000000000') AS api_id, code, management_key_id, model, tag,
            tagged, v.prefix, other, sum(verifications) AS verifications
        FROM verification_key_quarter v LEFT JOIN key k ON k.workspace_id = v.workspace_id AND k.key_id = v.key_id
        GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
    ) AS a FULL JOIN verification_label_quarter b USING ({_ALIKE})
    WHERE a.verifications IS DISTINCT FROM b.verifications
"""


async def maintain(
    dsn: str, now: datetime | None = None, events: timedelta | None = None, identities: timedelta | None = None
) -> UpkeepResult:
    """Do all upkeep once, as at ``now``, after the server's own if that is running."""
    clock: Clock = utc_now if now is None else lambda: now
    async with database_of(dsn) as database:
        upkeep = Upkeep(database, Retention(ACCEPTED, events, identities, COUNTS), Readiness(), clock)
        async with asyncio.timeout(30):
            while True:
                done = await upkeep.maintain()
                if done is not None:
                    return done
                await asyncio.sleep(0.02)


async def differences(dsn: str, *, write: bool = False) -> dict[str, str]:
    """Return how the roll-ups differ from the rows: day → differences; empty if they agree."""
    async with database_of(dsn) as database:
        return {what: found.summary async for _, what, found in rebuild_usage(database, write=write) if found}


async def label_differences(dsn: str) -> int:
    """Return how many counts of verifications by label are not what those by key say."""
    async with database_of(dsn) as database, database.connection() as connection:
        return int(await connection.fetchval(_LABEL_DIFFERENCES))


@asynccontextmanager
async def database_of(dsn: str) -> AsyncIterator[Database]:
    """Open a database of a test's."""
    async with open_database(dsn, pool_size=2, timeout=30) as database:
        yield database
