"""QueryVerifications: what may be asked, by whom, and page by page (spec §5)."""

from dataclasses import replace

from latchkey_server.domain.model import Caller
from latchkey_server.domain.outcomes.ports import Transaction
from latchkey_server.domain.outcomes.report import VerificationReport, VerificationRequest
from latchkey_server.domain.reporting.concurrency import ReportConcurrency
from latchkey_server.domain.reporting.request import query_of, within_binding
from latchkey_server.domain.store import Clock, Store


class VerificationQueries:
    """Answers questions about verifications, in the caller's workspace and apis only."""

    def __init__(self, store: Store[Transaction], concurrency: ReportConcurrency, clock: Clock) -> None:
        self._store = store
        self._concurrency = concurrency
        self._clock = clock

    async def report(
        self, caller: Caller, request: VerificationRequest, size: int, cursor: str | None
    ) -> VerificationReport:
        """Return one page of a report with the total of the whole; raises InvalidField and PageTokenInvalid."""
        query = query_of(request, size, cursor)
        api_ids = within_binding(caller, query.wanted.api_ids)

        async def work(tx: Transaction) -> VerificationReport:
            if api_ids is None:
                return VerificationReport(as_of=self._clock())
            wanted = replace(query.wanted, api_ids=api_ids)
            return await tx.verifications.report(caller.workspace_id, replace(query, wanted=wanted))

        async with self._concurrency.one(caller.workspace_id):
            return await self._store.read(work)
