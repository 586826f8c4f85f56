"""VerifyService on the wire: convert, call the domain, convert."""

from collections.abc import AsyncIterator, Sequence

from latchkey.v1 import verify_service_pb2 as pb
from latchkey.v1 import verify_service_pb2_grpc
from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.verifier import Answer, Verifier
from latchkey_server.observability import Metrics
from latchkey_server.transport.call import caller
from latchkey_server.transport.convert_verify import fitting, read_items, read_question, verification
from latchkey_server.transport.interceptors import Context
from latchkey_server.transport.verify_stream import VerifyFrames


class VerifyServicer(verify_service_pb2_grpc.VerifyServiceServicer):
    """Answers VerifyService."""

    def __init__(self, verifier: Verifier, metrics: Metrics) -> None:
        self._verifier = verifier
        self._metrics = metrics

    async def Verify(self, request: pb.VerifyRequest, context: Context) -> pb.VerifyResponse:
        question = read_question(request)
        verdict = await self._verifier.verify(caller(), question)
        self._metrics.verified(verdict.code.name)
        return pb.VerifyResponse(verification=verification(question, verdict))

    async def BatchVerify(self, request: pb.BatchVerifyRequest, context: Context) -> pb.BatchVerifyResponse:
        items = read_items(request.items)
        answers = await self._verifier.verify_all(caller(), items)
        self._count(answers)
        return pb.BatchVerifyResponse(results=fitting(items, answers))

    def VerifyStream(
        self, request: AsyncIterator[pb.VerifyStreamRequest], context: Context
    ) -> AsyncIterator[pb.VerifyStreamResponse]:
        return VerifyFrames(self._verifier, self._count).answers(request)

    def WatchKeys(
        self, request: AsyncIterator[pb.WatchKeysRequest], context: Context
    ) -> AsyncIterator[pb.WatchKeysResponse]:
        raise errors.NotImplementedYet("WatchKeys")

    async def ReleaseReservation(
        self, request: pb.ReleaseReservationRequest, context: Context
    ) -> pb.ReleaseReservationResponse:
        raise errors.NotImplementedYet("ReleaseReservation")

    async def ReportVerifications(
        self, request: pb.ReportVerificationsRequest, context: Context
    ) -> pb.ReportVerificationsResponse:
        raise errors.NotImplementedYet("ReportVerifications")

    def _count(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if not isinstance(answer, LatchkeyError):
                self._metrics.verified(answer.code.name)
