"""The call that is being answered: what layers and handlers need of it, its id, its peer and its caller."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from google.protobuf.message import Message

from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.model import Caller
from latchkey_server.domain.mutations import Origin
from latchkey_server.domain.validation import Violations, check_token


class Context(Protocol):
    """A call as its layers and handlers see it."""

    def peer(self) -> str:
        """Return where the call comes from."""
        ...

    def time_remaining(self) -> float | None:
        """Return the seconds that the client waits, or None if it waits for ever."""
        ...

    def set_trailing_metadata(self, trailing_metadata: Any, /) -> None:
        """Set what is sent behind the answer."""
        ...

    async def abort_with_status(self, status: Any, /) -> NoReturn:
        """End the call with a status; raises."""
        ...

    async def read(self) -> Any:
        """Return the client's next message, or gRPC's end mark after its last."""
        ...

    async def write(self, message: Any, /) -> None:
        """Send a message of a stream."""
        ...


current_metadata: ContextVar[Any] = ContextVar("current_metadata")
"""The call's metadata: gRPC would convert it anew at each access."""


@dataclass(slots=True)
class Call:
    """One RPC on its way through the layers."""

    call_id: str
    peer: str
    caller: Caller | None = None
    recheck: Callable[[], Awaitable[None]] | None = None
    """Authenticates again; set by the authentication layer."""
    recheck_at_once: Callable[[], bool] | None = None
    """Authenticates again without waiting; False if it would have to wait."""


current_call: ContextVar[Call] = ContextVar("current_call")


def metadata_of(key: str) -> str | None:
    """Return the text under a key of this call's metadata, or None."""
    for name, value in current_metadata.get(()) or ():
        if name == key and isinstance(value, str):
            return value
    return None


def caller() -> Caller:
    """Return who is calling; raises CredentialMissing where nobody was authenticated."""
    found = current_call.get().caller
    if found is None:
        raise errors.CredentialMissing
    return found


async def recheck() -> None:
    """Authenticate again, for a frame of a stream; raises what authentication raises."""
    check = current_call.get().recheck
    if check is None:
        raise errors.CredentialMissing
    await check()


def recheck_at_once() -> bool:
    """Authenticate again unless that means waiting, and tell whether it did; raises what authentication raises."""
    check = current_call.get().recheck_at_once
    return check is not None and check()


class Mutation(Protocol):
    """A request that takes a request_id."""

    @property
    def request_id(self) -> str: ...
    def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...


def origin(method: str, request: Mutation) -> Origin:
    """Return who asks for a mutation and how; raises InvalidField for a malformed request_id."""
    found = Violations()
    check_token(found, "request_id", request.request_id)
    found.check()
    call = current_call.get()
    content = request.SerializeToString(deterministic=True) if request.request_id else b""
    return Origin(
        caller=caller(),
        method=method,
        call_id=call.call_id,
        peer=call.peer,
        request_id=request.request_id,
        content_hash=hashlib.sha256(content).digest(),
    )


def binding(request: Message, *paging: str) -> bytes:
    """Return what a page token is bound to: the request without its paging fields."""
    bare = type(request)()
    bare.CopyFrom(request)
    for name in paging or ("page_size", "page_token"):
        bare.ClearField(name)
    return type(request).__name__.encode() + bare.SerializeToString(deterministic=True)


async def write(context: Context, message: Any) -> None:
    """Send a message of a stream; a client that has gone ends the call as one that cancels it does."""
    try:
        await context.write(message)
    except (asyncio.CancelledError, LatchkeyError):
        raise
    except Exception:
        # gRPC may raise anything here before it delivers the cancellation.
        raise asyncio.CancelledError from None
