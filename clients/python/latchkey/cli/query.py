"""A report, asked for with QueryUsage and read page by page."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from latchkey.cli.report import MONEY, Cell, Dimension, Filter, Measure, Numbers, Part, Question, Report, Row, grouped
from latchkey.money import nanos_of
from latchkey.v1 import environment_pb2, usage_pb2, usage_service_pb2, usage_service_pb2_grpc

PAGE_SIZE = 2_000
"""Rows a page: one answer for nearly every report, and never a long one for the server to make."""

TIMEOUT = 60.0
"""Seconds for a page."""


async def fetch(channel: grpc.aio.Channel, question: Question, token: str) -> Report:
    """Ask and return the whole report; raises grpc.aio.AioRpcError."""
    usage = usage_service_pb2_grpc.UsageServiceStub(channel)
    pages = [page async for page in _pages(usage, request_of(question), token)]
    return report_of(question, pages)


async def _pages(
    usage: usage_service_pb2_grpc.UsageServiceStub, request: usage_service_pb2.QueryUsageRequest, token: str
) -> AsyncIterator[usage_service_pb2.QueryUsageResponse]:
    metadata = (("authorization", f"Bearer {token}"),)
    while True:
        page = await usage.QueryUsage(request, timeout=TIMEOUT, metadata=metadata)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def request_of(question: Question) -> usage_service_pb2.QueryUsageRequest:
    """Return the first page's request."""
    return usage_service_pb2.QueryUsageRequest(
        start_time=_timestamp(question.covered.start),
        end_time=_timestamp(question.covered.end),
        bucket_width=usage_pb2.BucketWidth.Value(f"BUCKET_WIDTH_{question.bucket.upper()}"),
        time_zone=question.covered.zone.key,
        group_by=[usage_pb2.UsageDimension.Value(f"USAGE_DIMENSION_{by.upper()}") for by in question.group_by],
        filter=_filter(question.selected),
        top=question.top,
        order_by=usage_pb2.UsageMeasure.Value(f"USAGE_MEASURE_{question.order_by.field.upper()}"),
        page_size=PAGE_SIZE,
    )


def report_of(question: Question, pages: Sequence[usage_service_pb2.QueryUsageResponse]) -> Report:
    """Return the report that its pages hold."""
    rows = (_row(row, question) for page in pages for row in page.rows)
    as_of = tuple(page.as_of.ToDatetime(tzinfo=UTC) for page in pages)
    return Report(question, grouped(rows, question.order_by), numbers_of(pages[0].totals), as_of)


def numbers_of(measures: usage_pb2.UsageMeasures) -> Numbers:
    """Return the measures as whole numbers."""
    return {
        measure: nanos_of(getattr(measures, measure.field)) if measure in MONEY else getattr(measures, measure.field)
        for measure in Measure
    }


def _row(row: usage_pb2.UsageRow, question: Question) -> Row:
    parts = () if row.other else tuple(_part(dimension, row.group) for dimension in question.group_by)
    start, end = (stamp.ToDatetime(tzinfo=UTC) for stamp in (row.start_time, row.end_time))
    return parts, row.other, Cell(start, end, numbers_of(row.measures))


def _part(dimension: Dimension, group: usage_pb2.UsageGroup) -> Part:
    match dimension:
        case Dimension.ENVIRONMENT:
            return Part(dimension, group.environment, unlabeled=group.unlabeled)
        case Dimension.KEY:
            key = group.key
            return Part(dimension, key.key_id, name=key.name, deleted=key.deleted, revoked=key.revoked)
        case Dimension.IDENTITY:
            return Part(dimension, group.external_id)
        case Dimension.API:
            return Part(dimension, group.api_id)
        case Dimension.MODEL | Dimension.MEMBER | Dimension.TASK:
            return Part(dimension, getattr(group, dimension.value), beyond=group.other)


def _filter(selected: Filter) -> usage_pb2.UsageFilter:
    wanted = {dimension: selected.values.get(dimension, ()) for dimension in Dimension}
    return usage_pb2.UsageFilter(
        environments=environment_pb2.EnvironmentFilter(
            labels=wanted[Dimension.ENVIRONMENT], unlabeled=selected.unlabeled
        ),
        key_ids=wanted[Dimension.KEY],
        models=wanted[Dimension.MODEL],
        members=wanted[Dimension.MEMBER],
        tasks=wanted[Dimension.TASK],
        external_ids=wanted[Dimension.IDENTITY],
        api_ids=wanted[Dimension.API],
    )


def _timestamp(instant: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(instant)
    return stamp
