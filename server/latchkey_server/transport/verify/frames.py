"""Batches and frames whose items stay bytes: on the wire a repeated message and repeated bytes look alike.

Parsing and building a message object for every item would cost more than deciding on it.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from latchkey.v1 import verify_service_pb2
from latchkey_server.domain import errors

_PACKAGE = "latchkey.raw"
_POOL: Final = DescriptorPool()


class RawBatch(Protocol):
    """A BatchVerifyRequest: ``items`` are VerifyRequests."""

    items: Sequence[bytes]


class RawFrame(RawBatch, Protocol):
    """A VerifyStreamRequest; ``timeout`` is a Duration, empty when absent."""

    frame_id: int
    timeout: bytes


def _raw(descriptor: Any) -> Any:
    """Return the class of messages that share a message's wire format, its message fields being bytes."""
    file = FileDescriptorProto(name=f"raw/{descriptor.name}.proto", package=_PACKAGE, syntax="proto3")
    message = file.message_type.add(name=descriptor.name)
    for field in descriptor.fields:
        raw_type = FieldDescriptorProto.TYPE_BYTES if field.message_type else field.type
        label = FieldDescriptorProto.LABEL_REPEATED if field.is_repeated else FieldDescriptorProto.LABEL_OPTIONAL
        message.field.add(name=field.name, number=field.number, type=raw_type, label=label)
    _POOL.Add(file)
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{descriptor.name}"))


_BatchRequest: Final = _raw(verify_service_pb2.BatchVerifyRequest.DESCRIPTOR)
_BatchResponse: Final = _raw(verify_service_pb2.BatchVerifyResponse.DESCRIPTOR)
_FrameRequest: Final = _raw(verify_service_pb2.VerifyStreamRequest.DESCRIPTOR)
_FrameResponse: Final = _raw(verify_service_pb2.VerifyStreamResponse.DESCRIPTOR)


def read_batch(raw: bytes) -> RawBatch:
    """Return a BatchVerifyRequest; raises InvalidField for what is none."""
    batch: RawBatch = _read(_BatchRequest, raw)
    return batch


def read_frame(raw: bytes) -> RawFrame:
    """Return a VerifyStreamRequest; raises InvalidField for what is none."""
    frame: RawFrame = _read(_FrameRequest, raw)
    return frame


def write_batch(results: Sequence[bytes]) -> bytes:
    """Return a BatchVerifyResponse of VerifyResults."""
    response: bytes = _BatchResponse(results=results).SerializeToString()
    return response


def write_frame(frame_id: int, results: Sequence[bytes]) -> bytes:
    """Return a VerifyStreamResponse of VerifyResults."""
    response: bytes = _FrameResponse(frame_id=frame_id, results=results).SerializeToString()
    return response


def _read(kind: Any, raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise errors.InvalidField.one("request", "is not a message of this method") from None
