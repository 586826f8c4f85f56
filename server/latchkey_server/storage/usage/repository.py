"""Usage events, their identities, and the roll-ups that change with them in the same transaction."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from latchkey_server.domain.usage.combinations import KeyDay
from latchkey_server.domain.usage.event import StoredEvent
from latchkey_server.domain.usage.ports import EventRow
from latchkey_server.domain.usage.report import EventPage, Measure, UsageQuery, UsageReport
from latchkey_server.domain.usage.rollups import KeyFacts, KeyQuarter, LabelQuarter, RollUps, UsageCombination
from latchkey_server.storage.database import Connection
from latchkey_server.storage.usage.columns import ADDED, NAMES
from latchkey_server.storage.usage.events import events
from latchkey_server.storage.usage.fence import enter
from latchkey_server.storage.usage.reports import report

_KEY_GROUP = {
    "key_id": "uuid",
    "quarter": "timestamptz",
    "member": "text",
    "model": "text",
    "task": "text",
    "other": "boolean",
}
_LABEL_GROUP = {
    "quarter": "timestamptz",
    "environment": "text",
    "api_id": "uuid",
    "model": "text",
    "task": "text",
    "other": "boolean",
}
# What one group adds fits into int64, money too: 8,000 events of at most 1,000,000 USD.
_SUM_TYPES = ("bigint",) * 7

# Key and day one by one: a plain join may read all rows of the workspace.
_COMBINATIONS = """
    SELECT p.key_id, p.day, c.member, c.model, c.task
    FROM unnest($2::uuid[], $3::date[]) AS p(key_id, day) CROSS JOIN LATERAL (
        SELECT member, model, task FROM usage_key_day
        WHERE workspace_id = $1 AND key_id = p.key_id AND day = p.day AND NOT other
        UNION
        SELECT member, model, task FROM usage_key_quarter
        WHERE workspace_id = $1 AND key_id = p.key_id AND NOT other
            AND quarter >= p.day::timestamp AT TIME ZONE 'UTC'
            AND quarter < (p.day + 1)::timestamp AT TIME ZONE 'UTC'
    ) AS c
"""


_EVENT_COLUMNS = (
    "workspace_id",
    "record_time",
    "occurred_time",
    "id_hash",
    "key_id",
    "type",
    "source",
    "event_id",
    "member",
    "model",
    "task",
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cost_nanos",
    "operation_id",
    "metadata",
)


class PostgresUsage:
    """Usage of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def begin(self, workspace_id: UUID) -> None:
        await enter(self._connection, workspace_id)

    async def lock_keys(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> None:
        await self._connection.execute(
            "SELECT FROM key WHERE workspace_id = $1 AND key_id = ANY($2) ORDER BY key_id FOR NO KEY UPDATE",
            workspace_id,
            list(key_ids),
        )

    async def keys(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> Mapping[UUID, KeyFacts]:
        rows = await self._connection.fetch(
            "SELECT key_id, api_id, member, attributed_environment FROM key "
            "WHERE workspace_id = $1 AND key_id = ANY($2)",
            workspace_id,
            list(key_ids),
        )
        return {row["key_id"]: KeyFacts(row["api_id"], row["member"], row["attributed_environment"]) for row in rows}

    async def known(self, workspace_id: UUID, id_hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        rows = await self._connection.fetch(
            "SELECT id_hash, content_hash FROM usage_event_id WHERE workspace_id = $1 AND id_hash = ANY($2::bytea[])",
            workspace_id,
            list(id_hashes),
        )
        return {row["id_hash"]: row["content_hash"] for row in rows}

    async def claim(self, workspace_id: UUID, events: Sequence[StoredEvent]) -> set[bytes]:
        if not events:
            return set()
        rows = await self._connection.fetch(
            "INSERT INTO usage_event_id (workspace_id, id_hash, content_hash, occurred_time) "
            "SELECT $1, * FROM unnest($2::bytea[], $3::bytea[], $4::timestamptz[]) "
            "ON CONFLICT (workspace_id, id_hash) DO NOTHING RETURNING id_hash",
            workspace_id,
            [item.id_hash for item in events],
            [item.content_hash for item in events],
            [item.event.occurred_time for item in events],
        )
        return {row["id_hash"] for row in rows}

    async def combinations(
        self, workspace_id: UUID, key_days: Sequence[KeyDay]
    ) -> Mapping[KeyDay, set[UsageCombination]]:
        rows = await self._connection.fetch(
            _COMBINATIONS, workspace_id, [key_id for key_id, _ in key_days], [day for _, day in key_days]
        )
        found: dict[KeyDay, set[UsageCombination]] = {key_day: set() for key_day in key_days}
        for row in rows:
            found[row["key_id"], row["day"]].add(UsageCombination(row["member"], row["model"], row["task"]))
        return found

    async def insert(self, workspace_id: UUID, events: Sequence[StoredEvent], record_time: datetime) -> None:
        if not events:
            return
        await self._connection.copy_records_to_table(
            "usage_event",
            columns=_EVENT_COLUMNS,
            records=[_record(workspace_id, item, record_time) for item in events],
        )

    async def roll_up(self, workspace_id: UUID, rollups: RollUps) -> None:
        await self._add("usage_key_quarter", _KEY_GROUP, workspace_id, rollups.by_key)
        # Last of all: whoever records for the same labels waits from here until we commit.
        await self._add("usage_label_quarter", _LABEL_GROUP, workspace_id, rollups.by_label)

    async def _add(
        self, table: str, group: Mapping[str, str], workspace_id: UUID, rows: Sequence[KeyQuarter | LabelQuarter]
    ) -> None:
        if not rows:
            return
        names = ", ".join(group)
        types = [*group.values(), *_SUM_TYPES]
        arrays = ", ".join(f"${number}::{type_}[]" for number, type_ in enumerate(types, 2))
        await self._connection.execute(
            f"INSERT INTO {table} AS r (workspace_id, {names}, {NAMES}) SELECT $1, * FROM unnest({arrays}) "
            f"ON CONFLICT (workspace_id, {names}) DO UPDATE SET {ADDED}",
            workspace_id,
            *map(list, zip(*rows, strict=True)),
        )

    async def report(self, workspace_id: UUID, query: UsageQuery, order_by: Measure) -> UsageReport:
        return await report(self._connection, workspace_id, query, order_by)

    async def events(self, workspace_id: UUID, page: EventPage) -> list[EventRow]:
        return await events(self._connection, workspace_id, page)


def _record(workspace_id: UUID, item: StoredEvent, record_time: datetime) -> tuple[object, ...]:
    event = item.event
    return (
        workspace_id,
        record_time,
        event.occurred_time,
        item.id_hash,
        event.key_id,
        event.type,
        event.source,
        event.event_id,
        item.member,
        event.model,
        event.task,
        item.requests,
        event.input_tokens,
        event.output_tokens,
        event.cached_tokens,
        event.cost,
        event.operation_id,
        event.metadata,
    )
