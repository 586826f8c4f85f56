"""Audit events."""

from collections.abc import Sequence
from uuid import UUID

from latchkey_server.domain.model import AuditEvent
from latchkey_server.domain.store import AuditFilter
from latchkey_server.storage.database import Connection, Row, read_rows
from latchkey_server.storage.sql import Conditions

_COLUMNS = (
    "workspace_id, audit_event_id, actor_id, actor_member, action, target_id, before, after, call_id, peer, event_time"
)


class PostgresAudit:
    """Audit events of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def append(self, events: Sequence[AuditEvent]) -> None:
        await self._connection.executemany(
            f"INSERT INTO audit_event ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            [
                (
                    event.workspace_id,
                    event.audit_event_id,
                    event.actor_id,
                    event.actor_member,
                    event.action,
                    event.target_id,
                    event.before,
                    event.after,
                    event.call_id,
                    event.peer,
                    event.event_time,
                )
                for event in events
            ],
        )

    async def page(self, workspace_id: UUID, wanted: AuditFilter, before: UUID | None, limit: int) -> list[AuditEvent]:
        where = Conditions("workspace_id = $1", workspace_id)
        where.add_if(before is not None, "audit_event_id < ?", before)
        where.add_if(wanted.target_id is not None, "target_id = ?", wanted.target_id)
        where.add_if(wanted.actor_id is not None, "actor_id = ?", wanted.actor_id)
        where.add_if(wanted.action is not None, "action = ?", wanted.action)
        where.add_if(wanted.start is not None, "event_time >= ?", wanted.start)
        where.add_if(wanted.end is not None, "event_time < ?", wanted.end)
        return await read_rows(
            self._connection,
            _event_of,
            f"SELECT {_COLUMNS} FROM audit_event WHERE {where.text} "
            f"ORDER BY audit_event_id DESC LIMIT {where.bind(limit)}",
            *where.arguments,
        )


def _event_of(row: Row) -> AuditEvent:
    return AuditEvent(**row)
