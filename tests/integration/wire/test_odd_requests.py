"""Odd but legal requests: whatever a message holds, no rpc answers INTERNAL (seed printed; ODD_SEED=n repeats one)."""

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from latchkey.v1 import key_pb2
from tests.support.matrix_calls import METHODS, Answer, call
from tests.support.service import Client, Service

ROUNDS = 40
AT_ONCE = 32
_INTS = (0, 1, -1, 2, 7, 31, 1000, 10**9, 10**12 + 1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
_INT32 = tuple(number for number in _INTS if -(2**31) <= number < 2**31)
_TEXTS = (
    "",
    "a",
    "prod",
    " x ",
    "é" * 40,
    "\x00",
    "a\x00b",
    "\x1f",
    "\ud7ff\U0010ffff",
    "*",
    "a.*",
    "x" * 5000,
    "%",
    "'; --",
)
_BYTES = (b"", b"\x00", bytes(32), b"x" * 33)
_FLOATS = (0.0, -0.0, 1.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"))


class Odd:
    """Fills messages with edge values, real ids among them."""

    def __init__(self, seed: int, texts: tuple[str, ...]) -> None:
        self._random = random.Random(seed)
        self._texts = _TEXTS + texts * 3

    def message(self, kind: Callable[[], Message], depth: int = 0) -> Message:
        """Return a message with some of its fields set."""
        made = kind()
        for field in made.DESCRIPTOR.fields:
            if self._random.random() < (0.5 if depth < 3 else 0.15):
                self._fill(made, field, depth)
        return made

    def _fill(self, made: Message, field: Any, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if depth < 4:
                getattr(made, field.name)[self._random.choice(self._texts)].SetInParent()
        elif field.is_repeated:
            values = [self._value(field, depth) for _ in range(self._random.choice((1, 1, 2, 5)))]
            getattr(made, field.name).extend(values)
        elif field.message_type is not None:
            getattr(made, field.name).CopyFrom(self._value(field, depth))
        else:
            setattr(made, field.name, self._value(field, depth))

    def _value(self, field: Any, depth: int) -> Any:
        choose = self._random.choice
        if field.message_type is not None:
            return self.message(GetMessageClass(field.message_type), depth + 1)
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING:
                return choose(_BYTES if field.type == FieldDescriptor.TYPE_BYTES else self._texts)
            case FieldDescriptor.CPPTYPE_BOOL:
                return choose((True, False))
            case FieldDescriptor.CPPTYPE_DOUBLE:
                return choose(_FLOATS)
            case FieldDescriptor.CPPTYPE_ENUM:
                return choose((0, 1, 2, 3, 99, -1))
            case FieldDescriptor.CPPTYPE_INT32:
                return choose(_INT32)
            case _:
                return choose(_INTS)


async def test_no_odd_request_is_an_internal_error(service: Service, owner: Client) -> None:
    seed = int(os.environ.get("ODD_SEED") or random.SystemRandom().randrange(10**9))
    print(f"ODD_SEED={seed}")
    made = await owner.create_key(key_pb2.Key(external_id="acme", credits=key_pb2.Credits(amount=5)))
    key = made.key
    known = (made.secret, key.key_id, key.api_id, key.workspace_id, key.identity_id, "acme", "name", "environment")
    odd = Odd(seed, (*known, "sk", "USD", "Asia/Kolkata"))
    channel = (await service.anonymous()).channel
    requests = [odd.message(GetMessageClass(method.input_type)) for method in METHODS.values() for _ in range(ROUNDS)]

    room = asyncio.Semaphore(AT_ONCE)

    async def answered(request: Message) -> Answer:
        async with room:
            return await call(channel, request, secret=owner.secret)

    answers = await asyncio.gather(*map(answered, requests))

    wrong = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE}
    failed = [
        (answer.method, answer.outcome, str(request)[:1000])
        for request, answer in zip(requests, answers, strict=True)
        if answer.code in wrong and answer.outcome != "REVISION_NOT_REACHED"
    ]
    assert failed == []
