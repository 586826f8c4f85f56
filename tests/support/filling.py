"""Messages filled by their descriptors, so that a field that is added to a proto is filled in every test at once.

Descriptors are of type Any: their two implementations, in Python and in C, have no type in common.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.api import field_behavior_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

OUTPUT_ONLY: Final = field_behavior_pb2.OUTPUT_ONLY
IMMUTABLE: Final = field_behavior_pb2.IMMUTABLE

_INTEGERS = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64}
_LATER = datetime(2090, 1, 1, tzinfo=UTC)

# Values of fields with rules of their own: two each, so that one can be changed into the other.
_VALUES: Mapping[str, tuple[Any, Any]] = {
    "Key.allow_ips": (["10.0.0.0/8"], ["192.0.2.1", "2001:db8::/32"]),
    "Key.expire_time": (_LATER, _LATER + timedelta(days=1)),
    "Key.not_before_time": (_LATER - timedelta(days=9), _LATER - timedelta(days=8)),
    "Key.prefix": ("sk_test", "sk_live"),
    "CreditRefill.interval": (2, 2),
    "CreditRefill.day_of_month": (7, 8),
    "UsageEvent.type": (1, 1),
    "UsageEvent.input_tokens": (70, 80),
    "VerifyRequest.client_ip": ("203.0.113.7", "203.0.113.8"),
}


def names(descriptor: Any) -> list[str]:
    """Return the names of a message's fields."""
    return [field.name for field in descriptor.fields]


def within(descriptor: Any) -> list[tuple[str, str]]:
    """Return the names of the fields that hold messages of Latchkey's, each with the name of every field inside."""
    return [
        (field.name, inner.name)
        for field in descriptor.fields
        if field.message_type is not None and field.message_type.file.package == "latchkey.v1"
        for inner in field.message_type.fields
    ]


def behaves(field: Any, behavior: int) -> bool:
    """Tell whether a field is annotated with a behavior (AIP-203)."""
    return behavior in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def inputs(descriptor: Any) -> list[str]:
    """Return the names of the fields that a caller may send."""
    return [field.name for field in descriptor.fields if not behaves(field, OUTPUT_ONLY)]


def outputs(descriptor: Any) -> list[str]:
    """Return the names of the fields that only the server sets."""
    return [field.name for field in descriptor.fields if behaves(field, OUTPUT_ONLY)]


def fill(message: Message, name: str, *, second: bool = False) -> None:
    """Set a field of a message, and everything in it, to one of two values that are not its default."""
    field = message.DESCRIPTOR.fields_by_name[name]
    value = _value(field, second)
    if field.is_repeated:
        getattr(message, name).extend(value)
    elif isinstance(value, Message):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)


def filled(message: Message, *but: str) -> Message:
    """Return a message with every field that a caller may send set, except some."""
    for name in inputs(message.DESCRIPTOR):
        if name not in but:
            fill(message, name)
    return message


def overridden() -> Iterator[tuple[str, str]]:
    """Return the message and the field of each value that is given by hand."""
    for path in _VALUES:
        message, _, field = path.partition(".")
        yield message, field


def _value(field: Any, second: bool) -> Any:
    given = _VALUES.get(f"{field.containing_type.name}.{field.name}")
    if given is not None:
        value = given[second]
        return _timestamp(value) if isinstance(value, datetime) else value
    return [_single(field, second)] if field.is_repeated else _single(field, second)


def _single(field: Any, second: bool) -> Any:
    if field.message_type is not None:
        return _message(field, second)
    if field.enum_type is not None:
        return field.enum_type.values[1 + second].number
    if field.cpp_type in _INTEGERS:
        return 7 + second
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        # With presence, the value that absence does not stand for.
        return second if field.has_presence else True
    return f"{field.name}-{'second' if second else 'first'}"


def _message(field: Any, second: bool) -> Message:
    match field.message_type.full_name:
        case "google.protobuf.Timestamp":
            return _timestamp(datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC) + timedelta(minutes=second))
        case "google.protobuf.Duration":
            return Duration(seconds=60 + second)
        case "google.protobuf.Struct":
            struct = Struct()
            struct.update({field.name: "second" if second else "first"})
            return struct
        case "google.type.Money":
            return Money(currency_code="USD", units=7 + second, nanos=5)
    message: Message = GetMessageClass(field.message_type)()
    for name in inputs(message.DESCRIPTOR):
        fill(message, name, second=second)
    return message


def _timestamp(instant: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(instant)
    return message
