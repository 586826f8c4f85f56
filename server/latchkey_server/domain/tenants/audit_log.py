"""The audit log: what was done in a workspace, for its ADMINs."""

from latchkey_server.domain.access.roles import require_unbound
from latchkey_server.domain.model import AuditEvent, Caller
from latchkey_server.domain.paging import Page, cut, id_cursor
from latchkey_server.domain.store import AuditFilter, Store
from latchkey_server.domain.tenants.ports import Transaction


class AuditLog:
    """Shows audit events."""

    def __init__(self, store: Store[Transaction]) -> None:
        self._store = store

    async def list(self, caller: Caller, wanted: AuditFilter, size: int, cursor: str | None) -> Page[AuditEvent]:
        """Return audit events newest first; raises ApiBinding for a caller bound to apis."""
        require_unbound(caller)

        async def work(tx: Transaction) -> Page[AuditEvent]:
            found = await tx.audit.page(caller.workspace_id, wanted, id_cursor(cursor), size + 1)
            return cut(found, size, lambda event: str(event.audit_event_id))

        return await self._store.read(work)
