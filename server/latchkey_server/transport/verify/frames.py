"""Batches and frames of verifications, whose items stay bytes.

Parsing and building a message object for every item would cost more than deciding on it.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from latchkey.v1 import verify_service_pb2
from latchkey_server.domain.verify.command import ITEMS_MAX
from latchkey_server.transport.sized import batch_reader, raw_class


class RawBatch(Protocol):
    """A BatchVerifyRequest: ``items`` are VerifyRequests."""

    items: Sequence[bytes]


class RawFrame(RawBatch, Protocol):
    """A VerifyStreamRequest; ``timeout`` is a Duration, empty when absent."""

    frame_id: int
    timeout: bytes


_batch: Final = batch_reader(verify_service_pb2.BatchVerifyRequest.DESCRIPTOR, ITEMS_MAX)
_BatchResponse: Final = raw_class(verify_service_pb2.BatchVerifyResponse.DESCRIPTOR)
_frame: Final = batch_reader(verify_service_pb2.VerifyStreamRequest.DESCRIPTOR, ITEMS_MAX)
_FrameResponse: Final = raw_class(verify_service_pb2.VerifyStreamResponse.DESCRIPTOR)


def read_batch(raw: bytes) -> RawBatch:
    """Return a BatchVerifyRequest; raises InvalidField for what is none."""
    batch: RawBatch = _batch(raw)
    return batch


def read_frame(raw: bytes) -> RawFrame:
    """Return a VerifyStreamRequest; raises InvalidField for what is none."""
    frame: RawFrame = _frame(raw)
    return frame


def write_batch(results: Sequence[bytes]) -> bytes:
    """Return a BatchVerifyResponse of VerifyResults."""
    response: bytes = _BatchResponse(results=results).SerializeToString()
    return response


def write_frame(frame_id: int, results: Sequence[bytes]) -> bytes:
    """Return a VerifyStreamResponse of VerifyResults."""
    response: bytes = _FrameResponse(frame_id=frame_id, results=results).SerializeToString()
    return response
