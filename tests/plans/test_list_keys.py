"""ListKeys looks at about as many keys as it returns, whatever it is filtered by (spec §3)."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest_asyncio

from latchkey_server.domain.ports import KeyFilter
from latchkey_server.storage.keys import KeyRepository

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
    INSERT INTO key (workspace_id, key_id, api_id, identity_id, prefix, name, environment, folded_environment, enabled,
        expire_time, allow_ips, scopes, ratelimits, guardrail_id, firewall_policy_id, member, metadata, create_time,
        update_time, revision)
    SELECT '{WORKSPACE}', lpad(to_hex(n), 32, '0')::uuid, '{WORKSPACE}',
        CASE WHEN n % 2 = 0 THEN lpad(to_hex(n % 3000), 32, '0')::uuid END, CASE WHEN n < 30 THEN 'rare' ELSE 'sk' END,
        '', CASE WHEN n < 30 THEN 'rare' ELSE 'prod' END, '', true, CASE WHEN n < 30 THEN timestamptz '2026-12-01' END,
        '{{}}', '{{}}', '[]', '', '', 'member ' || (n / 30), '{{}}', now(), now(), 1
    FROM generate_series(0, {KEYS - 1}) n;
    ANALYZE;
"""


@dataclass
class Explained:
    """Stands for a connection: explains what it is asked to fetch."""

    connection: "asyncpg.Connection[asyncpg.Record]"
    plans: list[Mapping[str, Any]] = field(default_factory=list)

    async def fetch(self, statement: str, *arguments: object) -> Sequence[object]:
        """Run a statement and keep its plan."""
        text = await self.connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments)
        self.plans.append(json.loads(text)[0]["Plan"])
        return []


@pytest_asyncio.fixture
async def explained(dsn: str) -> AsyncIterator[Explained]:
    """A connection to a database with one workspace of many keys."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(SEED)
    yield Explained(connection)
    await connection.close()


def keys_seen(plan: Mapping[str, Any]) -> int:
    """Return how many rows of the table of keys were looked at."""
    inside = sum(keys_seen(part) for part in plan.get("Plans", ()))
    if plan.get("Relation Name") != "key":
        return inside
    rows = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Index Recheck", 0)
    return inside + int(rows * plan["Actual Loops"])


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
    repository = KeyRepository(explained)  # type: ignore[arg-type]

    for wanted in FILTERS.values():
        await repository.page(WORKSPACE, wanted, None, PAGE, NOW)

    seen = dict(zip(FILTERS, map(keys_seen, explained.plans), strict=True))
    assert {asked: count for asked, count in seen.items() if count > 3 * PAGE} == {}
