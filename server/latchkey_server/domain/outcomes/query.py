"""QueryVerifications: what may be asked, by whom, and page by page (spec §5)."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from latchkey_server.domain.model import Caller
from latchkey_server.domain.outcomes.ports import Transaction
from latchkey_server.domain.outcomes.report import (
    VerificationDimension,
    VerificationFilter,
    VerificationQuestion,
    VerificationReport,
)
from latchkey_server.domain.reporting.buckets import Width, buckets, time_zone
from latchkey_server.domain.reporting.concurrency import ReportConcurrency
from latchkey_server.domain.reporting.request import check_report, offset_of, within_binding
from latchkey_server.domain.store import Clock, Store
from latchkey_server.domain.validation import Violations, check_environment


@dataclass(frozen=True, slots=True)
class VerificationAsk:
    """A report as it is asked for."""

    start: datetime
    end: datetime
    width: Width = Width.NONE
    zone: str = ""
    group_by: tuple[VerificationDimension, ...] = ()
    wanted: VerificationFilter = field(default_factory=VerificationFilter)
    top: int = 0


class VerificationQueries:
    """Answers questions about verifications, in the caller's workspace and apis only."""

    def __init__(self, store: Store[Transaction], shares: ReportConcurrency, clock: Clock) -> None:
        self._store = store
        self._shares = shares
        self._clock = clock

    async def report(self, caller: Caller, ask: VerificationAsk, size: int, cursor: str | None) -> VerificationReport:
        """Return one page of a report with the total of the whole; raises InvalidField and PageTokenInvalid."""
        question = _question(ask, size, cursor)
        api_ids = within_binding(caller, question.wanted.api_ids)

        async def work(tx: Transaction) -> VerificationReport:
            if api_ids is None:
                return VerificationReport(as_of=self._clock())
            wanted = replace(question.wanted, api_ids=api_ids)
            return await tx.verifications.report(caller.workspace_id, replace(question, wanted=wanted))

        async with self._shares.one(caller.workspace_id):
            return await self._store.read(work)


def _question(ask: VerificationAsk, size: int, cursor: str | None) -> VerificationQuestion:
    check_report(ask.start, ask.end, ask.group_by, ask.top)
    found = Violations("filter")
    labels = tuple(
        check_environment(found, f"environments.labels[{index}]", label)
        for index, label in enumerate(ask.wanted.labels)
    )
    found.check()
    return VerificationQuestion(
        buckets=buckets(ask.start, ask.end, ask.width, time_zone(ask.zone)),
        group_by=ask.group_by,
        wanted=replace(ask.wanted, labels=labels),
        top=ask.top if ask.group_by else 0,
        offset=offset_of(cursor),
        limit=size,
    )
