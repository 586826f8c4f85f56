"""What every call passes through, in one named order: errors, request id, metrics, log, authentication, deadline.

A layer wraps a handler when its method is first called; a call then passes plain nested functions. Handlers are of two
shapes: those that answer once, and those that answer with a stream.
"""

import asyncio
import itertools
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import structlog
from grpc.aio import AbortError

from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.freshness import Instant
from latchkey_server.domain.ids import MANAGEMENT_KEY, format_id
from latchkey_server.domain.model import Caller
from latchkey_server.domain.turns import Share, Turns, share_turns, turn
from latchkey_server.domain.validation import TOKEN
from latchkey_server.observability import Metrics
from latchkey_server.transport.admission import CALLS, STREAMS, Admission
from latchkey_server.transport.authentication import Authentication
from latchkey_server.transport.call import Call, Context, caller, current_call, metadata_of
from latchkey_server.transport.status import REQUEST_ID_KEY, abort_status, code_of

SERVICES = "/latchkey.v1."
"""What the paths of our own methods begin with; health, reflection and channelz need no credential."""

STREAMING = frozenset({"VerifyStream", "WatchKeys"})
"""Methods that go on for as long as their client likes."""

UNLOGGED = frozenset({"Verify", "BatchVerify", "VerifyStream", "ReportVerifications", "ReportUsage"})
"""Methods too frequent for a line each: they are only counted."""

LOOKUPS = frozenset({"Verify", "BatchVerify"})
"""Methods that wait for nothing but look-ups."""

# How much of a caller's time is left for the answer that it is over, on a busy machine too.
_SHAVED_MIN, _SHAVED_SHARE, _SHAVED_MAX = 0.02, 0.05, 0.2
# Statuses that are the server's own fault.
_SERIOUS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN}

Unary = Callable[[Any, Context], Awaitable[Any]]
Stream = Callable[[Any, Context], AsyncIterator[Any]]

log = structlog.get_logger("latchkey.rpc")


class Layer(Protocol):
    """One thing that happens around every call of a method."""

    name: str

    def unary(self, method: str, inner: Unary) -> Unary:
        """Return the handler with this layer around it, for methods that answer once."""
        ...

    def stream(self, method: str, inner: Stream) -> Stream:
        """Return the handler with this layer around it, for methods that answer with a stream."""
        ...


class Errors:
    """Outermost: whatever is raised becomes a status of ours, for gRPC would send an exception's text."""

    name = "errors"

    def unary(self, method: str, inner: Unary) -> Unary:
        async def handle(request: Any, context: Context) -> Any:
            try:
                return await inner(request, context)
            except AbortError:
                raise
            except Exception as error:
                await _abort(context, method, error)

        return handle

    def stream(self, method: str, inner: Stream) -> Stream:
        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async for response in inner(request, context):
                    yield response
            except AbortError:
                raise
            except Exception as error:
                await _abort(context, method, error)

        return handle


class RequestId:
    """Gives each call an id, the caller's `x-request-id` if it sent a valid one, and returns it in the trailer."""

    name = "request id"

    def unary(self, _method: str, inner: Unary) -> Unary:
        async def handle(request: Any, context: Context) -> Any:
            _begin(context)
            return await inner(request, context)

        return handle

    def stream(self, _method: str, inner: Stream) -> Stream:
        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            _begin(context)
            async for response in inner(request, context):
                yield response

        return handle


Observer = Callable[[grpc.StatusCode, float], None]
"""Receives the outcome of a call: its status and its seconds."""


