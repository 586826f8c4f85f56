"""Lists in answers: as many items as a client can receive, the rest on the next page."""

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from google.protobuf.message import Message

from latchkey_server.domain.turns import turn

ANSWER_MAX: Final = 3_670_016
"""Bytes at which an answer stops (3.5 MiB): clients receive 4 MiB by default."""

M = TypeVar("M", bound=Message)
T = TypeVar("T")

# A repeated field's tag and the longest length that fits.
_TAG_BYTES = 5


async def fitting(convert: Callable[[T], M], items: Iterable[T]) -> list[M]:
    """Return what ``convert`` makes of the first items, as many as fit into one answer, at least one.

    Others have their turn meanwhile.
    """
    shown: list[M] = []
    size = 0
    for item in items:
        await turn()
        message = convert(item)
        size += message.ByteSize() + _TAG_BYTES
        if shown and size > ANSWER_MAX:
            break
        shown.append(message)
    return shown
