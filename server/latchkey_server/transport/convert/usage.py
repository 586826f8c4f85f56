"""Usage between the wire and the domain."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from latchkey.money import money_of
from latchkey.v1 import error_reason_pb2, usage_pb2, usage_service_pb2
from latchkey_server.domain import ids
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.reporting.request import VALUES_MAX, ReportKey
from latchkey_server.domain.usage.event import EVENTS_MAX, METADATA_MAX, ItemResult, Outcome, UsageEvent, UsageType
from latchkey_server.domain.usage.outcomes import ReportedItem
from latchkey_server.domain.usage.report import (
    Measure,
    Measures,
    UsageDimension,
    UsageFilter,
    UsageGroupValue,
    UsageRecord,
    UsageRequest,
    UsageRow,
)
from latchkey_server.domain.validation import Violations
from latchkey_server.transport import sized
from latchkey_server.transport.convert.report import read_labels, read_report, read_texts
from latchkey_server.transport.convert.well_known import (
    read_enum,
    read_id,
    read_ids,
    read_money,
    read_struct,
    required_time,
    struct,
    timestamp,
)
from latchkey_server.transport.sized import batch_reader

EVENT_MAX: Final = 16 * 1024
"""Bytes that a serialised event may have: several times one whose every field is full."""

read_usage: Final = batch_reader(usage_service_pb2.ReportUsageRequest.DESCRIPTOR, EVENTS_MAX)
"""Reads a ReportUsageRequest whose events stay bytes."""


def read_event(raw: bytes) -> ReportedItem:
    """Return the event that a serialised message holds, or what is wrong with it."""
    try:
        return _read_event(sized.read(usage_pb2.UsageEvent.FromString, raw, EVENT_MAX))
    except LatchkeyError as error:
        return error


def _read_event(message: usage_pb2.UsageEvent) -> UsageEvent:
    found = Violations("event")
    given = message.metadata if message.HasField("metadata") else None
    event = UsageEvent(
        source=message.source,
        event_id=message.event_id,
        key_id=read_id(found, "key_id", ids.KEY, message.key_id),
        type=read_enum(found, "type", UsageType, message.type),
        occurred_time=required_time(found, "occurred_time", message, "occurred_time"),
        member=message.member if message.HasField("member") else None,
        model=message.model,
        task=message.task,
        requests=message.requests if message.HasField("requests") else None,
        input_tokens=message.input_tokens,
        output_tokens=message.output_tokens,
        cached_tokens=message.cached_tokens,
        cost=read_money(found, "cost", message, "cost") or 0,
        operation_id=message.operation_id,
        metadata=None if given is None else read_struct(found, "metadata", given, METADATA_MAX),
    )
    found.check()
    return event


_PLAIN_RESULTS = {
    outcome: usage_service_pb2.UsageEventResult(outcome=usage_service_pb2.UsageOutcome.ValueType(outcome))
    for outcome in Outcome
}


def result_message(result: ItemResult) -> usage_service_pb2.UsageEventResult:
    """Return what became of an event as a message."""
    if result.error is None:
        return _PLAIN_RESULTS[result.outcome]
    message = usage_service_pb2.UsageEventResult(outcome=usage_service_pb2.UsageOutcome.ValueType(result.outcome))
    message.reason = error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{result.error.reason}")
    message.message = result.error.message
    return message


def read_request(request: usage_service_pb2.QueryUsageRequest) -> UsageRequest:
    """Return the report that a request asks for; raises InvalidField."""
    found = Violations()
    asked = UsageRequest(
        **read_report(found, request, UsageDimension),
        wanted=read_filter(request.filter, found),
        order_by=read_enum(found, "order_by", Measure, request.order_by, Measure.SPEND),
    )
    found.check()
    return asked


def read_filter(message: usage_pb2.UsageFilter, found: Violations) -> UsageFilter:
    """Return the filter of a question; what is wrong is noted."""
    return UsageFilter(
        labels=read_labels(message.environments, found, "filter.environments"),
        unlabeled=message.environments.unlabeled,
        key_ids=read_ids(found, "filter.key_ids", ids.KEY, message.key_ids, VALUES_MAX),
        models=read_texts(found, "filter.models", message.models),
        members=read_texts(found, "filter.members", message.members),
        tasks=read_texts(found, "filter.tasks", message.tasks),
        external_ids=read_texts(found, "filter.external_ids", message.external_ids),
        api_ids=read_ids(found, "filter.api_ids", ids.API, message.api_ids, VALUES_MAX),
    )


def row_message(row: UsageRow) -> usage_pb2.UsageRow:
    """Return a row of a report as a message."""
    start, end = row.bucket
    return usage_pb2.UsageRow(
        start_time=timestamp(start),
        end_time=timestamp(end),
        group=_group_message(row.group, row.overflow),
        other=row.other,
        measures=measures_message(row.measures),
    )


def measures_message(measures: Measures) -> usage_pb2.UsageMeasures:
    """Return sums as messages."""
    return usage_pb2.UsageMeasures(
        spend=money_of(measures.spend),
        adjustments=money_of(measures.adjustments),
        net_spend=money_of(measures.spend + measures.adjustments),
        requests=measures.requests,
        input_tokens=measures.input_tokens,
        output_tokens=measures.output_tokens,
        cached_tokens=measures.cached_tokens,
        total_tokens=measures.input_tokens + measures.output_tokens,
    )


def record_message(record: UsageRecord) -> usage_pb2.UsageRecord:
    """Return a stored event as a message."""
    event = record.event
    return usage_pb2.UsageRecord(
        event=usage_pb2.UsageEvent(
            source=event.source,
            event_id=event.event_id,
            key_id=ids.format_id(ids.KEY, event.key_id),
            type=usage_pb2.UsageType.ValueType(event.type),
            member=event.member,
            model=event.model,
            task=event.task,
            requests=event.requests,
            input_tokens=event.input_tokens,
            output_tokens=event.output_tokens,
            cached_tokens=event.cached_tokens,
            cost=money_of(event.cost),
            occurred_time=timestamp(event.occurred_time),
            operation_id=event.operation_id,
            metadata=struct(event.metadata) if event.metadata is not None else None,
        ),
        record_time=timestamp(record.record_time),
    )


def _group_message(group: Mapping[UsageDimension, UsageGroupValue], overflow: bool) -> usage_pb2.UsageGroup:
    message = usage_pb2.UsageGroup(other=overflow)
    for dimension, value in group.items():
        match dimension, value:
            case UsageDimension.ENVIRONMENT, str():
                message.environment = value
                message.unlabeled = not value
            case UsageDimension.KEY, ReportKey():
                message.key.CopyFrom(key_message(value))
            case UsageDimension.API, UUID():
                message.api_id = ids.format_id(ids.API, value)
            case UsageDimension.IDENTITY, str():
                message.external_id = value
            case UsageDimension.MODEL, str():
                message.model = value
            case UsageDimension.MEMBER, str():
                message.member = value
            case UsageDimension.TASK, str():
                message.task = value
            case _:
                raise TypeError(dimension)
    return message


def key_message(key: ReportKey) -> usage_pb2.UsageKey:
    """Return a key as reports show it."""
    return usage_pb2.UsageKey(
        key_id=ids.format_id(ids.KEY, key.key_id), name=key.name, deleted=key.deleted, revoked=key.revoked
    )
