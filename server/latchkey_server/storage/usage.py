"""Usage events, their identities, and the roll-ups that change with them in the same transaction."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from latchkey_server.domain.ports import EventRow
from latchkey_server.domain.usage import RollUp, StoredEvent, UsageEvent, UsageType
from latchkey_server.domain.usage_report import EventPage, UsageQuestion, UsageReport
from latchkey_server.storage.database import Connection, Row
from latchkey_server.storage.sql import Conditions
from latchkey_server.storage.usage_reports import KEYS, filter_usage, report

_MEASURES = ("spend_nanos", "adjustment_nanos", "requests", "input_tokens", "output_tokens", "cached_tokens")
_ADDED = ", ".join(f"{name} = r.{name} + excluded.{name}" for name in _MEASURES)
_SUMS = ", ".join(_MEASURES)


_EVENT_COLUMNS = (
    "e.record_time, e.occurred_time, e.id_hash, e.key_id, e.type, e.source, e.event_id, e.member, e.model, e.task, "
    "e.requests, e.input_tokens, e.output_tokens, e.cached_tokens, e.cost_nanos, e.operation_id, e.metadata"
)


class UsageRepository:
    """Usage of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def known(self, workspace_id: UUID, id_hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        rows = await self._connection.fetch(
            "SELECT id_hash, content_hash FROM usage_event_id WHERE workspace_id = $1 AND id_hash = ANY($2::bytea[])",
            workspace_id,
            list(id_hashes),
        )
        return {row["id_hash"]: row["content_hash"] for row in rows}

    async def key_members(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> Mapping[UUID, tuple[UUID, str]]:
        rows = await self._connection.fetch(
            "SELECT key_id, api_id, member FROM key WHERE workspace_id = $1 AND key_id = ANY($2)",
            workspace_id,
            list(key_ids),
        )
        return {row["key_id"]: (row["api_id"], row["member"]) for row in rows}

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

    async def insert(self, workspace_id: UUID, events: Sequence[StoredEvent], record_time: datetime) -> None:
        if not events:
            return
        sent = [item.event for item in events]
        await self._connection.execute(
            "INSERT INTO usage_event (workspace_id, record_time, occurred_time, id_hash, key_id, type, source, "
            "event_id, member, model, task, requests, input_tokens, output_tokens, cached_tokens, cost_nanos, "
            "operation_id, metadata) SELECT $1, $2, * FROM unnest($3::timestamptz[], $4::bytea[], $5::uuid[], "
            "$6::smallint[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[], "
            "$13::bigint[], $14::bigint[], $15::bigint[], $16::bigint[], $17::text[], $18::jsonb[])",
            workspace_id,
            record_time,
            [event.occurred_time for event in sent],
            [item.id_hash for item in events],
            [event.key_id for event in sent],
            [int(event.type) for event in sent],
            [event.source for event in sent],
            [event.event_id for event in sent],
            [item.member for item in events],
            [event.model for event in sent],
            [event.task for event in sent],
            [item.requests for item in events],
            [event.input_tokens for event in sent],
            [event.output_tokens for event in sent],
            [event.cached_tokens for event in sent],
            [event.cost for event in sent],
            [event.operation_id for event in sent],
            [event.metadata for event in sent],
        )

    async def roll_up(self, workspace_id: UUID, rollups: Sequence[RollUp]) -> None:
        if not rollups:
            return
        columns = _columns(rollups)
        await self._connection.execute(
            f"INSERT INTO usage_key_day AS r (workspace_id, key_id, day, {_SUMS}) "
            "SELECT $1, * FROM unnest($2::uuid[], $3::date[], $4::numeric[], $5::numeric[], $6::numeric[], "
            "$7::numeric[], $8::numeric[], $9::numeric[]) "
            f"ON CONFLICT (workspace_id, key_id, day) DO UPDATE SET {_ADDED}",
            workspace_id,
            [rollup.key_id for rollup in rollups],
            [rollup.day for rollup in rollups],
            *columns,
        )
        await self._connection.execute(
            f"INSERT INTO usage_key_total AS r (workspace_id, key_id, {_SUMS}) "
            "SELECT $1, u.key_id, sum(u.a), sum(u.b), sum(u.c), sum(u.d), sum(u.e), sum(u.f) "
            "FROM unnest($2::uuid[], $3::numeric[], $4::numeric[], $5::numeric[], $6::numeric[], $7::numeric[], "
            "$8::numeric[]) AS u(key_id, a, b, c, d, e, f) GROUP BY u.key_id ORDER BY u.key_id "
            f"ON CONFLICT (workspace_id, key_id) DO UPDATE SET {_ADDED}",
            workspace_id,
            [rollup.key_id for rollup in rollups],
            *columns,
        )

    async def report(self, workspace_id: UUID, question: UsageQuestion) -> UsageReport:
        return await report(self._connection, workspace_id, question)

    async def events(self, workspace_id: UUID, question: EventPage) -> list[EventRow]:
        where = Conditions("e.workspace_id = $1", workspace_id)
        where.add("e.occurred_time >= ?", question.start)
        where.add("e.occurred_time < ?", question.end)
        where.add_if(bool(question.types), "e.type = ANY(?)", [int(type_) for type_ in question.types])
        if question.before:
            occurred_time, id_hash = (where.bind(value) for value in question.before)
            where.raw(f"(e.occurred_time, e.id_hash) < ({occurred_time}, {id_hash})")
        filter_usage(where, question.wanted)
        rows = await self._connection.fetch(
            f"SELECT {_EVENT_COLUMNS} FROM usage_event e {KEYS} WHERE {where.text} "
            f"ORDER BY e.occurred_time DESC, e.id_hash DESC LIMIT {where.bind(question.limit)}",
            *where.arguments,
        )
        return [EventRow(_event_of(row), row["id_hash"], row["record_time"]) for row in rows]


def _columns(rollups: Sequence[RollUp]) -> list[list[int]]:
    return [
        [rollup.spend for rollup in rollups],
        [rollup.adjustments for rollup in rollups],
        [rollup.requests for rollup in rollups],
        [rollup.input_tokens for rollup in rollups],
        [rollup.output_tokens for rollup in rollups],
        [rollup.cached_tokens for rollup in rollups],
    ]


def _event_of(row: Row) -> UsageEvent:
    return UsageEvent(
        source=row["source"],
        event_id=row["event_id"],
        key_id=row["key_id"],
        type=UsageType(row["type"]),
        occurred_time=row["occurred_time"],
        member=row["member"],
        model=row["model"],
        task=row["task"],
        requests=row["requests"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_tokens=row["cached_tokens"],
        cost=row["cost_nanos"],
        operation_id=row["operation_id"],
        metadata=row["metadata"],
    )
