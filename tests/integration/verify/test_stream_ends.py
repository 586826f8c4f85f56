"""A stream has one way out, whatever ends it: what was read is answered, then comes a status."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc

from latchkey.v1 import verify_service_pb2 as pb
from tests.support.service import Client, Rejection, rejection, serving, settings_for

Metadata = tuple[tuple[str, str], ...]
STREAM = "/latchkey.v1.VerifyService/VerifyStream"


def bearer(client: Client) -> Metadata:
    return (("authorization", f"Bearer {client.secret}"),)


def frame(number: int, items: int = 1) -> pb.VerifyStreamRequest:
    question = pb.VerifyRequest(key="sk_nobody", explain=True)
    return pb.VerifyStreamRequest(frame_id=number, items=[question] * items)


async def raw_answers(client: Client, *frames: bytes) -> tuple[list[int], Rejection]:
    """Return the frames that were answered and how the stream ended, though its client goes on."""
    stream: Any = client.channel.stream_stream(STREAM)(metadata=bearer(client), timeout=30)
    for raw in frames:
        await stream.write(raw)
    answered = []
    try:
        async for raw in stream:
            answered.append(pb.VerifyStreamResponse.FromString(raw).frame_id)
    except grpc.aio.AioRpcError as error:
        return answered, Rejection(error)
    raise AssertionError("the stream ended with OK")


async def test_behind_something_that_is_no_frame_what_was_read_is_answered_and_the_stream_ends(root: Client) -> None:
    ended = await asyncio.gather(*(raw_answers(root, frame(7).SerializeToString(), b"\xff") for _ in range(12)))

    assert [answered for answered, _ in ended] == [[7]] * 12
    assert {(end.code, end.reason) for _, end in ended} == {(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")}


async def test_a_stream_that_has_lasted_its_time_ends_with_everything_that_was_read_answered(dsn: str) -> None:
    settings = settings_for(dsn).model_copy(update={"stream_seconds": 1.0})
    async with serving(dsn, settings=settings) as service:
        root = await service.client(service.root_secret)
        stream: Any = root.verifier.VerifyStream(metadata=bearer(root), timeout=30)
        for number in range(200):
            await stream.write(frame(number, items=20))
        answered = sorted([answer.frame_id async for answer in stream])
        status = await stream.code()

    assert status is grpc.StatusCode.OK
    assert answered == list(range(200))


async def test_a_watch_that_has_lasted_its_time_ends_and_is_continued_by_its_cursor(dsn: str) -> None:
    settings = settings_for(dsn).model_copy(update={"stream_seconds": 1.0})
    async with serving(dsn, settings=settings) as service:
        owner = await service.workspace()
        watch = owner.verifier.WatchKeys(nonces(), metadata=bearer(owner), timeout=30)
        cursor = [event.cursor async for event in watch][-1]
        status = await watch.code()
        made = await owner.create_key()
        again = owner.verifier.WatchKeys(nonces(cursor), metadata=bearer(owner), timeout=30)
        changed = [event.change.target_id async for event in again if event.HasField("change")]

    assert status is grpc.StatusCode.OK
    assert made.key.key_id in changed


async def test_a_caller_has_no_more_streams_at_a_time_than_its_share(dsn: str) -> None:
    settings = settings_for(dsn).model_copy(update={"caller_streams": 2})
    async with serving(dsn, settings=settings) as service:
        root, owner = await service.client(service.root_secret), await service.workspace()
        open_ = [await opened(root) for _ in range(2)]
        refused = await rejection(opened(root))
        await opened(owner)
        await open_[0].done_writing()
        assert await open_[0].read() is grpc.aio.EOF
        await opened(root)

    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SHARE_EXCEEDED")
    assert refused.retry_info.retry_delay.ToTimedelta() > timedelta(0)


async def opened(client: Client) -> Any:
    """Open a stream, and return it once a frame was answered."""
    stream: Any = client.verifier.VerifyStream(metadata=bearer(client), timeout=30)
    await stream.write(frame(1))
    assert (await stream.read()).frame_id == 1
    return stream


async def nonces(cursor: str = "") -> AsyncIterator[pb.WatchKeysRequest]:
    for number in itertools.count():
        yield pb.WatchKeysRequest(nonce=bytes([number % 256]), resume_cursor="" if number else cursor)
        await asyncio.sleep(0.05)