class Observe:
    """Reports the outcome of every call to an observer, refused ones too: it stands outside authentication."""

    def __init__(self, name: str, observer_of: Callable[[str, bool], Observer]) -> None:
        """``observer_of`` gives the observer of a method, and is told whether that answers with a stream."""
        self.name = name
        self._observer_of = observer_of

    def unary(self, method: str, inner: Unary) -> Unary:
        observe = self._observer_of(method, False)

        async def handle(request: Any, context: Context) -> Any:
            begun = time.perf_counter()
            code = grpc.StatusCode.OK
            try:
                return await inner(request, context)
            except BaseException as error:
                code = _code(error)
                raise
            finally:
                observe(code, time.perf_counter() - begun)

        return handle

    def stream(self, method: str, inner: Stream) -> Stream:
        observe = self._observer_of(method, True)

        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            begun = time.perf_counter()
            code = grpc.StatusCode.OK
            try:
                async for response in inner(request, context):
                    yield response
            except BaseException as error:
                code = _code(error)
                raise
            finally:
                observe(code, time.perf_counter() - begun)

        return handle


def measure(metrics: Metrics) -> Observe:
    """Return the layer that counts and times calls by method and status."""

    def observer_of(method: str, streams: bool) -> Observer:
        timing = metrics.calls.stream_timing if streams else metrics.calls.timing
        return lambda code, seconds: timing(method, code.name).add(seconds)

    return Observe("metrics", observer_of)


def log_calls() -> Observe:
    """Return the layer that logs a line a call, of UNLOGGED methods serious failures only; never a call's content."""

    def observer_of(method: str, _streams: bool) -> Observer:
        quiet = not method.startswith(SERVICES) or method.rpartition("/")[2] in UNLOGGED

        def observe(code: grpc.StatusCode, seconds: float) -> None:
            if not quiet or code in _SERIOUS:
                _write_line(method, code, seconds)

        return observe

    return Observe("log", observer_of)


class Authenticate:
    """Authenticates callers and checks that their role allows the method; health and reflection are open to all."""

    name = "authentication"

    def __init__(self, authentication: Authentication, instant: Callable[[], Instant], default_seconds: float) -> None:
        self._authentication = authentication
        self._instant = instant
        self._default = default_seconds

    def unary(self, method: str, inner: Unary) -> Unary:
        if not method.startswith(SERVICES):
            return inner
        name = method.rpartition("/")[2]

        async def handle(request: Any, context: Context) -> Any:
            await self._authenticate(context, name)
            return await inner(request, context)

        return handle

    def stream(self, method: str, inner: Stream) -> Stream:
        if not method.startswith(SERVICES):
            return inner
        name = method.rpartition("/")[2]

        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            await self._authenticate(context, name)
            async for response in inner(request, context):
                yield response

        return handle

    async def _authenticate(self, context: Context, method: str) -> None:
        self._authentication.require_ready()
        call, authorization = current_call.get(), metadata_of("authorization")
        call.recheck = partial(self._check, call, authorization, method)
        call.recheck_at_once = partial(self._check_at_once, call, authorization, method)
        if call.recheck_at_once():
            return
        try:
            async with asyncio.timeout(_bound(context, self._default)):
                await call.recheck()
        except TimeoutError:
            raise errors.DatabaseUnavailable from None

    async def _check(self, call: Call, authorization: str | None, method: str) -> None:
        if not self._check_at_once(call, authorization, method):
            call.caller = await self._authentication.look_up(authorization, method, call.peer, self._instant())

    def _check_at_once(self, call: Call, authorization: str | None, method: str) -> bool:
        found = self._authentication.at_once(authorization, method, self._instant())
        if found is not None:
            call.caller = found
        return found is not None


class Deadline:
    """Ends a call a little before its client gives up, so that the client learns the reason.

    While the database is lost, and for look-ups at any time, the reason is the database; all but look-ups, which may be
    answered from memory, then end before they begin.
    """

    name = "deadline"

    def __init__(self, default_seconds: float, lost: Callable[[], bool]) -> None:
        self._default = default_seconds
        self._lost = lost

    def unary(self, method: str, inner: Unary) -> Unary:
        name = method.rpartition("/")[2]
        if not method.startswith(SERVICES) or name in STREAMING:
            return inner
        looks_up = name in LOOKUPS

        async def handle(request: Any, context: Context) -> Any:
            if not looks_up and self._lost():
                raise errors.DatabaseUnavailable
            try:
                async with asyncio.timeout(_bound(context, self._default)):
                    return await inner(request, context)
            except TimeoutError:
                if looks_up or self._lost():
                    raise errors.DatabaseUnavailable from None
                raise errors.DeadlineExceeded(
                    "The call was not finished in its time; ask for less or allow more."
                ) from None

        return handle

    def stream(self, _method: str, inner: Stream) -> Stream:
        return inner


