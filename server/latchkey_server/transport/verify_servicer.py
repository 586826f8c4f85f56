"""VerifyService on the wire: convert, call the domain, convert."""

from collections.abc import AsyncIterator, Iterable

from latchkey.v1 import verification_pb2, verify_service_pb2_grpc
from latchkey.v1 import verify_service_pb2 as pb
from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.verifier import Verifier
from latchkey_server.observability import Metrics
from latchkey_server.transport.call import caller
from latchkey_server.transport.convert_verify import read_items, read_question, result, verification
from latchkey_server.transport.interceptors import Context
from latchkey_server.transport.status import status_of

ANSWER_MAX = 3_670_016
"""Bytes at which a batch's answer stops (3.5 MiB): clients receive 4 MiB by default."""

_TAG_BYTES = 6
_FULL = verification_pb2.VerifyResult(error=status_of(errors.AnswerTooLarge()))
_FULL_BYTES = _FULL.ByteSize() + _TAG_BYTES


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
        for answer in answers:
            if not isinstance(answer, LatchkeyError):
                self._metrics.verified(answer.code.name)
        results = (result(item, answer) for item, answer in zip(items, answers, strict=True))
        return pb.BatchVerifyResponse(results=_fitting(results, len(items)))

    def VerifyStream(
        self, request: AsyncIterator[pb.VerifyStreamRequest], context: Context
    ) -> AsyncIterator[pb.VerifyStreamResponse]:
        raise errors.NotImplementedYet("VerifyStream")

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


def _fitting(results: Iterable[verification_pb2.VerifyResult], count: int) -> list[verification_pb2.VerifyResult]:
    """Return the results as long as the answer has room for them and for saying of all others that it has not."""
    fitting: list[verification_pb2.VerifyResult] = []
    size = 0
    for result_ in results:
        size += result_.ByteSize() + _TAG_BYTES
        if size + (count - len(fitting) - 1) * _FULL_BYTES > ANSWER_MAX:
            break
        fitting.append(result_)
    return fitting + [_FULL] * (count - len(fitting))
