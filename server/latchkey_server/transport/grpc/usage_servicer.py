"""UsageService on the wire: convert, call the domain, convert."""

from typing import Any

from latchkey.v1 import usage_service_pb2 as pb
from latchkey.v1 import usage_service_pb2_grpc
from latchkey_server.domain.outcomes.query import VerificationQueries
from latchkey_server.domain.paging import decode_token, encode_token, page_size
from latchkey_server.domain.reporting.request import DEFAULT_ROWS, MAX_ROWS
from latchkey_server.domain.store import Clock
from latchkey_server.domain.turns import in_slices
from latchkey_server.domain.usage.event import EVENTS_MAX, UsageType
from latchkey_server.domain.usage.query import UsageQueries, default_range
from latchkey_server.domain.usage.recorder import UsageRecorder
from latchkey_server.domain.usage.report import EventPage
from latchkey_server.domain.validation import Violations, counted, require_number
from latchkey_server.transport.answer_size import fitting
from latchkey_server.transport.call import Context, binding, caller
from latchkey_server.transport.convert.usage import (
    measures_message,
    read_event,
    read_filter,
    read_request,
    record_message,
    result_message,
    row_message,
)
from latchkey_server.transport.convert.verification_report import read_verification_request, verification_row_message
from latchkey_server.transport.convert.well_known import optional_timestamp, read_enum, read_time
from latchkey_server.transport.grpc.lists import one_page


class UsageServicer(usage_service_pb2_grpc.UsageServiceServicer):
    """Answers UsageService."""

    def __init__(
        self, recorder: UsageRecorder, queries: UsageQueries, verifications: VerificationQueries, clock: Clock
    ) -> None:
        self._recorder = recorder
        self._queries = queries
        self._verifications = verifications
        self._clock = clock

    async def ReportUsage(self, request: Any, context: Context) -> pb.ReportUsageResponse:
        require_number("events", len(request.events), EVENTS_MAX)
        # Before they are read, so that refusing costs less than recording.
        self._recorder.groups.require_room(caller().workspace_id, len(request.events))
        results = await self._recorder.report(caller(), await in_slices(read_event, request.events))
        return pb.ReportUsageResponse(results=await in_slices(result_message, results))

    async def QueryUsage(self, request: pb.QueryUsageRequest, context: Context) -> pb.QueryUsageResponse:
        bound = binding(request)
        cursor = decode_token(bound, request.page_token)
        size = page_size(request.page_size, DEFAULT_ROWS, MAX_ROWS)
        report = await self._queries.report(caller(), read_request(request), size, cursor)
        rows = await fitting(row_message, report.rows)
        more = report.more or len(rows) < len(report.rows)
        return pb.QueryUsageResponse(
            rows=rows,
            totals=measures_message(report.totals),
            as_of=optional_timestamp(report.as_of),
            next_page_token=encode_token(bound, str(report.offset + len(rows)) if more else None),
        )

    async def ListUsageEvents(self, request: pb.ListUsageEventsRequest, context: Context) -> pb.ListUsageEventsResponse:
        shown, token = await one_page(
            request,
            lambda size, cursor: self._queries.events(caller(), self._read_page(request, size), cursor),
            record_message,
        )
        return pb.ListUsageEventsResponse(events=shown, next_page_token=token)

    async def QueryVerifications(
        self, request: pb.QueryVerificationsRequest, context: Context
    ) -> pb.QueryVerificationsResponse:
        bound = binding(request)
        cursor = decode_token(bound, request.page_token)
        size = page_size(request.page_size, DEFAULT_ROWS, MAX_ROWS)
        report = await self._verifications.report(caller(), read_verification_request(request), size, cursor)
        rows = await fitting(verification_row_message, report.rows)
        more = report.more or len(rows) < len(report.rows)
        return pb.QueryVerificationsResponse(
            rows=rows,
            total=report.total,
            as_of=optional_timestamp(report.as_of),
            next_page_token=encode_token(bound, str(report.offset + len(rows)) if more else None),
        )

    def _read_page(self, request: pb.ListUsageEventsRequest, size: int) -> EventPage:
        found = Violations()
        start, end = default_range(
            read_time(found, "start_time", request, "start_time"),
            read_time(found, "end_time", request, "end_time"),
            self._clock(),
        )
        wanted = read_filter(request.filter, found)
        asked = counted(found, "event_types", request.event_types, len(UsageType))
        types = tuple(read_enum(found, f"event_types[{index}]", UsageType, value) for index, value in enumerate(asked))
        found.check()
        return EventPage(start=start, end=end, wanted=wanted, types=types, limit=size)
