"""How a handler is wrapped: layers around each, once, and a shortcut before them where there is one.

A layer wraps a handler when its method is first called; a call then passes plain nested functions. Handlers are of two
shapes: those that answer once, and those that answer with a stream.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Any]]
Stream = Callable[[Any, Context], AsyncIterator[Any]]
Shortcut = Callable[[Any, Context], Any]
"""Gives a call's response without waiting, or None; never raises."""

current_metadata: ContextVar[Any] = ContextVar("current_metadata")
"""What the call brought along: gRPC would make it anew from its own form at each asking."""


class Layer(Protocol):
    """One thing that happens around every call of a method."""

    name: str

    def unary(self, method: str, inner: Unary) -> Unary:
        """Return the handler with this layer around it, for methods that answer once."""
        ...

    def stream(self, method: str, inner: Stream) -> Stream:
        """Return the handler with this layer around it, for methods that answer with a stream."""
        ...


class Stack(grpc.aio.ServerInterceptor):
    """Puts the layers, outermost first, around each handler and remembers the result by method.

    A method's shortcut is tried before the layers: it answers what needs none of them, and None for everything else.
    """

    def __init__(self, layers: Sequence[Layer], shortcuts: Mapping[str, Shortcut]) -> None:
        self.names = tuple(layer.name for layer in layers)
        self._layers = layers
        self._shortcuts = shortcuts
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the wrapped handler of the method that is called, or None for an unknown method."""
        method = handler_call_details.method
        current_metadata.set(handler_call_details.invocation_metadata)
        handler = self._wrapped.get(method)
        if handler is None:
            bare = await continuation(handler_call_details)
            if bare is None:
                return None
            handler = self._wrapped[method] = self._wrap(method, bare)
        return handler

    def _wrap(self, method: str, handler: Any) -> Any:
        kind = ("stream" if handler.request_streaming else "unary") + (
            "_stream" if handler.response_streaming else "_unary"
        )
        behavior = getattr(handler, kind)
        # A coroutine that writes to its context (as gRPC's own health watch does) is awaited like an answer.
        yields = handler.response_streaming and not inspect.iscoroutinefunction(behavior)
        deserialize = handler.request_deserializer and _tolerant(handler.request_deserializer)
        if not handler.request_streaming and deserialize:
            behavior = _readable(behavior, yields)
        for layer in reversed(self._layers):
            wrap = layer.stream if yields else layer.unary
            behavior = wrap(method, behavior)
        if method in self._shortcuts:
            behavior = _first(self._shortcuts[method], behavior)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(behavior, deserialize, handler.response_serializer)


def _first(shortcut: Shortcut, long_way: Unary) -> Unary:
    async def handle(request: Any, context: Context) -> Any:
        response = shortcut(request, context)
        return await long_way(request, context) if response is None else response

    return handle


class Unreadable:
    """Stands for a request whose bytes are no message."""


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Let what can't be read come as far as the layers: gRPC itself would answer with the exception's text."""

    def read(raw: bytes) -> Any:
        try:
            return deserialize(raw)
        except DecodeError:
            return Unreadable()

    return read


def _readable(inner: Any, yields: bool) -> Any:
    """Return the handler of one request that is called with readable ones only."""

    async def unary(request: Any, context: Context) -> Any:
        if isinstance(request, Unreadable):
            raise errors.InvalidField.one("request", "is not a message of this method")
        return await inner(request, context)

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        if isinstance(request, Unreadable):
            raise errors.InvalidField.one("request", "is not a message of this method")
        async for response in inner(request, context):
            yield response

    return stream if yields else unary


async def write(context: Context, message: Any) -> None:
    """Send a message of a stream; a client that is gone ends the call like one that cancels it."""
    try:
        await context.write(message)
    except (asyncio.CancelledError, LatchkeyError):
        raise
    except Exception:
        # gRPC raises what it has at hand, before it tells of the cancellation.
        raise asyncio.CancelledError from None
