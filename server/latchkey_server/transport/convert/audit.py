"""Audit events between the wire and the domain."""

from latchkey.v1 import admin_service_pb2, audit_pb2
from latchkey_server.domain import ids
from latchkey_server.domain.model import AuditEvent
from latchkey_server.domain.store import AuditFilter
from latchkey_server.domain.validation import Violations, check_storable
from latchkey_server.transport.convert.well_known import read_id, read_time, struct, timestamp

BOOTSTRAP = "bootstrap"


def read_audit_filter(request: admin_service_pb2.ListAuditEventsRequest) -> AuditFilter:
    """Return which audit events a list asks for; raises InvalidField."""
    found = Violations()
    wanted = AuditFilter(
        target_id=check_storable(found, "target_id", request.target_id) or None,
        actor_id=read_id(found, "actor_id", ids.MANAGEMENT_KEY, request.actor_id) if request.actor_id else None,
        action=check_storable(found, "action", request.action) or None,
        start=read_time(found, "start_time", request, "start_time"),
        end=read_time(found, "end_time", request, "end_time"),
    )
    found.check()
    return wanted


def audit_message(event: AuditEvent) -> audit_pb2.AuditEvent:
    """Return an audit event as a message."""
    return audit_pb2.AuditEvent(
        audit_event_id=ids.format_id(ids.AUDIT_EVENT, event.audit_event_id),
        workspace_id=ids.format_id(ids.WORKSPACE, event.workspace_id),
        actor_id=ids.format_id(ids.MANAGEMENT_KEY, event.actor_id) if event.actor_id else BOOTSTRAP,
        actor_member=event.actor_member,
        action=event.action,
        target_id=event.target_id,
        before=None if event.before is None else struct(event.before),
        after=None if event.after is None else struct(event.after),
        call_id=event.call_id,
        peer=event.peer,
        event_time=timestamp(event.event_time),
    )
