"""Keys, their balances, spend and last use."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from uuid import UUID

from latchkey_server.domain.keys.ports import KeyFilter
from latchkey_server.domain.model import Balance, EnvironmentCount, Key, KeyStatus
from latchkey_server.domain.turns import in_slices
from latchkey_server.storage.database import Connection, read_rows
from latchkey_server.storage.keys.columns import KEY_COLUMNS, key_of
from latchkey_server.storage.sql import PLANNED_FOR_VALUES, Conditions, asked_labels, placeholders

_NAMES = [column.name for column in KEY_COLUMNS]
_UPDATED = [column for column in KEY_COLUMNS if not column.fixed]
_ASSIGNMENTS = ", ".join(f"{column.name} = ${at}" for at, column in enumerate(_UPDATED, 3))

SELECT_KEY = f"""
    SELECT {", ".join("k." + name for name in _NAMES)}, i.external_id
    FROM key k LEFT JOIN identity i ON i.workspace_id = k.workspace_id AND i.identity_id = k.identity_id
"""

# Found first, by its unique key: its keys then stand together in an index.
_IDENTITY = "SELECT identity_id FROM identity WHERE workspace_id = $1 AND external_id = ?"

# What each status demands of the stored facts. Whether a budget is used up is decided on what is read:
# ACTIVE and EXHAUSTED share their facts.
_LIVING = "k.delete_time IS NULL AND k.revoke_time IS NULL AND k.enabled"
_BEGUN = "(k.not_before_time IS NULL OR k.not_before_time <= ?)"
_UNEXPIRED = "(k.expire_time IS NULL OR k.expire_time > ?)"
_STATUS_FACTS = {
    KeyStatus.DELETED: "k.delete_time IS NOT NULL",
    KeyStatus.REVOKED: "k.delete_time IS NULL AND k.revoke_time IS NOT NULL",
    KeyStatus.DISABLED: "k.delete_time IS NULL AND k.revoke_time IS NULL AND NOT k.enabled",
    KeyStatus.NOT_YET_VALID: f"{_LIVING} AND NOT {_BEGUN}",
    KeyStatus.EXPIRED: f"{_LIVING} AND {_BEGUN} AND NOT {_UNEXPIRED}",
    KeyStatus.EXHAUSTED: (
        f"{_LIVING} AND {_BEGUN} AND {_UNEXPIRED} AND (k.spend_limit_nanos IS NOT NULL OR k.credits_amount IS NOT NULL)"
    ),
    KeyStatus.ACTIVE: f"{_LIVING} AND {_BEGUN} AND {_UNEXPIRED}",
}


# Days that are over are packed; what is not packed yet is added from its quarters. Without a day, the whole life.
_NET_SPEND = """
    SELECT key_id, sum(net) AS net FROM (
        SELECT d.key_id, d.spend_nanos + d.adjustment_nanos AS net
        FROM unnest($2::uuid[], $3::date[]) AS w(key_id, since)
        JOIN usage_key_day d ON d.workspace_id = $1 AND d.key_id = w.key_id AND d.day >= w.since
        UNION ALL
        SELECT t.key_id, t.spend_nanos + t.adjustment_nanos
        FROM unnest($2::uuid[], $3::date[]) AS w(key_id, since)
        JOIN usage_key_total t ON t.workspace_id = $1 AND t.key_id = w.key_id AND w.since IS NULL
        UNION ALL
        SELECT q.key_id, q.spend_nanos + q.adjustment_nanos
        FROM unnest($2::uuid[], $3::date[]) AS w(key_id, since)
        JOIN usage_key_quarter q ON q.workspace_id = $1 AND q.key_id = w.key_id
            AND q.quarter >= coalesce(w.since, '-infinity')::timestamp AT TIME ZONE 'UTC'
    ) AS parts GROUP BY key_id
