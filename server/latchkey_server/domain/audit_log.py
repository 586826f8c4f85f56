"""The audit log: what was done in a workspace, for its ADMINs."""

from latchkey_server.domain.access import Caller, require_unbound
from latchkey_server.domain.model import AuditEvent
from latchkey_server.domain.paging import Page, cut, id_cursor
from latchkey_server.domain.ports import AuditFilter, Store, Transaction


class AuditLog:
    """Shows audit events."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self, caller: Caller, wanted: AuditFilter, size: int, cursor: str | None) -> Page[AuditEvent]:
        """Return audit events newest first; raises ApiBinding for a caller bound to apis."""
        require_unbound(caller)

        async def work(tx: Transaction) -> Page[AuditEvent]:
            found = await tx.audit.page(caller.workspace_id, wanted, id_cursor(cursor), size + 1)
            return cut(found, size, lambda event: str(event.audit_event_id))

        return await self._store.read(work)
