"""Every reason on the wire: its one status, its domain, its advice, and when to retry (spec §7, error_reason.proto)."""

import inspect
import re
from collections.abc import Callable

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from latchkey.v1.error_reason_pb2 import ErrorReason
from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.transport.status import abort_status, code_of, status_of
from tests.integration.wire.test_errors import SAMPLES

WITH_OWN_ARGUMENTS: dict[type[LatchkeyError], LatchkeyError] = {
    errors.InvalidField: errors.InvalidField.one("key.name", "must be at most 128 characters"),
    errors.RequestIdReused: errors.RequestIdReused("CreateKey"),
    errors.RoleTooLow: errors.RoleTooLow("VIEWER", "DEVELOPER"),
    errors.PermissionsExceeded: errors.PermissionsExceeded("ADMIN", "OWNER"),
    errors.SumOutOfRange: errors.SumOutOfRange("total_tokens"),
    errors.ShareExceeded: errors.ShareExceeded("streams", 64),
    errors.NotImplementedYet: errors.NotImplementedYet("ReleaseReservation"),
}
RETRIED = {
    "REVISION_NOT_REACHED",
    "DATABASE_UNAVAILABLE",
    "SERVER_NOT_READY",
    "SERVER_STOPPING",
    "OVERLOADED",
    "SHARE_EXCEEDED",
}


def _errors() -> list[LatchkeyError]:
    """Return an error of every reason."""
    found = []
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if not issubclass(kind, LatchkeyError) or "reason" not in vars(kind) or kind is LatchkeyError:
            continue
        make: Callable[..., LatchkeyError] = kind
        told = () if "__init__" in vars(kind) else ("what is told",)
        found.append(WITH_OWN_ARGUMENTS.get(kind) or make(*told))
    return found


EVERY = [pytest.param(error, id=error.reason) for error in _errors()]


def unpacked(status: status_pb2.Status) -> dict[str, object]:
    """Return the details of a status by their names."""
    kinds = (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
        error_details_pb2.RequestInfo,
    )
    found: dict[str, object] = {}
    for detail in status.details:
        (kind,) = [kind for kind in kinds if detail.Is(kind.DESCRIPTOR)]
        message = kind()
        detail.Unpack(message)
        assert kind.DESCRIPTOR.name not in found
        found[kind.DESCRIPTOR.name] = message
    return found


def test_there_is_an_error_of_every_reason() -> None:
    assert {error.reason for error in _errors()} == {
        name.removeprefix("ERROR_REASON_") for name, _ in ErrorReason.items() if name != "ERROR_REASON_UNSPECIFIED"
    }


@pytest.mark.parametrize("error", EVERY)
def test_a_reason_has_the_status_that_its_comment_names(error: LatchkeyError) -> None:
    assert code_of(error).name == SAMPLES[error.reason].code


@pytest.mark.parametrize("error", EVERY)
def test_an_error_carries_its_reason_its_domain_and_its_request_id_and_nothing_twice(error: LatchkeyError) -> None:
    status = status_of(error, "req-1")
    details = unpacked(status)

    assert status.code == code_of(error).value[0]
    assert details["ErrorInfo"] == error_details_pb2.ErrorInfo(
        reason=f"ERROR_REASON_{error.reason}", domain="latchkey", metadata=error.details
    )
    assert details["RequestInfo"] == error_details_pb2.RequestInfo(request_id="req-1")
    assert ("BadRequest" in details) is (code_of(error) is grpc.StatusCode.INVALID_ARGUMENT)
    assert details.keys() <= {"ErrorInfo", "RequestInfo", "BadRequest", "RetryInfo"}


@pytest.mark.parametrize("error", EVERY)
def test_exactly_what_may_succeed_a_moment_later_says_when_to_retry(error: LatchkeyError) -> None:
    retry = unpacked(status_of(error)).get("RetryInfo")

    retried = (grpc.StatusCode.UNAVAILABLE, *([code_of(error)] if isinstance(error, errors.ShareExceeded) else []))
    assert (code_of(error) in retried) is (error.reason in RETRIED)
    assert (retry is not None) is (error.reason in RETRIED)
    if isinstance(retry, error_details_pb2.RetryInfo):
        assert retry.retry_delay.ToTimedelta().total_seconds() > 0


@pytest.mark.parametrize("error", [error for error in EVERY if "__init__" in vars(type(error.values[0]))])
def test_a_message_is_one_sentence_or_two_that_end_in_a_full_stop(error: LatchkeyError) -> None:
    assert error.message.endswith(".")
    assert "\n" not in error.message
    assert not re.search(r"Error|Exception|Traceback|SQL|None", error.message)


@pytest.mark.parametrize("error", EVERY)
def test_a_call_is_aborted_with_the_same_code_message_and_details_in_its_trailer(error: LatchkeyError) -> None:
    aborted = abort_status(error, "req-1")
    trailer = dict(aborted.trailing_metadata)
    packed = trailer["grpc-status-details-bin"]

    assert isinstance(packed, bytes)
    assert (aborted.code, aborted.details) == (code_of(error), error.message)
    assert status_pb2.Status.FromString(packed) == status_of(error, "req-1")
    assert trailer["latchkey-request-id"] == "req-1"


def test_an_error_of_a_class_that_the_table_does_not_name_is_internal() -> None:
    class Unheard(LatchkeyError):
        """No reason of ours."""

    assert code_of(Unheard("what is told")) is grpc.StatusCode.INTERNAL
