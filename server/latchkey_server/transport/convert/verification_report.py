"""Reports on verifications between the wire and the domain."""

from collections.abc import Mapping
from uuid import UUID

from latchkey.v1 import usage_service_pb2, verification_pb2
from latchkey_server.domain import ids
from latchkey_server.domain.outcomes.counts import UNKNOWN
from latchkey_server.domain.outcomes.report import (
    VerificationDimension,
    VerificationFilter,
    VerificationGroupValue,
    VerificationRequest,
    VerificationRow,
)
from latchkey_server.domain.reporting.request import VALUES_MAX, ReportKey
from latchkey_server.domain.validation import Violations, counted
from latchkey_server.domain.verify.model import Code
from latchkey_server.transport.convert.report import read_labels, read_report, read_texts
from latchkey_server.transport.convert.usage import key_message
from latchkey_server.transport.convert.well_known import read_enum, read_ids, timestamp


def read_verification_request(request: usage_service_pb2.QueryVerificationsRequest) -> VerificationRequest:
    """Return the report that a request asks for; raises InvalidField."""
    found = Violations()
    asked = VerificationRequest(
        **read_report(found, request, VerificationDimension),
        wanted=_read_filter(request.filter, found),
    )
    found.check()
    return asked


def _read_filter(message: usage_service_pb2.VerificationFilter, found: Violations) -> VerificationFilter:
    codes = counted(found, "filter.codes", message.codes, VALUES_MAX)
    return VerificationFilter(
        codes=tuple(read_enum(found, f"filter.codes[{index}]", Code, code) for index, code in enumerate(codes)),
        labels=read_labels(message.environments, found, "filter.environments"),
        unlabeled=message.environments.unlabeled,
        key_ids=read_ids(found, "filter.key_ids", ids.KEY, message.key_ids, VALUES_MAX),
        api_ids=read_ids(found, "filter.api_ids", ids.API, message.api_ids, VALUES_MAX),
        calling_service_ids=read_ids(
            found, "filter.calling_service_ids", ids.MANAGEMENT_KEY, message.calling_service_ids, VALUES_MAX
        ),
        models=read_texts(found, "filter.models", message.models),
        tags=read_texts(found, "filter.tags", message.tags),
        unknown_secrets=message.unknown_secrets,
    )


def verification_row_message(row: VerificationRow) -> usage_service_pb2.VerificationRow:
    """Return a row of a report as a message."""
    start, end = row.bucket
    return usage_service_pb2.VerificationRow(
        start_time=timestamp(start),
        end_time=timestamp(end),
        group=_group_message(row.group, row.overflow),
        other=row.other,
        count=row.count,
    )


def _group_message(
    group: Mapping[VerificationDimension, VerificationGroupValue], overflow: bool
) -> usage_service_pb2.VerificationGroup:
    message = usage_service_pb2.VerificationGroup(other=overflow)
    for dimension, value in group.items():
        match dimension, value:
            case VerificationDimension.CODE, int():
                message.code = verification_pb2.VerifyCode.ValueType(value)
            case VerificationDimension.ENVIRONMENT, str():
                message.environment = value
                message.unlabeled = not value
            case VerificationDimension.KEY, ReportKey():
                message.key.CopyFrom(key_message(value))
            case VerificationDimension.API, UUID():
                message.api_id = ids.format_id(ids.API, value)
            case VerificationDimension.CALLING_SERVICE, UUID() if value != UNKNOWN:
                message.calling_service_id = ids.format_id(ids.MANAGEMENT_KEY, value)
            case VerificationDimension.MODEL, str():
                message.model = value
            case VerificationDimension.TAG, str():
                message.tag = value
            case VerificationDimension.PREFIX, str():
                message.prefix = value
            case (_, None) | (VerificationDimension.CALLING_SERVICE, _):
                pass
            case _:
                raise TypeError(dimension)
    return message
