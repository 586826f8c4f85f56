"""VerifyStream: frames are answered as they complete, at most 64 of them at a time on a stream.

A stream has one way out, whatever ends it: no further frame is read, what was read is answered, then comes its status.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.freshness import Instant
from latchkey_server.domain.turns import turn
from latchkey_server.transport.admission import FrameRoom, room_for
from latchkey_server.transport.call import Context, caller, recheck, recheck_at_once, write
from latchkey_server.transport.verify.frames import RawFrame, read_frame, write_frame
from latchkey_server.transport.verify.writer import filled, fitting

IN_FLIGHT_MAX: Final = 64
DEFAULT_TIMEOUT, TIMEOUT_MAX = 5.0, 30.0

READ_SECONDS: Final = 30.0
"""Seconds for which a client may leave an answer unread."""

LOOK_SECONDS: Final = 1.0
"""Seconds between two looks at how old a stream is, and whether its client reads."""

REFUSALS_MAX: Final = 10_000
"""Results of a frame that is refused: of so many the shortest fit into an answer."""

Verify = Callable[[Sequence[bytes]], Awaitable[list[bytes]]]
"""Gives a serialised VerifyResult for each serialised VerifyRequest."""

AtOnce = Callable[[Sequence[bytes]], list[bytes] | None]
"""The same without waiting, or None."""


class VerifyFrames:
    """Answers the frames of one stream, in the order in which they are done."""

    def __init__(
        self,
        context: Context,
        at_once: AtOnce,
        verify: Verify,
        room: FrameRoom,
        instant: Callable[[], Instant],
        seconds: float,
    ) -> None:
        """``seconds`` is how long the stream lasts."""
        self._context = context
        self._at_once = at_once
        self._verify = verify
        self._room = room
        self._caller_id = caller().management_key_id
        self._instant = instant
        self._end = instant() + seconds
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._writing = asyncio.Lock()
        self._written_from: Instant | None = None
        """Since when an answer waits to be read."""
        self._working: set[asyncio.Task[None]] = set()
        self._ending = False
        self._failure: BaseException | None = None
        self._reader = asyncio.current_task()
        self._reading = False

    def stop(self) -> None:
        """Read no more: what is under way is answered, then the stream ends with ServerStopping."""
        self._finish(errors.ServerStopping())

    async def answer_all(self) -> None:
        """Answer each frame that comes, until the client has sent its last or the stream has lasted its time.

        Raises CredentialInvalid and RoleTooLow once the caller's credential no longer allows the stream, InvalidField
        behind something that is no frame, SlowConsumer, and ServerStopping.
        """
        watchdog = asyncio.create_task(self._look())
        try:
            await self._read_all()
            while self._working:
                await asyncio.wait(self._working)
        except asyncio.CancelledError:
            if not isinstance(self._failure, errors.SlowConsumer):
                raise
        finally:
            for task in (watchdog, *self._working):
                task.cancel()
            await asyncio.gather(watchdog, *self._working, return_exceptions=True)
        if self._failure is not None:
            raise self._failure

    async def _read_all(self) -> None:
        try:
            while not self._ending:
                raw = await self._next()
                if raw is None:
                    self._ending = True
                else:
                    await turn()
                    await self._take(read_frame(raw))
        except LatchkeyError as error:
            self._finish(error)

    async def _next(self) -> bytes | None:
        """Return the client's next frame, or None when there is none or the stream is to end."""
        self._reading = True
        try:
            raw: object = await self._context.read()
        except asyncio.CancelledError:
            if not self._ending or isinstance(self._failure, errors.SlowConsumer):
                raise
            return None
        finally:
            self._reading = False
        return raw if isinstance(raw, bytes) else None

    async def _take(self, frame: RawFrame) -> None:
        answer = self._answer_at_once(frame)
        if answer is not None:
            await self._write(answer)
            return
        size = room_for(frame.items)
        await self._slots.acquire()
        await self._room.enter(self._caller_id, size)
        self._begin(frame, size)

    def _answer_at_once(self, frame: RawFrame) -> bytes | None:
        try:
            _timeout(frame)
        except LatchkeyError:
            return None
        if not recheck_at_once():
            return None
        results = self._at_once(frame.items)
        return None if results is None else write_frame(frame.frame_id, results)

    def _begin(self, frame: RawFrame, size: int) -> None:
        task = asyncio.create_task(self._answer(frame))
        self._working.add(task)

        def done(task: "asyncio.Task[None]") -> None:
            self._working.discard(task)
            self._slots.release()
            self._room.leave(self._caller_id, size)
            if not task.cancelled() and (failure := task.exception()) is not None:
                self._finish(failure)

        task.add_done_callback(done)

    def _finish(self, failure: BaseException | None) -> None:
        """Read no more, even while the reader waits for a next frame, which may never come."""
        if self._failure is None and not (self._ending and isinstance(failure, errors.ServerStopping)):
            self._failure = failure
        if not self._ending:
            self._ending = True
            if self._reader is not None and self._reading:
                self._reader.cancel()

    async def _look(self) -> None:
        """End the stream in its time, and cut off a client that does not read."""
        while True:
            remaining = self._end - self._instant()
            await asyncio.sleep(min(LOOK_SECONDS, remaining) if remaining > 0 else LOOK_SECONDS)
            at = self._instant()
            if self._written_from is not None and at - self._written_from > READ_SECONDS:
                self._ending, self._failure = (
                    True,
                    errors.SlowConsumer("Read answers as they come."),
                )
                if self._reader is not None:
                    self._reader.cancel()
                return
            if at >= self._end:
                self._finish(None)

    async def _answer(self, frame: RawFrame) -> None:
        try:
            async with asyncio.timeout(_timeout(frame)):
                await recheck()
                answer = write_frame(frame.frame_id, await self._verify(frame.items))
        except TimeoutError:
            answer = await _refused(
                frame, errors.DeadlineExceeded("The frame was not answered in its time; ask again.")
            )
        except (errors.Unavailable, errors.InvalidField, errors.ShareExceeded) as error:
            answer = await _refused(frame, error)
        await self._write(answer)

    async def _write(self, answer: bytes) -> None:
        async with self._writing:
            self._written_from = self._instant()
            try:
                await write(self._context, answer)
            finally:
                self._written_from = None


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


async def _refused(frame: RawFrame, error: LatchkeyError) -> bytes:
    """Return the answer of a frame of which every item failed; a frame without items still gets its answer.

    One with more items than an answer has room for gets as many results as fit.
    """
    refusals = [error] * min(len(frame.items), REFUSALS_MAX)
    return write_frame(frame.frame_id, filled(await fitting(refusals, refusals), len(refusals)))
