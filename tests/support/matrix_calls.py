"""Every rpc by its descriptor, and a call of any of them by any caller."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2

from latchkey.v1 import admin_service_pb2, key_service_pb2, usage_service_pb2, verify_service_pb2
from tests.support.service import Rejection

SERVICES = (
    key_service_pb2.DESCRIPTOR.services_by_name["KeyService"],
    verify_service_pb2.DESCRIPTOR.services_by_name["VerifyService"],
    usage_service_pb2.DESCRIPTOR.services_by_name["UsageService"],
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
)

METHODS: Mapping[str, MethodDescriptor] = {method.name: method for service in SERVICES for method in service.methods}
"""Every method by its name."""

REQUEST_ID = "latchkey-request-id"
OK = grpc.StatusCode.OK

_CHANGING = ("decided_time", "as_of", "confirmed_age", "cursor")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call was answered with; ``refusal`` is None for an OK answer."""

    method: str
    response: Message | None = None
    refusal: Rejection | None = None
    trailer: Mapping[str, str | bytes] = field(default_factory=dict)

    @property
    def code(self) -> grpc.StatusCode:
        """The status code."""
        return self.refusal.code if self.refusal else OK

    @property
    def outcome(self) -> str:
        """``OK``, or the ErrorReason, or the status code of an answer that carries none."""
        return (self.refusal.reason or self.code.name) if self.refusal else OK.name

    def told(self, identifiers: Iterable[str]) -> tuple[object, ...]:
        """Return all that the answer says, except ids that the request named itself and times."""
        response, details = "", []
        if self.response is not None:
            response = str(_timeless(self.response))
        if self.refusal is not None:
            details = [str(detail) for detail in self.refusal.status.details if not _is_request_info(detail.type_url)]
            details.append(str(self.refusal.info))
        message = self.refusal.message if self.refusal else ""
        texts = [response, message, *details]
        for identifier in identifiers:
            texts = [text.replace(identifier, "<id>") for text in texts]
        if self.refusal is not None:
            # Packed details hold the id's bytes too: what they unpack to is compared instead.
            texts = [texts[0], texts[1], texts[-1], str(self.refusal.bad_request), str(self.refusal.retry_info)]
        return (self.code, *texts)


async def call(
    channel: grpc.aio.Channel,
    request: Message,
    *,
    secret: str | None = None,
    metadata: Iterable[tuple[str, str]] = (),
    timeout: float = 30,
) -> Answer:
    """Send a request to the one method that takes it; of a stream, the first message and the first answer count."""
    given = tuple(metadata)
    while True:
        answer = await _call_once(channel, request, secret, given, timeout)
        # grpcio's aio client reports this, not the server's status, when a stream is refused while it still sends.
        if answer.refusal is None or answer.refusal.message != "Internal error from Core":
            return answer


async def _call_once(
    channel: grpc.aio.Channel,
    request: Message,
    secret: str | None,
    metadata: tuple[tuple[str, str], ...],
    timeout: float,
) -> Answer:
    method = _method_of(request)
    service = method.containing_service
    assert service is not None
    path = f"/{service.full_name}/{method.name}"
    sent = grpc.aio.Metadata(*metadata)
    if secret is not None:
        sent.add("authorization", f"Bearer {secret}")
    read: Callable[[bytes], Message] = GetMessageClass(method.output_type).FromString
    try:
        if method.client_streaming:
            stream = channel.stream_stream(path, request_serializer=_bytes, response_deserializer=read)
            answering = stream(_once(request), metadata=sent, timeout=timeout)
            responses = [response async for response in answering]
            trailing = await answering.trailing_metadata()
            return Answer(method.name, responses[0] if responses else None, trailer=dict(trailing))
        unary = channel.unary_unary(path, request_serializer=_bytes, response_deserializer=read)
        answer = unary(request, metadata=sent, timeout=timeout)
        response = await answer
        return Answer(method.name, response, trailer=dict(await answer.trailing_metadata()))
    except grpc.aio.AioRpcError as error:
        refusal = Rejection(error)
        return Answer(method.name, refusal=refusal, trailer=refusal.trailer)


async def _once(request: Message) -> AsyncIterator[Message]:
    yield request


def _bytes(request: Message) -> bytes:
    return request.SerializeToString()


def _method_of(request: Message) -> MethodDescriptor:
    for method in METHODS.values():
        if method.input_type.full_name == request.DESCRIPTOR.full_name:
            return method
    raise LookupError(request.DESCRIPTOR.full_name)


def _is_request_info(type_url: str) -> bool:
    return type_url.endswith(error_details_pb2.RequestInfo.DESCRIPTOR.full_name)


def _timeless(message: Message) -> Message:
    bare = type(message)()
    bare.CopyFrom(message)
    _clear_times(bare)
    return bare


def _clear_times(message: Message) -> None:
    for descriptor, value in message.ListFields():
        if descriptor.name in _CHANGING:
            message.ClearField(descriptor.name)
        elif isinstance(value, Message):
            _clear_times(value)
        elif descriptor.message_type is not None and not descriptor.message_type.GetOptions().map_entry:
            for item in value:
                _clear_times(item)
