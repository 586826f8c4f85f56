"""VerifyService on the wire: read, call the domain, write. Verifications come and go as bytes."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc

from latchkey.v1 import verify_service_pb2 as pb
from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.freshness import Instant
from latchkey_server.domain.outcomes.client_reports import ClientReports
from latchkey_server.domain.turns import in_slices, turn
from latchkey_server.domain.verify.command import Verifier, VerifyAnswer, VerifyItem, require_count
from latchkey_server.domain.verify.ports import Feed
from latchkey_server.domain.verify.watching import Watchers
from latchkey_server.observability import Metrics
from latchkey_server.transport.admission import FrameRoom, room_for
from latchkey_server.transport.answer_size import ANSWER_MAX
from latchkey_server.transport.call import Context, caller
from latchkey_server.transport.convert.client_report import RawReport, read_report
from latchkey_server.transport.grpc.verify_stream import VerifyFrames
from latchkey_server.transport.grpc.watch_keys import KeyWatch
from latchkey_server.transport.verify.fast_path import AT_ONCE_MAX, FastPath
from latchkey_server.transport.verify.frames import read_batch, write_batch
from latchkey_server.transport.verify.reader import read_item
from latchkey_server.transport.verify.writer import FULL_BYTES, TAG_BYTES, answer_bytes, decided_bytes, filled, fitting


class Verifications:
    """Reads items, has them decided on, and returns the results that fit; only those are noted and counted."""

    def __init__(
        self, verifier: Verifier, fast_path: FastPath, metrics: Metrics, instant: Callable[[], Instant]
    ) -> None:
        self._verifier = verifier
        self._instant = instant
        self._fast_path = fast_path
        self._verdicts = metrics.verdicts

    def at_once(self, raws: Sequence[bytes]) -> list[bytes] | None:
        """Return a result for each of a few items if all that it takes is cached, else None; never waits."""
        return self._fast_path.results(raws, caller(), self._instant()) if 1 <= len(raws) <= AT_ONCE_MAX else None

    async def one(self, raw: bytes) -> bytes:
        """Return the response to a request; raises what is wrong with it, and what ``Verifier.verify`` raises."""
        item = read_item(raw)
        if isinstance(item, LatchkeyError):
            raise item
        verdict = await self._verifier.verify(caller(), item)
        self._verifier.note(caller(), [item], [verdict])
        self._verdicts.count(verdict.code.name).value += 1
        return answer_bytes(verdict, decided_bytes(verdict.decided_time), omit_metadata=item.question.omit_metadata)

    async def many(self, raws: Sequence[bytes]) -> list[bytes]:
        """Return a result for each item, in order; an item fails alone. Raises InvalidField for their number."""
        require_count(len(raws))
        results: list[bytes] = []
        notes: list[Callable[[], None]] = []
        room = ANSWER_MAX
        for begin in range(0, len(raws), AT_ONCE_MAX):
            portion = raws[begin : begin + AT_ONCE_MAX]
            # What does not fit has to be told too.
            rest = len(raws) - begin - len(portion)
            found, note = await self._portion(portion, room - rest * FULL_BYTES)
            results += found
            notes.append(note)
            if len(found) < len(portion):
                break
            room -= sum(map(len, found)) + len(found) * TAG_BYTES
        # All at once: who gives up before has been given nothing, and asks again.
        for note in notes:
            note()
        return filled(results, len(raws))

    async def _portion(self, raws: Sequence[bytes], room: int) -> tuple[list[bytes], Callable[[], None]]:
        """Return a result for each of some items, in order, as many as fit into so many bytes, and what notes them."""
        await turn()
        known = self._fast_path.find_all(raws, caller(), self._instant(), room)
        if known is not None:
            return [result for _, _, result in known], partial(self._fast_path.note_all, known)
        items = await in_slices(read_item, raws)
        answers = await self._verifier.verify_all(caller(), items)
        results = await fitting(items, answers, room)
        return results, partial(self._note, items[: len(results)], answers[: len(results)])

    def _note(self, items: Sequence[VerifyItem], answers: Sequence[VerifyAnswer]) -> None:
        self._verifier.note(caller(), items, answers)
        for answer in answers:
            if not isinstance(answer, LatchkeyError):
                self._verdicts.count(answer.code.name).value += 1


class VerifyServicer:
    """Answers VerifyService. Not the generated servicer: three of its methods take and return bytes."""

    def __init__(
        self,
        verifications: Verifications,
        reports: ClientReports,
        watchers: Watchers,
        followed: Feed,
        instant: Callable[[], Instant],
        room: FrameRoom,
        stream_seconds: float,
    ) -> None:
        """``stream_seconds`` is how long a stream lasts before the server ends it."""
        self._room = room
        self._stream_seconds = stream_seconds
        self._verifications = verifications
        self._reports = reports
        self._watchers = watchers
        self._followed = followed
        self._instant = instant
        self._streams: set[VerifyFrames | KeyWatch] = set()
        self._stopping = False

    def stop_streams(self) -> None:
        """End the streams, which would go on for as long as clients like, so that no stop has to wait for them."""
        self._stopping = True
        for stream in self._streams:
            stream.stop()

    def handlers(self) -> "Mapping[str, grpc.RpcMethodHandler[Any, Any]]":
        """Return a handler for each method."""
        return {
            "Verify": grpc.unary_unary_rpc_method_handler(self.verify),
            "BatchVerify": grpc.unary_unary_rpc_method_handler(self.batch_verify),
            "VerifyStream": grpc.stream_stream_rpc_method_handler(self.verify_stream),
            "WatchKeys": grpc.stream_stream_rpc_method_handler(
                self.watch_keys, pb.WatchKeysRequest.FromString, pb.WatchKeysResponse.SerializeToString
            ),
            "ReleaseReservation": grpc.unary_unary_rpc_method_handler(
                self.release_reservation,
                pb.ReleaseReservationRequest.FromString,
                pb.ReleaseReservationResponse.SerializeToString,
            ),
            "ReportVerifications": grpc.unary_unary_rpc_method_handler(
                self.report_verifications,
                pb.ReportVerificationsRequest.FromString,
                pb.ReportVerificationsResponse.SerializeToString,
            ),
        }

    async def verify(self, request: bytes, _context: Context) -> bytes:
        return await self._verifications.one(request)

    async def batch_verify(self, request: bytes, _context: Context) -> bytes:
        items = read_batch(request).items
        async with self._room.held(caller().management_key_id, room_for(items)):
            return write_batch(await self._verifications.many(items))

    async def verify_stream(self, _requests: AsyncIterator[bytes], context: Context) -> None:
        frames = VerifyFrames(
            context,
            self._verifications.at_once,
            self._verifications.many,
            self._room,
            self._instant,
            self._stream_seconds,
        )
        with self._open(frames):
            await frames.answer_all()

    async def watch_keys(self, _requests: AsyncIterator[pb.WatchKeysRequest], context: Context) -> None:
        watch = KeyWatch(context, self._followed, self._instant, self._stream_seconds)
        with self._open(watch):
            await watch.serve(self._watchers)

    async def release_reservation(
        self, _request: pb.ReleaseReservationRequest, _context: Context
    ) -> pb.ReleaseReservationResponse:
        raise errors.NotImplementedYet("ReleaseReservation")

    async def report_verifications(self, request: RawReport, _context: Context) -> pb.ReportVerificationsResponse:
        return pb.ReportVerificationsResponse(duplicate=await self._reports.take(caller(), await read_report(request)))

    @contextmanager
    def _open(self, stream: VerifyFrames | KeyWatch) -> Iterator[None]:
        if self._stopping:
            raise errors.ServerStopping
        self._streams.add(stream)
        try:
            yield
        finally:
            self._streams.discard(stream)
