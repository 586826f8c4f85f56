"""ListKeys reads about as many keys as it returns, whatever it is filtered by (spec §3)."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest_asyncio

from latchkey_server.domain.keys.ports import KeyFilter
from latchkey_server.storage.keys.keys import PostgresKeys
from tests.support.plans import Explained, rows_seen, undone

WORKSPACE = UUID(int=1)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEYS = 10_000
PAGE = 51

# The keys that a rare value belongs to are the oldest, so that walking from the newest finds them last.
SEED = f"""
    INSERT INTO workspace SELECT '{WORKSPACE}', '', true, false, '{WORKSPACE}', '', '1 minute', now(), now(), 1;
    INSERT INTO api SELECT '{WORKSPACE}', '{WORKSPACE}', '', true, now(), now(), 1;
    INSERT INTO identity
    SELECT '{WORKSPACE}', lpad(to_hex(n), 32, '0')::uuid, 'customer ' || n, '{{}}', '[]', now(), now(), 1
    FROM generate_series(0, 2999) n;
    INSERT INTO key (workspace_id, key_id, api_id, identity_id, prefix, name, environment, attributed_environment,
        enabled, expire_time, allow_ips, scopes, ratelimits, guardrail_id, firewall_policy_id, member, metadata,
        create_time, update_time, revision)
    SELECT '{WORKSPACE}', lpad(to_hex(n), 32, '0')::uuid, '{WORKSPACE}',
        CASE WHEN n % 2 = 0 THEN lpad(to_hex(n % 3000), 32, '0')::uuid END, CASE WHEN n < 30 THEN 'rare' ELSE 'sk' END,
        '', CASE WHEN n < 30 THEN 'rare' ELSE 'prod' END, '', true, CASE WHEN n < 30 THEN timestamptz '2026-12-01' END,
        '{{}}', '{{}}', '[]', '', '', 'member ' || (n / 30), '{{}}', now(), now(), 1
    FROM generate_series(0, {KEYS - 1}) n;
    ANALYZE;
"""


@pytest_asyncio.fixture
async def explained(dsn: str) -> AsyncIterator[Explained]:
    """A connection to a database with one workspace of many keys."""
    connection = await asyncpg.connect(dsn)
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    await connection.execute(SEED)
    async with undone(connection):
        yield Explained(connection)
    await connection.close()


FILTERS = {
    "nothing": KeyFilter(),
    "an identity": KeyFilter(external_id="customer 2"),
    "no identity": KeyFilter(external_id=""),
    "an unknown identity": KeyFilter(external_id="nobody"),
    "a member": KeyFilter(member="member 3"),
    "an unknown member": KeyFilter(member="nobody"),
    "a rare prefix": KeyFilter(prefix="rare"),
    "the usual prefix": KeyFilter(prefix="sk"),
    "an unknown prefix": KeyFilter(prefix="none"),
    "an expiry": KeyFilter(expire_before=datetime(2027, 1, 1, tzinfo=UTC)),
    "a rare label": KeyFilter(labels=("rare",)),
}


async def test_a_filtered_list_looks_at_few_keys_more_than_it_returns(explained: Explained) -> None:
    repository = PostgresKeys(explained)  # type: ignore[arg-type]

    seen = {}
    for asked, wanted in FILTERS.items():
        explained.plans.clear()
        await repository.page(WORKSPACE, wanted, None, PAGE, NOW)
        seen[asked] = max(rows_seen(plan)["key"] for plan in explained.plans)

    assert {asked: count for asked, count in seen.items() if count > 3 * PAGE} == {}
