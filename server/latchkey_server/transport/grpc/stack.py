"""Services of gRPC with the layers around each of their handlers."""

import inspect
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

import grpc

from latchkey_server.domain.errors import LatchkeyError, NotImplementedYet
from latchkey_server.transport import sized
from latchkey_server.transport.call import current_metadata
from latchkey_server.transport.layers import Layer
from latchkey_server.transport.sized import Read

_UNKNOWN = "unknown"
"""What metrics call all methods that there are not, lest their names fill them."""

_unknown_path: ContextVar[str] = ContextVar("unknown_path")

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

    def __init__(self, layers: Sequence[Layer], readers: Mapping[str, Read] = MappingProxyType({})) -> None:
        """``readers`` are for the methods whose requests are read otherwise than by their generated code."""
        self._layers = layers
        self._readers = readers
        self._bare: list[grpc.GenericRpcHandler] = []
        self._wrapped: dict[str, Any] = {}
        self._unknown = self._wrap(_UNKNOWN, grpc.stream_unary_rpc_method_handler(_refuse))

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Answer for these handlers too."""
        self._bare.extend(generic_rpc_handlers)

    def add_registered_method_handlers(self, _service_name: str, _method_handlers: Any) -> None:
        """Register nothing."""

    def service(self, handler_call_details: Any) -> Any:
        """Return the wrapped handler of the method that is called; for an unknown one it refuses, however called."""
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
        _unknown_path.set(details.method)
        return self._unknown

    def _wrap(self, method: str, handler: Any) -> Any:
        kind = ("stream" if handler.request_streaming else "unary") + (
            "_stream" if handler.response_streaming else "_unary"
        )
        behavior = getattr(handler, kind)
        # A coroutine that writes to its context (as gRPC's own health watch does) is awaited like an answer.
        yields = handler.response_streaming and not inspect.iscoroutinefunction(behavior)
        deserialize = handler.request_deserializer
        if not handler.request_streaming:
            # Within the layers: what nobody may ask is not read.
            behavior = _reading(behavior, yields, self._readers.get(method) or _reader(deserialize))
            deserialize = None
        elif deserialize:
            deserialize = partial(_read_or_none, deserialize)
        for layer in reversed(self._layers):
            wrap = layer.stream if yields else layer.unary
            behavior = wrap(method, behavior)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(behavior, deserialize, handler.response_serializer)


async def _refuse(_requests: object, _context: ServicerContext) -> NoReturn:
    raise NotImplementedYet.unknown(_unknown_path.get())


def _reader(deserialize: Read | None) -> Read:
    return partial(sized.read, deserialize) if deserialize else bytes


def _read_or_none(deserialize: Read, raw: bytes) -> Any:
    """Return a stream's request, or None: gRPC itself would answer with the exception's text."""
    try:
        return sized.read(deserialize, raw)
    except LatchkeyError:
        return None


def _reading(inner: Any, yields: bool, read: Read) -> Any:
    """Return a handler that reads its request by itself."""

    async def unary(raw: bytes, context: ServicerContext) -> Any:
        return await inner(read(raw), context)

    async def stream(raw: bytes, context: ServicerContext) -> AsyncIterator[Any]:
        async for response in inner(read(raw), context):
            yield response

    return stream if yields else unary
