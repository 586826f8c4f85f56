"""Services of gRPC with the layers around each of their handlers."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from latchkey_server.domain import errors
from latchkey_server.transport.call import current_metadata
from latchkey_server.transport.layers import Layer

ServicerContext = grpc.aio.ServicerContext[Any, Any]


class _Details(NamedTuple):
    """What gRPC passes to find the handler of a call."""

    method: str
    invocation_metadata: Any = ()


class Stack(grpc.GenericRpcHandler):
    """Accepts services as a server does, and answers their calls with the layers, outermost first, around each handler.

    A generic handler, not an interceptor, for which gRPC would wait for two more coroutines with every call. It accepts
    services by their generic handlers only: for each method that is registered by name, gRPC's aio server waits for one
    more future with every call, and forty of them cost more than the verification.
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self._bare: list[grpc.GenericRpcHandler] = []
        self._wrapped: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Answer for these handlers too."""
        self._bare.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, _service_name: str, _method_handlers: Any) -> None:
        """Register nothing."""

    def service(self, handler_call_details: Any) -> Any:
        """Return the wrapped handler of the method that is called, or None for an unknown method."""
        current_metadata.set(handler_call_details.invocation_metadata)
        return self._wrapped.get(handler_call_details.method) or self._wrap_first(handler_call_details)

    async def answer(self, method: str, request: Any, context: ServicerContext) -> Any:
        """Answer a call of a known method that answers once."""
        handler = self.service(_Details(method, context.invocation_metadata()))
        return await handler.unary_unary(request, context)

    def _wrap_first(self, details: Any) -> Any:
        for generic in self._bare:
            bare = generic.service(details)
            if bare is not None:
                handler = self._wrapped[details.method] = self._wrap(details.method, bare)
                return handler
        return None

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
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(behavior, deserialize, handler.response_serializer)


class Unreadable:
    """Stands for a request whose bytes are no message."""


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Pass unreadable requests on to the layers: gRPC itself would answer with the exception's text."""

    def read(raw: bytes) -> Any:
        try:
            return deserialize(raw)
        except DecodeError:
            return Unreadable()

    return read


def _readable(inner: Any, yields: bool) -> Any:
    """Return a handler of one request that refuses unreadable ones."""

    async def unary(request: Any, context: ServicerContext) -> Any:
        if isinstance(request, Unreadable):
            raise errors.InvalidField.one("request", "is not a message of this method")
        return await inner(request, context)

    async def stream(request: Any, context: ServicerContext) -> AsyncIterator[Any]:
        if isinstance(request, Unreadable):
            raise errors.InvalidField.one("request", "is not a message of this method")
        async for response in inner(request, context):
            yield response

    return stream if yields else unary
