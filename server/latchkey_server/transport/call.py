"""The call that is being answered: its id, its peer and its caller, for whoever handles it."""

import hashlib
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message

from latchkey_server.domain import errors
from latchkey_server.domain.model import Caller
from latchkey_server.domain.mutations import Origin
from latchkey_server.domain.validation import Violations, check_token


@dataclass(slots=True)
class Call:
    """One RPC on its way through the interceptors."""

    call_id: str
    peer: str
    caller: Caller | None = None
    recheck: Callable[[], Awaitable[None]] | None = None
    """Authenticates again; set by the authentication layer."""
    recheck_at_once: Callable[[], bool] | None = None
    """Authenticates again without waiting, or tells that it can't."""


current_call: ContextVar[Call] = ContextVar("current_call")


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
    """Authenticate again if that takes no waiting, and tell whether; raises what authentication raises."""
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
