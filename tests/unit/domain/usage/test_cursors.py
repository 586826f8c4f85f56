"""Cursors that no page ended with: the token is told to be invalid, whoever made it up."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from latchkey_server.domain.errors import PageTokenInvalid
from latchkey_server.domain.reporting.concurrency import ReportConcurrency
from latchkey_server.domain.reporting.request import query_of
from latchkey_server.domain.usage.ports import Transaction
from latchkey_server.domain.usage.query import UsageQueries
from latchkey_server.domain.usage.report import EventPage, UsageFilter, UsageRequest
from tests.unit.builders import NOW, TICK, at, make_caller

T = TypeVar("T")


class NoStore:
    """A database that nobody may ask."""

    async def read(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        raise NotImplementedError

    async def write(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        raise NotImplementedError


EVENTS = EventPage(NOW, NOW + TICK)
REPORT = UsageRequest(at("2026-03-14 15:00"), at("2026-03-14 15:15"), UsageFilter())


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "1" * 13])
def test_a_report_goes_on_behind_a_number_of_rows_only(cursor: str) -> None:
    with pytest.raises(PageTokenInvalid):
        query_of(REPORT, 10, cursor)


def test_a_report_without_a_cursor_begins_with_its_first_row() -> None:
    assert [query_of(REPORT, 10, cursor).offset for cursor in (None, "10000")] == [0, 10_000]


@pytest.mark.parametrize("cursor", ["", "2026-03-14T15:09:26/xyz", "yesterday/00ff", "9999-12-31T23:59:59-23:59/"])
async def test_a_list_of_events_goes_on_behind_an_event_only(cursor: str) -> None:
    queries = UsageQueries(NoStore(), ReportConcurrency(), lambda: NOW)

    with pytest.raises(PageTokenInvalid):
        await queries.events(make_caller(), EVENTS, cursor)
