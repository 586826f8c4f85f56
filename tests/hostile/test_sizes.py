"""The work on a field grows no faster than its size: every field of every request, in every costly shape.

What is compared is processor time at four times the size over that at one: 4 is linear, 16 the square. No time is
asserted by itself.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from latchkey.v1 import admin_service_pb2, key_service_pb2, usage_service_pb2, verify_service_pb2
from tests.support.service import Client

SMALL, LARGE = 50_000, 200_000
GROWTH_MAX = 9.0
SLACK = 0.004
"""Seconds that a call may take besides: the collector's rounds, other tasks."""
RUNS = 4

SERVICES = [
    (module.DESCRIPTOR.services_by_name[name])
    for module, name in (
        (key_service_pb2, "KeyService"),
        (verify_service_pb2, "VerifyService"),
        (usage_service_pb2, "UsageService"),
        (admin_service_pb2, "AdminService"),
    )
]
METHODS = {
    f"/{service.full_name}/{method.name}": method.input_type
    for service in SERVICES
    for method in service.methods
    if not method.client_streaming
}

TEXTS: dict[str, Callable[[int], str]] = {
    "marks": lambda size: "a" + "\u0301\u0323" * (size // 4),
    "unprintable": lambda size: "\u00a0" * (size // 2),
    "digits": lambda size: "1" * size,
    "dots": lambda size: "." * size,
    "slashes and colons": lambda size: "1:/" * (size // 3),
    "spaces": lambda size: " " * size,
}
STRUCTS: dict[str, Callable[[int], Struct]] = {
    "wide": lambda size: Struct(fields={f"{n}": Value(bool_value=True) for n in range(size // 12)}),
    "numbers": lambda size: Struct(
        fields={"a": Value(list_value=ListValue(values=[Value(number_value=1e308)] * (size // 11)))}
    ),
    "text": lambda size: Struct(fields={"a": Value(string_value=TEXTS["marks"](size))}),
}

Path = tuple[FieldDescriptor, ...]


def paths(descriptor: Descriptor, above: Path = ()) -> Iterator[Path]:
    """Yield the path of every field that can be large, in messages inside messages too."""
    for field in descriptor.fields:
        path = (*above, field)
        kind = field.message_type
        if kind is None:
            if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES) or field.is_repeated:
                yield path
        elif kind.full_name == "google.protobuf.Struct":
            yield path
        else:
            if field.is_repeated:
                yield path
            if kind not in (above_field.message_type for above_field in above):
                yield from paths(kind, path)


def shapes(field: FieldDescriptor) -> dict[str, Callable[[int], Any]]:
    """Return what a field is filled with, by name and size in bytes."""
    if field.message_type is not None:
        return dict(STRUCTS) if field.message_type.full_name == "google.protobuf.Struct" else {"empty": _empties(field)}
    if field.type == FieldDescriptor.TYPE_STRING:
        return {**TEXTS, **({"short ones": lambda size: ["\u0301\u0323"] * (size // 6)} if field.is_repeated else {})}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"bytes": lambda size: b"\xff" * size}
    return {"numbers": lambda size: [1] * size}


def _empties(field: FieldDescriptor) -> Callable[[int], Any]:
    kind = field.message_type
    assert kind is not None
    return lambda size: [GetMessageClass(kind)()] * (size // 3)


def filled(descriptor: Descriptor, path: Path, value: Any) -> bytes:
    """Return a request of which one field holds a value and nothing else is set."""
    request: Message = GetMessageClass(descriptor)()
    target: Any = request
    for field in path[:-1]:
        inner = getattr(target, field.name)
        target = inner.add() if field.is_repeated else inner
    last = path[-1]
    if last.is_repeated:
        getattr(target, last.name).extend(value if isinstance(value, list) else [value])
    elif last.message_type is not None:
        getattr(target, last.name).CopyFrom(value)
    else:
        setattr(target, last.name, value)
    return request.SerializeToString()


async def seconds(client: Client, method: str, raw: bytes) -> float:
    """Return the processor time that a call takes this process, server and client, at least."""
    call: Any = client.channel.unary_unary(method)
    metadata = (("authorization", f"Bearer {client.secret}"),)
    took = []
    for _ in range(RUNS):
        begun = time.process_time()
        try:
            await call(raw, metadata=metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
        took.append(time.process_time() - begun)
    return min(took)


def named(path: Sequence[FieldDescriptor]) -> str:
    return ".".join(field.name for field in path)


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_the_work_on_a_field_grows_no_faster_than_its_size(owner: Client, method: str) -> None:
    descriptor = METHODS[method]
    grown = {
        f"{named(path)} of {shape}": (
            await seconds(owner, method, filled(descriptor, path, fill(SMALL))),
            await seconds(owner, method, filled(descriptor, path, fill(LARGE))),
        )
        for path in paths(descriptor)
        for shape, fill in shapes(path[-1]).items()
    }

    assert {name: took for name, took in grown.items() if took[1] > GROWTH_MAX * took[0] + SLACK} == {}
