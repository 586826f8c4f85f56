"""What one caller may try to stop the others: each attack keeps asking as fast as it is answered.

Run as a process of its own, whose work is not the victim's: `python -m tests.hostile.attacks NAME ADDRESS SECRET KEY`.
It prints a line once it is under way, then goes on until its standard input ends, and prints what it was told.
"""

import asyncio
import itertools
import json
import os
import secrets
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from latchkey.v1 import (
    environment_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    usage_pb2,
    usage_service_pb2,
    verification_pb2,
)
from latchkey.v1 import verify_service_pb2 as pb
from latchkey_server.domain.secret import MANAGEMENT_PREFIX, new_secret

CALL_SECONDS = 30.0
VERIFY, KEYS, USAGE = (f"/latchkey.v1.{name}Service/" for name in ("Verify", "Key", "Usage"))
KIB = 1024
MARKS = "a" + "\u0301\u0323" * (62 * KIB // 4)
"""A label of 62 KiB whose combining marks stand in the wrong order."""


@dataclass(frozen=True, slots=True)
class Attack:
    """The role that it takes, and what it does on a channel until it is cancelled, counting what it is told."""

    role: "management_key_pb2.Role.ValueType"
    run: Callable[["Attacker"], Awaitable[None]]


@dataclass(slots=True)
class Attacker:
    """One caller on some connections."""

    channels: list[grpc.aio.Channel]
    metadata: tuple[tuple[str, str], ...]
    told: Counter[str]
    key_id: str

    async def calls(self, method: str, requests: Iterator[bytes], at_once: int) -> None:
        """Call a method with one request after another, so many at a time."""

        async def one_after_another(number: int) -> None:
            call: Any = self.channels[number % len(self.channels)].unary_unary(method)
            for request in requests:
                await self._count(call(request, metadata=self._metadata(), timeout=CALL_SECONDS))

        await asyncio.gather(*(one_after_another(number) for number in range(at_once)))

    async def streams(self, frame: bytes, number: int, *, reading: bool = True) -> None:
        """Send a frame again and again on so many streams, and read the answers, or leave them."""

        async def one(channel: grpc.aio.Channel) -> None:
            while True:
                call: Any = channel.stream_stream(f"{VERIFY}VerifyStream")(metadata=self.metadata)
                sending = asyncio.create_task(_send(call, frame))
                try:
                    await (self._read(call) if reading else asyncio.Event().wait())
                finally:
                    sending.cancel()
                    call.cancel()

        await asyncio.gather(*(one(self.channels[n % len(self.channels)]) for n in range(number)))

    async def _read(self, call: Any) -> None:
        try:
            async for _ in call:
                self.told["frame"] += 1
        except grpc.aio.AioRpcError as error:
            self.told[error.code().name] += 1
            await asyncio.sleep(0.01)

    async def _count(self, call: Awaitable[Any]) -> None:
        try:
            await call
            self.told["OK"] += 1
        except grpc.aio.AioRpcError as error:
            self.told[error.code().name] += 1

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata or (("authorization", f"Bearer {new_secret(MANAGEMENT_PREFIX)}"),)


async def _send(call: Any, frame: bytes) -> None:
    while True:
        await call.write(frame)


def unknown() -> str:
    return f"sk_{secrets.token_hex(19)}"


def batch(items: int, **question: Any) -> bytes:
    """Return a batch of unknown secrets."""
    return pb.BatchVerifyRequest(
        items=[pb.VerifyRequest(key=unknown(), **question) for _ in range(items)]
    ).SerializeToString()


def frame(items: int, **question: Any) -> bytes:
    return pb.VerifyStreamRequest(
        frame_id=1, items=[pb.VerifyRequest(key=unknown(), **question) for _ in range(items)]
    ).SerializeToString()


def metadata(size: int) -> Struct:
    """Return metadata of about so many bytes."""
    struct = Struct()
    struct.update({f"key {number}": {"nested": [1, 2, 3]} for number in range(size // 80)})
    return struct


def now() -> Timestamp:
    return Timestamp(seconds=int(datetime.now(UTC).timestamp()))


def events(attacker: Attacker) -> Iterator[bytes]:
    """Yield reports of 1,000 new events each."""
    for number in itertools.count():
        yield usage_service_pb2.ReportUsageRequest(
            events=[
                usage_pb2.UsageEvent(
                    source=f"attack {number}",
                    event_id=secrets.token_hex(8),
                    key_id=attacker.key_id,
                    type=usage_pb2.USAGE_TYPE_CONSUME,
                    occurred_time=now(),
                    model=f"model {item % 50}",
                    requests=1,
                )
                for item in range(1_000)
            ]
        ).SerializeToString()


def imports() -> Iterator[bytes]:
    """Yield imports of 1,000 keys each."""
    while True:
        yield key_service_pb2.ImportKeysRequest(
            items=[
                key_service_pb2.ImportKeyItem(
                    key=key_pb2.Key(name="imported", prefix="sk", scopes=[f"scope.{n}" for n in range(20)]),
                    secret_sha256=os.urandom(32),
                )
                for _ in range(1_000)
            ]
        ).SerializeToString()


def verifications(attacker: Attacker) -> Iterator[bytes]:
    """Yield reports of 10,000 counts each."""
    quarter = Timestamp(seconds=int(datetime.now(UTC).timestamp()) // 900 * 900)
    for sequence in itertools.count(1):
        yield pb.ReportVerificationsRequest(
            client_id="attack",
            sequence=sequence,
            counts=[
                pb.VerificationCount(
                    quarter_time=quarter,
                    key_id=attacker.key_id,
                    code=verification_pb2.VERIFY_CODE_VALID,
                    model=f"model {n % 900}",
                    count=1,
                )
                for n in range(10_000)
            ],
        ).SerializeToString()


def same(raw: bytes) -> Iterator[bytes]:
    return itertools.repeat(raw)


def creating(key: key_pb2.Key) -> Iterator[bytes]:
    return same(key_service_pb2.CreateKeyRequest(key=key).SerializeToString())


def asking(**question: Any) -> Iterator[bytes]:
    return same(pb.VerifyRequest(key=unknown(), **question).SerializeToString())


def reporting(event: usage_pb2.UsageEvent) -> Iterator[bytes]:
    return same(usage_service_pb2.ReportUsageRequest(events=[event]).SerializeToString())


def query(attacker: Attacker) -> bytes:
    """Return a question for a report of many rows."""
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return usage_service_pb2.QueryUsageRequest(
        start_time=Timestamp(seconds=int((end - timedelta(days=90)).timestamp())),
        end_time=Timestamp(seconds=int(end.timestamp())),
        group_by=[usage_pb2.USAGE_DIMENSION_KEY, usage_pb2.USAGE_DIMENSION_MODEL],
        page_size=10_000,
    ).SerializeToString()


VERIFIER, VIEWER = management_key_pb2.ROLE_VERIFIER, management_key_pb2.ROLE_VIEWER
DEVELOPER = management_key_pb2.ROLE_DEVELOPER
NOBODY = management_key_pb2.ROLE_UNSPECIFIED

ATTACKS = {
    "nothing": Attack(NOBODY, lambda _a: asyncio.sleep(3_600)),
    "labels_of_marks": Attack(VERIFIER, lambda a: a.calls(f"{VERIFY}Verify", asking(environments=[MARKS]), 16)),
    "labels_of_marks_created": Attack(
        DEVELOPER, lambda a: a.calls(f"{KEYS}CreateKey", creating(key_pb2.Key(environment=MARKS)), 16)
    ),
    "labels_of_marks_listed": Attack(
        VIEWER,
        lambda a: a.calls(
            f"{KEYS}ListKeys",
            same(
                key_service_pb2.ListKeysRequest(
                    environments=environment_pb2.EnvironmentFilter(labels=[MARKS])
                ).SerializeToString()
            ),
            16,
        ),
    ),
    "huge_key": Attack(
        DEVELOPER, lambda a: a.calls(f"{KEYS}CreateKey", creating(key_pb2.Key(name="\u00a0" * 2_000_000)), 8)
    ),
    "huge_metadata": Attack(
        DEVELOPER, lambda a: a.calls(f"{KEYS}CreateKey", creating(key_pb2.Key(metadata=metadata(3_000 * KIB))), 8)
    ),
    "large_metadata": Attack(
        DEVELOPER, lambda a: a.calls(f"{KEYS}CreateKey", creating(key_pb2.Key(metadata=metadata(200 * KIB))), 8)
    ),
    "huge_metadata_of_usage": Attack(
        DEVELOPER,
        lambda a: a.calls(f"{USAGE}ReportUsage", reporting(usage_pb2.UsageEvent(metadata=metadata(3_000 * KIB))), 8),
    ),
    "empty_items": Attack(VERIFIER, lambda a: a.calls(f"{VERIFY}BatchVerify", same(b"\x0a\x00" * 2_000_000), 8)),
    "empty_events": Attack(DEVELOPER, lambda a: a.calls(f"{USAGE}ReportUsage", same(b"\x0a\x00" * 2_000_000), 8)),
    "empty_groups": Attack(VERIFIER, lambda a: a.calls(f"{VERIFY}Verify", same(b"\x1a\x00" * 130_000), 16)),
    "batches": Attack(VERIFIER, lambda a: a.calls(f"{VERIFY}BatchVerify", map(batch, itertools.repeat(1_000)), 16)),
    "batches_explained": Attack(
        VERIFIER, lambda a: a.calls(f"{VERIFY}BatchVerify", same(batch(1_000, explain=True, tags=["a", "b"])), 16)
    ),
    "unknown_secrets": Attack(
        VERIFIER,
        lambda a: a.calls(f"{VERIFY}Verify", (next(asking()) for _ in itertools.count()), 64),
    ),
    "frames": Attack(VERIFIER, lambda a: a.streams(frame(1_000), 16)),
    "small_frames": Attack(VERIFIER, lambda a: a.streams(frame(1), 64)),
    "unread_frames": Attack(VERIFIER, lambda a: a.streams(frame(1_000, explain=True), 32, reading=False)),
    "broken_frames": Attack(VERIFIER, lambda a: a.streams(b"\xff", 32)),
    "lists": Attack(VIEWER, lambda a: a.calls(f"{KEYS}ListKeys", same(b"\x08\xe8\x07"), 16)),
    "reports": Attack(VIEWER, lambda a: a.calls(f"{USAGE}QueryUsage", same(query(a)), 16)),
    "usage": Attack(DEVELOPER, lambda a: a.calls(f"{USAGE}ReportUsage", events(a), 8)),
    "imports": Attack(DEVELOPER, lambda a: a.calls(f"{KEYS}ImportKeys", imports(), 4)),
    "reported_verifications": Attack(VERIFIER, lambda a: a.calls(f"{VERIFY}ReportVerifications", verifications(a), 4)),
    "unknown_credentials": Attack(NOBODY, lambda a: a.calls(f"{VERIFY}Verify", asking(), 64)),
}


async def main(name: str, address: str, secret: str, key_id: str) -> None:
    """Run an attack until standard input ends."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(4)]
    credential = (("authorization", f"Bearer {secret}"),) if secret else ()
    attacker = Attacker(channels, credential, Counter(), key_id)
    running = asyncio.ensure_future(ATTACKS[name].run(attacker))
    print("under way", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    print(json.dumps(attacker.told), flush=True)
    # Whatever is still in flight is of no interest.
    os._exit(0)


if __name__ == "__main__":
    # As an attacker elsewhere would, it leaves the machine to the server and to the victim.
    os.nice(10)
    asyncio.run(main(*sys.argv[1:5]))
