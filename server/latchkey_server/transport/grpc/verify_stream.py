"""VerifyStream: frames are answered as they complete, at most 64 of them at a time on a stream."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.transport.call import Context, recheck, recheck_at_once, write
from latchkey_server.transport.verify.frames import RawFrame, read_frame, write_frame
from latchkey_server.transport.verify.writer import filled, fitting

IN_FLIGHT_MAX = 64
DEFAULT_TIMEOUT, TIMEOUT_MAX = 5.0, 30.0

Verify = Callable[[Sequence[bytes]], Awaitable[list[bytes]]]
"""Gives a serialised VerifyResult for each serialised VerifyRequest."""

AtOnce = Callable[[Sequence[bytes]], list[bytes] | None]
"""The same without waiting, or None."""


class VerifyFrames:
    """Answers the frames of one stream, in the order in which they are done."""

    def __init__(self, context: Context, at_once: AtOnce, verify: Verify) -> None:
        self._context = context
        self._at_once = at_once
        self._verify = verify
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._writing = asyncio.Lock()
        self._working: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._reader = asyncio.current_task()
        self._reading = False

    def stop(self) -> None:
        """Read no more: what is under way is answered, then the stream ends with ServerStopping."""
        self._fail(errors.ServerStopping())

    async def answer_all(self) -> None:
        """Answer each frame that comes, until the client has sent its last.

        Raises CredentialInvalid and RoleTooLow once the caller's credential no longer allows the stream, and
        ServerStopping.
        """
        ended = False
        try:
            while not ended and self._failure is None:
                raw = await self._next()
                if raw is None:
                    ended = self._failure is None
                else:
                    await self._take(read_frame(raw))
            if self._failure is None or isinstance(self._failure, errors.ServerStopping):
                while self._working:
                    await asyncio.wait(self._working)
        finally:
            for task in self._working:
                task.cancel()
            await asyncio.gather(*self._working, return_exceptions=True)
        if self._failure is not None and not (ended and isinstance(self._failure, errors.ServerStopping)):
            raise self._failure

    async def _next(self) -> bytes | None:
        """Return the client's next frame, or None when there is none or the stream is to end."""
        self._reading = True
        try:
            raw: object = await self._context.read()
        except asyncio.CancelledError:
            if self._failure is None:
                raise
            return None
        finally:
            self._reading = False
        return raw if isinstance(raw, bytes) else None

    async def _take(self, frame: RawFrame) -> None:
        answer = self._answer_at_once(frame)
        if answer is not None:
            await self._write(answer)
        else:
            await self._slots.acquire()
            self._begin(frame)

    def _answer_at_once(self, frame: RawFrame) -> bytes | None:
        try:
            _timeout(frame)
        except LatchkeyError:
            return None
        if not recheck_at_once():
            return None
        results = self._at_once(frame.items)
        return None if results is None else write_frame(frame.frame_id, results)

    def _begin(self, frame: RawFrame) -> None:
        task = asyncio.create_task(self._answer(frame))
        self._working.add(task)

        def done(task: "asyncio.Task[None]") -> None:
            self._working.discard(task)
            self._slots.release()
            if not task.cancelled() and (failure := task.exception()) is not None:
                self._fail(failure)

        task.add_done_callback(done)

    def _fail(self, failure: BaseException) -> None:
        """End the stream, even while its reader waits for a next frame, which may never come."""
        if self._failure is None:
            self._failure = failure
            if self._reader is not None and self._reading:
                self._reader.cancel()

    async def _answer(self, frame: RawFrame) -> None:
        try:
            async with asyncio.timeout(_timeout(frame)):
                await recheck()
                answer = write_frame(frame.frame_id, await self._verify(frame.items))
        except TimeoutError:
            answer = _refused(frame, errors.DeadlineExceeded("The frame was not answered in its time; ask again."))
        except (errors.Unavailable, errors.InvalidField) as error:
            answer = _refused(frame, error)
        await self._write(answer)

    async def _write(self, answer: bytes) -> None:
        async with self._writing:
            await write(self._context, answer)


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
