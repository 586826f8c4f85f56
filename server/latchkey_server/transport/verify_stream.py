"""VerifyStream: frames are answered as they complete, at most 64 of them at a time on a stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.transport.call import recheck
from latchkey_server.transport.raw_frames import RawFrame, read_frame, write_frame
from latchkey_server.transport.write_verify import filled, fitting

IN_FLIGHT_MAX = 64
DEFAULT_TIMEOUT, TIMEOUT_MAX = 5.0, 30.0

Verify = Callable[[Sequence[bytes]], Awaitable[list[bytes]]]
"""Gives a serialised VerifyResult for each serialised VerifyRequest."""


class VerifyFrames:
    """Answers the frames of one stream."""

    def __init__(self, verify: Verify) -> None:
        self._verify = verify
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._ready: asyncio.Queue[Awaitable[bytes] | None] = asyncio.Queue()

    async def answers(self, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield an answer for each frame as it completes; what is under way ends when the stream does.

        Raises CredentialInvalid and RoleTooLow once the caller's credential no longer allows the stream.
        """
        working: set[asyncio.Task[bytes]] = set()
        reader = asyncio.create_task(self._read(frames, working))
        try:
            while (done := await self._ready.get()) is not None:
                yield await done
                self._room.release()
            await reader
        finally:
            for task in (reader, *working):
                task.cancel()
            await asyncio.gather(reader, *working, return_exceptions=True)

    async def _read(self, frames: AsyncIterator[bytes], working: set[asyncio.Task[bytes]]) -> None:
        try:
            await self._room.acquire()
            async for frame in frames:
                task = asyncio.create_task(self._answer(frame))
                working.add(task)
                task.add_done_callback(working.discard)
                task.add_done_callback(self._ready.put_nowait)
                await self._room.acquire()
            while working:
                await asyncio.wait(working)
        finally:
            self._ready.put_nowait(None)

    async def _answer(self, raw: bytes) -> bytes:
        frame = read_frame(raw)
        try:
            async with asyncio.timeout(_timeout(frame)):
                await recheck()
                return write_frame(frame.frame_id, await self._verify(frame.items))
        except TimeoutError:
            return _refused(frame, errors.Deadline("The frame was not answered in its time; ask again."))
        except (errors.Unavailable, errors.InvalidField) as error:
            return _refused(frame, error)


def _timeout(frame: RawFrame) -> float:
    """Return the seconds that a frame has; raises InvalidField."""
    if not frame.timeout:
        return DEFAULT_TIMEOUT
    try:
        given = Duration.FromString(frame.timeout)
        timeout = given.seconds + given.nanos / 1e9
    except DecodeError:
        timeout = 0.0
    if not 0 < timeout <= TIMEOUT_MAX or given.seconds < 0 or not 0 <= given.nanos < 1_000_000_000:
        raise errors.InvalidField.one("timeout", f"must be positive and at most {TIMEOUT_MAX:g} s")
    return timeout


def _refused(frame: RawFrame, error: LatchkeyError) -> bytes:
    """Return the answer of a frame of which every item failed; a frame without items still gets its answer."""
    refusals = [error] * len(frame.items)
    return write_frame(frame.frame_id, filled(fitting(refusals, refusals), len(refusals)))
