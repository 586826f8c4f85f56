"""Errors become gRPC statuses here, by one table; nothing else about them reaches a client."""

from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError

DOMAIN = "latchkey"
REQUEST_ID_KEY = "latchkey-request-id"
_DETAILS_KEY = "grpc-status-details-bin"
_RETRY_AFTER_SECONDS = 1
# In bytes. All of it together has to stay below the 8 KiB of trailer that clients accept, and the statuses of a
# thousand items, with fewer violations each, below the answer's 3.5 MiB.
_ECHO_MAX, _VIOLATIONS_MAX, _MESSAGE_MAX = 128, 12, 512

CODES: Final[dict[type[LatchkeyError], grpc.StatusCode]] = {
    errors.InvalidField: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RequestIdReused: grpc.StatusCode.INVALID_ARGUMENT,
    errors.PageTokenInvalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CredentialMissing: grpc.StatusCode.UNAUTHENTICATED,
    errors.CredentialInvalid: grpc.StatusCode.UNAUTHENTICATED,
    errors.RoleTooLow: grpc.StatusCode.PERMISSION_DENIED,
    errors.ApiBinding: grpc.StatusCode.PERMISSION_DENIED,
    errors.PermissionsExceeded: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EtagMismatch: grpc.StatusCode.ABORTED,
    errors.OccurredTimeOutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.SumOutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.UsageConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.AnswerTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.SlowConsumer: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ShareExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.NotImplementedYet: grpc.StatusCode.UNIMPLEMENTED,
    errors.Internal: grpc.StatusCode.INTERNAL,
}
"""Which status each error, or the nearest of its bases, gives."""


@dataclass(frozen=True, slots=True)
class RichStatus(grpc.Status):
    """What a call is aborted with: its code and message, and in the trailer its id and its details."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def code_of(error: LatchkeyError) -> grpc.StatusCode:
    """Return the status code of an error."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), grpc.StatusCode.INTERNAL)


def status_of(error: LatchkeyError, call_id: str = "") -> status_pb2.Status:
    """Return the google.rpc.Status of an error, with the details that the specification names."""
    reason = f"ERROR_REASON_{error.reason}"
    metadata = {name: _clipped(value, _ECHO_MAX) for name, value in error.details.items()}
    details = [_packed(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))]
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(
                field=_clipped(violation.field, _ECHO_MAX), description=_clipped(violation.problem, _ECHO_MAX)
            )
            for violation in error.violations[:_VIOLATIONS_MAX]
        ]
        details.append(_packed(error_details_pb2.BadRequest(field_violations=violations)))
    if isinstance(error, errors.Unavailable | errors.ShareExceeded):
        delay = duration_pb2.Duration(seconds=_RETRY_AFTER_SECONDS)
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    if call_id:
        details.append(_packed(error_details_pb2.RequestInfo(request_id=call_id)))
    code = code_pb2.Code.Value(code_of(error).name)
    return status_pb2.Status(code=code, message=_clipped(error.message, _MESSAGE_MAX), details=details)


def abort_status(error: LatchkeyError, call_id: str) -> RichStatus:
    """Return what a call is aborted with."""
    packed = status_of(error, call_id).SerializeToString()
    metadata = ((REQUEST_ID_KEY, call_id), (_DETAILS_KEY, packed))
    return RichStatus(code_of(error), _clipped(error.message, _MESSAGE_MAX), metadata)


def _clipped(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore")


def _packed(
    message: error_details_pb2.ErrorInfo
    | error_details_pb2.BadRequest
    | error_details_pb2.RetryInfo
    | error_details_pb2.RequestInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