class TakeTurns:
    """Admits what a caller may have under way, and has its work take turns with that of others."""

    name = "turns"

    def __init__(self, admission: Admission, turns: Turns) -> None:
        self._admission = admission
        self._turns = turns

    def unary(self, method: str, inner: Unary) -> Unary:
        if not method.startswith(SERVICES):
            return inner
        what = _what(method)

        async def handle(request: Any, context: Context) -> Any:
            with self._admission.admit(caller(), what, len(request) if isinstance(request, bytes) else 0):
                await self._begin(caller())
                return await inner(request, context)

        return handle

    def stream(self, method: str, inner: Stream) -> Stream:
        if not method.startswith(SERVICES):
            return inner
        what = _what(method)

        async def handle(request: Any, context: Context) -> AsyncIterator[Any]:
            with self._admission.admit(caller(), what):
                await self._begin(caller())
                async for response in inner(request, context):
                    yield response

        return handle

    async def _begin(self, of: Caller) -> None:
        share_turns(self._turns, Share(of.workspace_id, of.management_key_id))
        await turn()


def _what(method: str) -> str:
    return STREAMS if method.rpartition("/")[2] in STREAMING else CALLS


def _bound(context: Context, default: float) -> float:
    """Return the seconds that a call has, a little less than its client waits."""
    remaining = context.time_remaining()
    if remaining is None:
        return default
    return min(remaining - min(max(_SHAVED_MIN, remaining * _SHAVED_SHARE), _SHAVED_MAX), default)


def _begin(context: Context) -> None:
    call_id = next(call_ids(metadata_of("x-request-id")))
    current_call.set(Call(call_id, context.peer()))
    context.set_trailing_metadata(((REQUEST_ID_KEY, call_id),))


_PROCESS_ID: Final = secrets.token_hex(8)
_BLOCK: Final = 64


def _block_of_ids(block: int) -> list[str]:
    return [f"{_PROCESS_ID}{number:08x}" for number in range(block * _BLOCK, (block + 1) * _BLOCK)]


# Made many at a time, so that the code that formats numbers stays in the processor's caches.
_NEW_IDS: Final = itertools.chain.from_iterable(map(_block_of_ids, itertools.count()))


def call_ids(asked: str | None) -> Iterator[str]:
    """Return an iterator of ids: the one that the caller asked for, if it is valid, or ids that no other call has."""
    return itertools.repeat(asked) if asked and TOKEN.fullmatch(asked) else _NEW_IDS


async def _abort(context: Context, method: str, error: Exception) -> None:
    if not isinstance(error, LatchkeyError):
        # The text of a foreign error may hold anything, a secret too: only its type and its location are logged.
        log.error("unexpected error", method=method, error=type(error).__qualname__, at=_location(error))
        error = errors.Internal()
    call = current_call.get(None)
    await context.abort_with_status(abort_status(error, call.call_id if call else ""))


def _location(error: Exception) -> list[str]:
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def _code(error: BaseException) -> grpc.StatusCode:
    if isinstance(error, LatchkeyError):
        return code_of(error)
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return grpc.StatusCode.CANCELLED
    return grpc.StatusCode.INTERNAL


def _write_line(method: str, code: grpc.StatusCode, seconds: float) -> None:
    call = current_call.get()
    known = call.caller
    write = log.warning if code in _SERIOUS else log.info
    write(
        "call",
        method=method.removeprefix(SERVICES),
        code=code.name,
        ms=round(seconds * 1000, 1),
        request_id=call.call_id,
        peer=call.peer,
        caller=format_id(MANAGEMENT_KEY, known.management_key_id) if known else None,
    )