"""


class PostgresKeys:
    """Keys of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, workspace_id: UUID, key_id: UUID) -> Key | None:
        row = await self._connection.fetchrow(
            f"{SELECT_KEY} WHERE k.workspace_id = $1 AND k.key_id = $2", workspace_id, key_id
        )
        return key_of(row) if row else None

    async def page(
        self, workspace_id: UUID, wanted: KeyFilter, before: UUID | None, limit: int, now: datetime
    ) -> list[Key]:
        where = _filter(workspace_id, wanted, before, now)
        await self._connection.execute(PLANNED_FOR_VALUES)
        return await read_rows(
            self._connection,
            key_of,
            f"{SELECT_KEY} WHERE {where.text} ORDER BY k.key_id DESC LIMIT {where.bind(limit)}",
            *where.arguments,
        )

    async def insert(self, keys: Sequence[Key]) -> None:
        await self._connection.executemany(
            f"INSERT INTO key ({', '.join(_NAMES)}) VALUES ({placeholders(len(_NAMES))})",
            await in_slices(_values_of, keys),
        )

    async def update(self, key: Key) -> None:
        await self._connection.execute(
            f"UPDATE key SET {_ASSIGNMENTS} WHERE workspace_id = $1 AND key_id = $2",
            key.workspace_id,
            key.key_id,
            *(column.value(key) for column in _UPDATED),
        )

    async def environments(
        self, workspace_id: UUID, api_ids: frozenset[UUID], after: str | None, limit: int
    ) -> list[EnvironmentCount]:
        where = Conditions("workspace_id = $1 AND delete_time IS NULL", workspace_id)
        where.add_if(bool(api_ids), "api_id = ANY(?)", list(api_ids))
        where.add_if(after is not None, "environment > ?", after)
        rows = await self._connection.fetch(
            f"SELECT environment, count(*) AS key_count FROM key WHERE {where.text} "
            f"GROUP BY environment ORDER BY environment LIMIT {where.bind(limit)}",
            *where.arguments,
        )
        return [EnvironmentCount(**row) for row in rows]

    async def balances(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> Mapping[UUID, Balance]:
        if not key_ids:
            return {}
        rows = await self._connection.fetch(
            "SELECT key_id, remaining, settled_time FROM credit_balance WHERE workspace_id = $1 AND key_id = ANY($2)",
            workspace_id,
            list(key_ids),
        )
        return {row["key_id"]: Balance(row["remaining"], row["settled_time"]) for row in rows}

    async def insert_balances(self, workspace_id: UUID, balances: Mapping[UUID, Balance]) -> None:
        await self._connection.executemany(
            "INSERT INTO credit_balance (workspace_id, key_id, remaining, settled_time) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT (workspace_id, key_id) DO NOTHING",
            [
                (workspace_id, key_id, balance.remaining, balance.settled_time)
                for key_id, balance in sorted(balances.items())
            ],
        )

    async def update_balance(self, workspace_id: UUID, key_id: UUID, balance: Balance) -> None:
        await self._connection.execute(
            "UPDATE credit_balance SET remaining = $3, settled_time = $4 WHERE workspace_id = $1 AND key_id = $2",
            workspace_id,
            key_id,
            balance.remaining,
            balance.settled_time,
        )

    async def lock_balance(self, workspace_id: UUID, key_id: UUID) -> Balance | None:
        row = await self._connection.fetchrow(
            "SELECT remaining, settled_time FROM credit_balance WHERE workspace_id = $1 AND key_id = $2 FOR UPDATE",
            workspace_id,
            key_id,
        )
        return Balance(row["remaining"], row["settled_time"]) if row else None

    async def net_spend(self, workspace_id: UUID, since: Mapping[UUID, date | None]) -> Mapping[UUID, int]:
        rows = await self._connection.fetch(_NET_SPEND, workspace_id, list(since), list(since.values()))
        return {row["key_id"]: int(row["net"]) for row in rows}

    async def last_used(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> Mapping[UUID, datetime]:
        rows = await self._connection.fetch(
            "SELECT key_id, last_used_time FROM key_last_used WHERE workspace_id = $1 AND key_id = ANY($2)",
            workspace_id,
            list(key_ids),
        )
        return {row["key_id"]: row["last_used_time"] for row in rows}


def _filter(workspace_id: UUID, wanted: KeyFilter, before: UUID | None, now: datetime) -> Conditions:
    where = Conditions("k.workspace_id = $1", workspace_id)
    where.add_if(before is not None, "k.key_id < ?", before)
    where.add_if(bool(wanted.api_ids), "k.api_id = ANY(?)", list(wanted.api_ids))
    labels = asked_labels(wanted)
    where.add_if(bool(labels), "k.environment = ANY(?)", labels)
    if wanted.external_id:
        where.add(f"k.identity_id = ({_IDENTITY})", wanted.external_id)
    elif wanted.external_id is not None:
        where.raw("k.identity_id IS NULL")
    where.add_if(wanted.member is not None, "k.member = ?", wanted.member)
    where.add_if(wanted.prefix is not None, "k.prefix = ?", wanted.prefix)
    where.add_if(wanted.expire_before is not None, "k.expire_time < ?", wanted.expire_before)
    where.add_if(
        wanted.unused_since is not None,
        "NOT EXISTS (SELECT FROM key_last_used u WHERE u.workspace_id = k.workspace_id AND u.key_id = k.key_id "
        "AND u.last_used_time >= ?)",
        wanted.unused_since,
    )
    if not wanted.show_deleted:
        where.raw("k.delete_time IS NULL")
    if wanted.statuses:
        facts = " OR ".join(f"({_STATUS_FACTS[status]})" for status in sorted(wanted.statuses))
        where.raw(f"({facts.replace('?', where.bind(now))})" if "?" in facts else f"({facts})")
    return where


def _values_of(key: Key) -> list[object]:
    return [column.value(key) for column in KEY_COLUMNS]
