"""Lists in answers: as many items as a client can receive, the rest on the next page."""

from collections.abc import Iterable
from typing import Final, TypeVar

from google.protobuf.message import Message

ANSWER_MAX: Final = 3_670_016
"""Bytes at which an answer stops (3.5 MiB): clients receive 4 MiB by default."""

M = TypeVar("M", bound=Message)

# A repeated field's tag and the longest length that fits.
_TAG_BYTES = 5


def fitting(messages: Iterable[M]) -> list[M]:
    """Return the first messages that fit into one answer, at least one; iterates no further than that takes."""
    shown: list[M] = []
    size = 0
    for message in messages:
        size += message.ByteSize() + _TAG_BYTES
        if shown and size > ANSWER_MAX:
            break
        shown.append(message)
    return shown
