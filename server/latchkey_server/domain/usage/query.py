"""QueryUsage and ListUsageEvents: what may be asked, by whom, and page by page (spec §5)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from latchkey_server.domain import errors
from latchkey_server.domain.model import Caller
from latchkey_server.domain.paging import Page
from latchkey_server.domain.reporting.buckets import Bucket
from latchkey_server.domain.reporting.concurrency import ReportConcurrency
from latchkey_server.domain.reporting.request import query_of, within_binding
from latchkey_server.domain.store import Clock, Store
from latchkey_server.domain.usage.ports import Transaction
from latchkey_server.domain.usage.report import (
    EventPage,
    UsageFilter,
    UsageRecord,
    UsageReport,
    UsageRequest,
)


class UsageQueries:
    """Answers questions about usage, in the caller's workspace and apis only."""

    def __init__(self, store: Store[Transaction], concurrency: ReportConcurrency, clock: Clock) -> None:
        self._store = store
        self._concurrency = concurrency
        self._clock = clock

    async def report(self, caller: Caller, request: UsageRequest, size: int, cursor: str | None) -> UsageReport:
        """Return one page of a report with the totals of the whole; raises InvalidField and SumOutOfRange."""
        query = query_of(request, size, cursor)
        bound = _bound(caller, query.wanted)

        async def work(tx: Transaction) -> UsageReport:
            if bound is None:
                return UsageReport(as_of=self._clock())
            return await tx.usage.report(caller.workspace_id, replace(query, wanted=bound), request.order_by)

        async with self._concurrency.one(caller.workspace_id):
            report = await self._store.read(work)
        # No row can hold more of anything than the whole.
        report.totals.require_in_range()
        return report

    async def events(self, caller: Caller, asked: EventPage, cursor: str | None) -> Page[UsageRecord]:
        """Return one page of events, newest first; raises InvalidField."""
        if not asked.start < asked.end:
            raise errors.InvalidField.one("end_time", "must be after start_time")
        bound = _bound(caller, asked.wanted)
        if bound is None:
            return Page((), None)
        page = replace(asked, wanted=bound, limit=asked.limit + 1, before=_event_cursor(cursor))

        async def work(tx: Transaction) -> Page[UsageRecord]:
            found = await tx.usage.events(caller.workspace_id, page)
            shown = [
                UsageRecord(row.event, row.record_time, f"{row.event.occurred_time.isoformat()}/{row.id_hash.hex()}")
                for row in found[: asked.limit]
            ]
            return Page(shown, shown[-1].cursor if len(found) > asked.limit else None, lambda record: record.cursor)

        async with self._concurrency.one(caller.workspace_id):
            return await self._store.read(work)


def default_range(start: datetime | None, end: datetime | None, now: datetime) -> Bucket:
    """Return the range of a list of events: by default the 24 hours up to 5 minutes from now."""
    until = end or now + timedelta(minutes=5)
    day = min(timedelta(hours=24), until - datetime.min.replace(tzinfo=UTC))
    return start or until - day, until


def _bound(caller: Caller, wanted: UsageFilter) -> UsageFilter | None:
    """Return the filter narrowed to the caller's api binding; None when nothing can match."""
    api_ids = within_binding(caller, wanted.api_ids)
    return None if api_ids is None else replace(wanted, api_ids=api_ids)


def _event_cursor(cursor: str | None) -> tuple[datetime, bytes] | None:
    if cursor is None:
        return None
    try:
        occurred, _, id_hash = cursor.partition("/")
        return datetime.fromisoformat(occurred).astimezone(UTC), bytes.fromhex(id_hash)
    except (ValueError, OverflowError):
        raise errors.PageTokenInvalid from None
