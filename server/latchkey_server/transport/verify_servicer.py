"""VerifyService on the wire: read, call the domain, write. Verifications come and go as bytes."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc

from latchkey.v1 import verify_service_pb2 as pb
from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.verifier import Answer, Item, Verifier, require_count
from latchkey_server.observability import Metrics
from latchkey_server.transport.call import caller
from latchkey_server.transport.interceptors import Context
from latchkey_server.transport.raw_frames import read_batch, write_batch
from latchkey_server.transport.read_verify import read_item
from latchkey_server.transport.verify_stream import VerifyFrames
from latchkey_server.transport.write_verify import answer_bytes, decided_bytes, filled, fitting


class Verifications:
    """Reads items, has them decided on, and gives the results that fit; used and counted is what was given."""

    def __init__(self, verifier: Verifier, metrics: Metrics) -> None:
        self._verifier = verifier
        self._metrics = metrics

    async def one(self, raw: bytes) -> bytes:
        """Return the response to a request; raises what is wrong with it, or with the moment."""
        item = read_item(raw)
        if isinstance(item, LatchkeyError):
            raise item
        verdict = self._verifier.at_once(caller(), item, self._verifier.clock())
        if verdict is None:
            verdict = await self._verifier.verify(caller(), item)
        if isinstance(verdict, LatchkeyError):
            raise verdict
        self._verifier.touch(item.question, verdict)
        self._metrics.verified(verdict.code, 1)
        return answer_bytes(verdict, decided_bytes(verdict.decided_time), omit_metadata=item.question.omit_metadata)

    async def many(self, raws: Sequence[bytes]) -> list[bytes]:
        """Return a result for each item, in order; an item fails alone. Raises InvalidField for their number."""
        require_count(len(raws))
        items = [read_item(raw) for raw in raws]
        answers = await self._verifier.verify_all(caller(), items)
        results = fitting(items, answers)
        self._note(items[: len(results)], answers[: len(results)])
        return filled(results, len(items))

    def _note(self, items: Sequence[Item], answers: Sequence[Answer]) -> None:
        self._verifier.used(items, answers)
        counts = Counter(answer.code for answer in answers if not isinstance(answer, LatchkeyError))
        for code, count in counts.items():
            self._metrics.verified(code, count)


class VerifyServicer:
    """Answers VerifyService. Not the generated servicer: three of its methods take and give bytes."""

    def __init__(self, verifier: Verifier, metrics: Metrics) -> None:
        self._verifications = Verifications(verifier, metrics)

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
        return write_batch(await self._verifications.many(read_batch(request).items))

    def verify_stream(self, requests: AsyncIterator[bytes], _context: Context) -> AsyncIterator[bytes]:
        return VerifyFrames(self._verifications.many).answers(requests)

    def watch_keys(
        self, requests: AsyncIterator[pb.WatchKeysRequest], _context: Context
    ) -> AsyncIterator[pb.WatchKeysResponse]:
        raise errors.NotImplementedYet("WatchKeys")

    async def release_reservation(
        self, _request: pb.ReleaseReservationRequest, _context: Context
    ) -> pb.ReleaseReservationResponse:
        raise errors.NotImplementedYet("ReleaseReservation")

    async def report_verifications(
        self, _request: pb.ReportVerificationsRequest, _context: Context
    ) -> pb.ReportVerificationsResponse:
        raise errors.NotImplementedYet("ReportVerifications")
