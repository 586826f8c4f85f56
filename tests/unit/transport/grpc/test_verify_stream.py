"""VerifyStream beside a client that does not read: what no client of gRPC's lets be seen from outside."""

import asyncio
from typing import Any, NoReturn

import grpc
import pytest

from latchkey_server.domain import errors
from latchkey_server.domain.freshness import instant
from latchkey_server.transport.admission import FrameRoom
from latchkey_server.transport.call import Call, current_call
from latchkey_server.transport.grpc import verify_stream
from latchkey_server.transport.grpc.verify_stream import VerifyFrames
from latchkey_server.transport.verify.frames import read_frame, write_frame
from tests.unit.builders import make_caller

FRAME = b"\x08\x01\x1a\x00"
"""A frame of one item."""


class Unread:
    """A call whose client sends frames and reads no answer."""

    def __init__(self, frames: int, half_closed: bool) -> None:
        self.frames = frames
        self.half_closed = half_closed
        self.written = 0

    def peer(self) -> str:
        return "ipv4:10.0.0.1:1"

    def time_remaining(self) -> float | None:
        return None

    def set_trailing_metadata(self, trailing_metadata: Any, /) -> None:
        raise NotImplementedError

    async def abort_with_status(self, status: Any, /) -> NoReturn:
        raise NotImplementedError

    async def read(self) -> Any:
        if self.frames:
            self.frames -= 1
            return FRAME
        return grpc.aio.EOF if self.half_closed else await asyncio.Event().wait()

    async def write(self, message: Any, /) -> None:
        self.written += 1
        await asyncio.Event().wait()


async def answered(items: Any) -> list[bytes]:
    return [b""] * len(items)


@pytest.mark.parametrize("frames", [1, 1_000])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("half_closed", [True, False])
async def test_a_client_that_does_not_read_is_cut_off_and_its_room_is_given_back(
    monkeypatch: pytest.MonkeyPatch, frames: int, at_once: bool, half_closed: bool
) -> None:
    monkeypatch.setattr(verify_stream, "READ_SECONDS", 0.2)
    monkeypatch.setattr(verify_stream, "LOOK_SECONDS", 0.05)
    current_call.set(Call("a call", "a peer", make_caller(), None, lambda: True))
    call = current_call.get()

    async def recheck() -> None:
        return None

    call.recheck = recheck
    context, room = Unread(frames, half_closed), FrameRoom(100_000, 100_000)
    stream = VerifyFrames(
        context, lambda items: [b""] * len(items) if at_once else None, answered, room, instant, seconds=60
    )

    async with asyncio.timeout(10):
        with pytest.raises(errors.SlowConsumer):
            await stream.answer_all()

    assert context.written == 1
    assert frames - context.frames <= verify_stream.IN_FLIGHT_MAX + 1
    await asyncio.sleep(0)
    assert room.bytes == 0


def test_the_frame_of_this_test_is_one() -> None:
    assert read_frame(FRAME).frame_id == 1
    assert write_frame(1, [b""])
