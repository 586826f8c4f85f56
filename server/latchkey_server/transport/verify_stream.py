"""VerifyStream: frames are answered as they complete, at most 64 of them at a time on a stream."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta

from latchkey.v1 import verify_service_pb2 as pb
from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.validation import Violations
from latchkey_server.domain.verifier import Answer, Item, Verifier
from latchkey_server.transport.call import caller, recheck
from latchkey_server.transport.convert_verify import fitting, read_items
from latchkey_server.transport.wire import read_duration

IN_FLIGHT_MAX = 64
DEFAULT_TIMEOUT, TIMEOUT_MAX = timedelta(seconds=5), timedelta(seconds=30)

Counted = Callable[[Sequence[Answer]], None]


class VerifyFrames:
    """Answers the frames of one stream."""

    def __init__(self, verifier: Verifier, counted: Counted) -> None:
        self._verifier = verifier
        self._counted = counted
        self._room = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._ready: asyncio.Queue[Awaitable[pb.VerifyStreamResponse] | None] = asyncio.Queue()

    async def answers(self, frames: AsyncIterator[pb.VerifyStreamRequest]) -> AsyncIterator[pb.VerifyStreamResponse]:
        """Yield an answer for each frame as it completes; what is under way ends when the stream does.

        Raises CredentialInvalid and RoleTooLow once the caller's credential no longer allows the stream.
        """
        working: set[asyncio.Task[pb.VerifyStreamResponse]] = set()
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

    async def _read(
        self, frames: AsyncIterator[pb.VerifyStreamRequest], working: set[asyncio.Task[pb.VerifyStreamResponse]]
    ) -> None:
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

    async def _answer(self, frame: pb.VerifyStreamRequest) -> pb.VerifyStreamResponse:
        try:
            timeout = _timeout(frame)
        except LatchkeyError as error:
            return _refused(frame, error)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await self._verified(frame)
        except TimeoutError:
            return _refused(frame, errors.Deadline("The frame was not answered in its time; ask again."))
        except (errors.Unavailable, errors.InvalidField) as error:
            return _refused(frame, error)

    async def _verified(self, frame: pb.VerifyStreamRequest) -> pb.VerifyStreamResponse:
        await recheck()
        items = read_items(frame.items)
        answers = await self._verifier.verify_all(caller(), items)
        self._counted(answers)
        return pb.VerifyStreamResponse(frame_id=frame.frame_id, results=fitting(items, answers))


def _timeout(frame: pb.VerifyStreamRequest) -> timedelta:
    found = Violations()
    timeout = read_duration(found, "timeout", frame, "timeout")
    if timeout is not None and not timedelta(0) < timeout <= TIMEOUT_MAX:
        found.add("timeout", f"must be positive and at most {TIMEOUT_MAX.seconds} s")
    found.check()
    return timeout or DEFAULT_TIMEOUT


def _refused(frame: pb.VerifyStreamRequest, error: LatchkeyError) -> pb.VerifyStreamResponse:
    """Return the answer of a frame of which every item failed; a frame without items still gets its answer."""
    items: list[Item] = [error] * len(frame.items)
    answers: list[Answer] = [error] * len(frame.items)
    return pb.VerifyStreamResponse(frame_id=frame.frame_id, results=fitting(items, answers))
