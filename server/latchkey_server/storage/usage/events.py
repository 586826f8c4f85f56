"""The recorded events, page by page."""

from uuid import UUID

from latchkey_server.domain.usage.event import UsageEvent, UsageType
from latchkey_server.domain.usage.ports import EventRow
from latchkey_server.domain.usage.report import EventPage, UsageFilter
from latchkey_server.storage.database import Connection, Row, read_rows
from latchkey_server.storage.reporting.statement import reading
from latchkey_server.storage.sql import Conditions, asked_labels

_KEYS = """
    JOIN key k ON k.workspace_id = e.workspace_id AND k.key_id = e.key_id
    LEFT JOIN identity i ON i.workspace_id = k.workspace_id AND i.identity_id = k.identity_id
"""
_COLUMNS = (
    "e.record_time, e.occurred_time, e.id_hash, e.key_id, e.type, e.source, e.event_id, e.member, e.model, e.task, "
    "e.requests, e.input_tokens, e.output_tokens, e.cached_tokens, e.cost_nanos, e.operation_id, e.metadata"
)


async def events(connection: Connection, workspace_id: UUID, page: EventPage) -> list[EventRow]:
    """Return events newest first."""
    where = Conditions("e.workspace_id = $1", workspace_id)
    where.add("e.occurred_time >= ?", page.start)
    where.add("e.occurred_time < ?", page.end)
    where.add_if(bool(page.types), "e.type = ANY(?)", [int(type_) for type_ in page.types])
    if page.before:
        occurred_time, id_hash = (where.bind(value) for value in page.before)
        where.raw(f"(e.occurred_time, e.id_hash) < ({occurred_time}, {id_hash})")
    _filter(where, page.wanted)
    async with reading(connection):
        return await read_rows(
            connection,
            _row_of,
            f"SELECT {_COLUMNS} FROM usage_event e{_joined(page.wanted)} WHERE {where.text} "
            f"ORDER BY e.occurred_time DESC, e.id_hash DESC LIMIT {where.bind(page.limit)}",
            *where.arguments,
        )


def _joined(wanted: UsageFilter) -> str:
    """Return the join with the keys, only if the filter needs it: with it the events are not read in order."""
    of_keys = wanted.labels or wanted.unlabeled or wanted.external_ids or wanted.api_ids
    return _KEYS if of_keys else ""


def _filter(where: Conditions, wanted: UsageFilter) -> None:
    labels = asked_labels(wanted)
    where.add_if(bool(labels), "k.environment = ANY(?)", labels)
    where.add_if(bool(wanted.key_ids), "e.key_id = ANY(?)", list(wanted.key_ids))
    where.add_if(bool(wanted.models), "e.model = ANY(?)", list(wanted.models))
    where.add_if(bool(wanted.members), "e.member = ANY(?)", list(wanted.members))
    where.add_if(bool(wanted.tasks), "e.task = ANY(?)", list(wanted.tasks))
    where.add_if(bool(wanted.external_ids), "coalesce(i.external_id, '') = ANY(?)", list(wanted.external_ids))
    where.add_if(bool(wanted.api_ids), "k.api_id = ANY(?)", list(wanted.api_ids))


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


def _row_of(row: Row) -> EventRow:
    return EventRow(_event_of(row), row["id_hash"], row["record_time"])
