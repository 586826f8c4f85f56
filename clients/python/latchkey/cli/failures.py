"""What went wrong, in one line: the status, its reason, and what to do."""

import click
import grpc
from google.rpc import error_details_pb2, status_pb2

from latchkey.cli.names import shown

_ADVICE = {
    "CREDENTIAL_MISSING": "put a management key's secret into LK_TOKEN or name a --token-file",
    "CREDENTIAL_INVALID": "look whether LK_TOKEN or --token-file holds a live management key's secret of this server",
    "SUM_OUT_OF_RANGE": "ask for a shorter time or filter",
}


class Failure(click.ClickException):
    """One line for the user, and exit status 1."""


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Return the ErrorReason of a status without its prefix; empty if the status is not Latchkey's."""
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            info = error_details_pb2.ErrorInfo()
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
                    return info.reason.removeprefix("ERROR_REASON_")
    return ""


def message_of(error: grpc.aio.AioRpcError, address: str, secure: bool) -> str:
    """Return a failed call in one line."""
    code, reason = error.code().name, reason_of(error)
    message = shown(" ".join((error.details() or "").split()))
    if not reason:
        message = _unanswered(error.code(), message, address, secure)
    advice = _ADVICE.get(reason, "")
    return f"{code}{reason and f' ({reason})'}: {message}" + (f" ({advice})" if advice else "")


def _unanswered(code: grpc.StatusCode, message: str, address: str, secure: bool) -> str:
    """Return the message for a status that is not Latchkey's."""
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            how = "over TLS (or --plaintext)" if secure else "in plaintext (or --tls)"
            return f"no Latchkey answers at {address} {how}; is it there? --address or LK_ADDRESS says where: {message}"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{address} took too long to answer; try again, or ask for less"
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"what answers at {address} is no Latchkey that knows this call: {message}"
        case _:
            return message
