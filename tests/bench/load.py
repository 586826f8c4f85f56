"""Load: calls of already serialised bytes, kept in flight until a slice of time is over."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from latchkey.v1 import verification_pb2
from latchkey.v1 import verify_service_pb2 as pb
from tests.bench.seed import Metadata
from tests.bench.servers import BenchError

SERVICE = "/latchkey.v1.VerifyService/"
USAGE = "/latchkey.v1.UsageService/"
IN_FLIGHT = 64
CHANNELS = 4
CALL_SECONDS = 30.0

_OPTIONS = (
    # Channels of one address would otherwise share one connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
)

Channels = Sequence[grpc.aio.Channel]


@dataclass(slots=True)
class Sample:
    """What one slice did: verifications, how long the slice was, how long each call or frame took."""

    verifications: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


class Load(Protocol):
    """Something that asks as fast as it is answered."""

    async def run(self, seconds: float) -> Sample:
        """Ask for ``seconds`` and return when all is answered."""
        ...


@asynccontextmanager
async def channels(address: str, count: int = CHANNELS) -> AsyncIterator[Channels]:
    """Open ``count`` connections to an address, closed when the context is left."""
    opened = [grpc.aio.insecure_channel(address, options=_OPTIONS) for _ in range(count)]
    try:
        for channel in opened:
            await asyncio.wait_for(channel.channel_ready(), CALL_SECONDS)
        yield opened
    finally:
        for channel in opened:
            await channel.close()


class Unary:
    """Calls of a method that answers once, by callers in turn.

    It ends early when ``requests`` do, or after ``calls_max`` of them.
    """

    def __init__(
        self,
        over: Channels,
        method: str,
        requests: Iterator[bytes],
        *callers: Metadata,
        service: str = SERVICE,
        verifications: int = 1,
        check: Callable[[bytes], None] = lambda _raw: None,
        calls_max: int | None = None,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        calls: list[Any] = [channel.unary_unary(service + method) for channel in over]
        self._callers = list(itertools.islice(zip(itertools.cycle(calls), itertools.cycle(callers)), in_flight))
        self._requests = requests
        self._verifications = verifications
        self._check = check
        self._calls_max = calls_max

    async def run(self, seconds: float) -> Sample:
        sample = Sample()
        begun = time.perf_counter()
        requests = itertools.islice(self._requests, self._calls_max)
        answers = await asyncio.gather(
            *(self._ask(*caller, requests, begun + seconds, sample) for caller in self._callers)
        )
        sample.seconds = time.perf_counter() - begun
        sample.verifications = len(sample.latencies) * self._verifications
        if not sample.latencies:
            raise BenchError("there were too few keys for so many slices")
        self._check(next(answer for answer in answers if answer is not None))
        return sample

    async def _ask(
        self, call: Any, metadata: Metadata, requests: Iterator[bytes], end: float, sample: Sample
    ) -> bytes | None:
        answer: bytes | None = None
        now = time.perf_counter()
        while now < end and (request := next(requests, None)) is not None:
            answer = await call(request, metadata=metadata, timeout=CALL_SECONDS)
            begun, now = now, time.perf_counter()
            sample.latencies.append(now - begun)
        return answer


class Frames:
    """VerifyStream on each channel, so that 64 frames are in flight in all."""

    def __init__(self, over: Channels, requests: Sequence[pb.VerifyRequest], size: int, metadata: Metadata) -> None:
        self._calls: list[Any] = [channel.stream_stream(SERVICE + "VerifyStream") for channel in over]
        self._size = size
        self._metadata = metadata
        # A frame's id is one byte, so that its answer is told by looking at one byte.
        items = itertools.cycle(requests)
        self._frames = [
            pb.VerifyStreamRequest(frame_id=slot, items=itertools.islice(items, size)).SerializeToString()
            for slot in range(1, IN_FLIGHT // len(over) + 1)
        ]

    async def run(self, seconds: float) -> Sample:
        sample = Sample()
        begun = time.perf_counter()
        answers = await asyncio.gather(*(self._stream(call, begun + seconds, sample) for call in self._calls))
        sample.seconds = time.perf_counter() - begun
        sample.verifications = len(sample.latencies) * self._size
        for answer in answers:
            check_results(pb.VerifyStreamResponse.FromString(answer).results, self._size)
        return sample

    async def _stream(self, call: Any, end: float, sample: Sample) -> bytes:
        stream = call(metadata=self._metadata, timeout=CALL_SECONDS)
        asked = [0.0] * (len(self._frames) + 1)
        for slot, frame in enumerate(self._frames, 1):
            asked[slot] = time.perf_counter()
            await stream.write(frame)
        under_way, answer = len(self._frames), b""
        while under_way:
            answer = await stream.read()
            if answer is grpc.aio.EOF:
                raise BenchError(f"VerifyStream ended: {await stream.details()}")
            now, slot = time.perf_counter(), answer[1]
            sample.latencies.append(now - asked[slot])
            if now < end:
                asked[slot] = now
                await stream.write(self._frames[slot - 1])
            else:
                under_way -= 1
        await stream.done_writing()
        return answer


def batches(requests: Sequence[pb.VerifyRequest], size: int) -> list[bytes]:
    """Return serialised BatchVerifyRequests of ``size`` items that hold the requests in turn."""
    return [
        pb.BatchVerifyRequest(items=requests[start : start + size]).SerializeToString()
        for start in range(0, len(requests), size)
    ]


def check_one(raw: bytes) -> None:
    """Raise BenchError unless a VerifyResponse says VALID."""
    verification = pb.VerifyResponse.FromString(raw).verification
    if not verification.valid:
        raise BenchError(f"a verification said {verification.message or 'nothing'}")


def check_batch(size: int) -> Callable[[bytes], None]:
    """Return what raises BenchError unless a BatchVerifyResponse holds ``size`` valid verifications."""
    return lambda raw: check_results(pb.BatchVerifyResponse.FromString(raw).results, size)


def check_results(results: Sequence[verification_pb2.VerifyResult], size: int) -> None:
    """Raise BenchError unless there are ``size`` results and all are valid."""
    if len(results) != size or not all(result.verification.valid for result in results):
        raise BenchError("not every verification was valid")
