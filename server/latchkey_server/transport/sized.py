"""Requests read by their size first: how large they and their entries are, and how many, before a byte is parsed.

A batch's entries stay bytes: on the wire a repeated message and repeated bytes look alike. They are parsed one by one,
in slices; most verifications are not parsed at all.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from latchkey_server.domain import errors

MESSAGE_MAX: Final = 4 * 1024 * 1024
"""Bytes that a batch may have: gRPC's own default for what is received."""

REQUEST_MAX: Final = 256 * 1024
"""Bytes that any other request, and an entry of a batch, may have: more than a key whose every field is full."""

COUNTED_FROM: Final = 64 * 1024
"""Bytes from which on a request's fields are counted before it is parsed: a smaller one is parsed in a millisecond."""

FIELDS_MAX: Final = 1_024
"""Fields that a request other than a batch may have on its first level, each entry of a list being one."""

BESIDE_MAX: Final = 16
"""Fields that a batch may have beside its entries."""

Read = Callable[[bytes], Any]

_PACKAGE = "latchkey.raw"
_POOL: Final = DescriptorPool()
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def raw_class(descriptor: Any) -> Any:
    """Return the class of messages that share a message's wire format, its message fields being bytes."""
    file = FileDescriptorProto(name=f"raw/{descriptor.name}.proto", package=_PACKAGE, syntax="proto3")
    message = file.message_type.add(name=descriptor.name)
    for field in descriptor.fields:
        raw_type = FieldDescriptorProto.TYPE_BYTES if field.message_type else field.type
        label = FieldDescriptorProto.LABEL_REPEATED if field.is_repeated else FieldDescriptorProto.LABEL_OPTIONAL
        message.field.add(name=field.name, number=field.number, type=raw_type, label=label)
    _POOL.Add(file)
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{descriptor.name}"))


def read(parse: Read, raw: bytes, most: int = REQUEST_MAX, fields: int = FIELDS_MAX) -> Any:
    """Return the message that ``parse`` makes of a request of at most so many bytes and fields.

    Raises InvalidField for one that is larger, before it is parsed, and for what is no such message.
    """
    if len(raw) > most:
        raise errors.InvalidField.one("request", f"must be at most {most:,} bytes")
    try:
        if len(raw) > COUNTED_FROM and sum(1 for _ in zip(range(fields + 1), _sizes(raw), strict=False)) > fields:
            raise errors.InvalidField.one("request", f"must have at most {fields:,} fields, entries of lists included")
        return parse(raw)
    except DecodeError:
        raise errors.InvalidField.one("request", "is not a message of this method") from None


def batch_reader(descriptor: Any, entries: int) -> Read:
    """Return what reads a batch of at most so many entries, its message fields as bytes; raises as ``read`` does."""
    return partial(read, raw_class(descriptor).FromString, most=MESSAGE_MAX, fields=entries + BESIDE_MAX)


def _sizes(raw: bytes) -> Iterator[int]:
    """Yield the size of each field of a message's first level; raises DecodeError for what is none."""
    position, end = 0, len(raw)
    while position < end:
        begun = position
        tag, position = _varint(raw, position)
        kind = tag & 7
        if kind == _LENGTH:
            size, position = _varint(raw, position)
            position += size
        elif kind == _VARINT:
            _, position = _varint(raw, position)
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise DecodeError
        yield position - begun


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = shift = 0
    for byte in raw[position : position + 10]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position + shift // 7
    raise DecodeError
