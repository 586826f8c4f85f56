"""What went wrong, as the command line says it: one line with the status, its reason and what to do."""

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2

from latchkey.cli.failures import message_of, reason_of

ADDRESS = "keys.internal:50051"
UNAVAILABLE, UNKNOWN = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN


def failed(code: grpc.StatusCode, details: str | None, reason: str = "", *before: Packed) -> grpc.aio.AioRpcError:
    """Return a failed call; with a reason its trailer holds the details that Latchkey sends."""
    trailer = grpc.aio.Metadata(("latchkey-request-id", "req-1"))
    if reason or before:
        packed = Packed()
        packed.Pack(error_details_pb2.ErrorInfo(reason=f"ERROR_REASON_{reason}", domain="latchkey"))
        status = status_pb2.Status(code=code.value[0], details=[*before, *([packed] if reason else [])])
        trailer.add("grpc-status-details-bin", status.SerializeToString())
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailer, details)


def told(error: grpc.aio.AioRpcError, secure: bool = True) -> str:
    """Return the line that the user reads."""
    return message_of(error, ADDRESS, secure)


def test_a_refusal_of_latchkey_is_its_status_its_reason_and_its_message() -> None:
    error = failed(grpc.StatusCode.NOT_FOUND, "No such key; check the id and the workspace.", "KEY_NOT_FOUND")

    assert told(error) == "NOT_FOUND (KEY_NOT_FOUND): No such key; check the id and the workspace."


@pytest.mark.parametrize(
    ("code", "reason", "advice"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_MISSING", "LK_TOKEN"),
        (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID", "live management key's secret of this server"),
        (grpc.StatusCode.OUT_OF_RANGE, "SUM_OUT_OF_RANGE", "shorter time or filter"),
    ],
)
def test_where_the_options_help_the_line_says_which(code: grpc.StatusCode, reason: str, advice: str) -> None:
    line = told(failed(code, "It failed.", reason))

    assert line.startswith(f"{code.name} ({reason}): It failed. (")
    assert advice in line
    assert line.endswith(")")


@pytest.mark.parametrize(
    ("code", "secure", "line"),
    [
        (UNAVAILABLE, True, f"UNAVAILABLE: no Latchkey answers at {ADDRESS} over TLS (or --plaintext); is it there?"),
        (UNAVAILABLE, False, f"UNAVAILABLE: no Latchkey answers at {ADDRESS} in plaintext (or --tls); is it there?"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, True, f"DEADLINE_EXCEEDED: {ADDRESS} took too long to answer; try again"),
        (grpc.StatusCode.UNIMPLEMENTED, True, f"UNIMPLEMENTED: what answers at {ADDRESS} is no Latchkey that knows"),
        (UNKNOWN, True, "UNKNOWN: what is told"),
    ],
)
def test_what_is_not_latchkeys_own_answer_is_told_with_the_address_and_how_it_was_asked(
    code: grpc.StatusCode, secure: bool, line: str
) -> None:
    assert told(failed(code, "what is told"), secure).startswith(line)


def test_an_outage_that_latchkey_tells_itself_is_not_taken_for_a_missing_server() -> None:
    line = told(failed(UNAVAILABLE, "The database is not reachable at the moment.", "DATABASE_UNAVAILABLE"))

    assert line == "UNAVAILABLE (DATABASE_UNAVAILABLE): The database is not reachable at the moment."


@pytest.mark.parametrize(
    ("details", "line"),
    [
        ("two\nlines\n\tand   blanks", "UNKNOWN: two lines and blanks"),
        ("red \x1b[31m text", "UNKNOWN: red \\u001b[31m text"),
        ("\u202egnihton", "UNKNOWN: \\u202egnihton"),
        ("", "UNKNOWN: "),
        (None, "UNKNOWN: "),
    ],
)
def test_whatever_a_server_says_is_one_line_that_commands_no_terminal(details: str | None, line: str) -> None:
    assert told(failed(UNKNOWN, details)) == line


def test_the_reason_is_found_among_other_details() -> None:
    other = Packed()
    other.Pack(error_details_pb2.RequestInfo(request_id="req-1"))

    assert reason_of(failed(UNKNOWN, "", "INTERNAL", other)) == "INTERNAL"
    assert reason_of(failed(UNKNOWN, "", "", other)) == ""
    assert reason_of(failed(UNKNOWN, "")) == ""
