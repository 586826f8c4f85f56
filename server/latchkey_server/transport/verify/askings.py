"""Who asks what on the fast path: ready answers are found by it."""

from typing import Final

from latchkey_server.domain.model import Caller
from latchkey_server.transport.verify.reader import REST_MAX

ANSWER_BYTES: Final = 600
"""About what a ready answer takes beside its record: most of it is the number that counts its verifications."""

FIRST_ANSWER_BYTES: Final = 410
"""What the first ready answer about a record takes, for it stands in no table."""

_SMALL_MAX, _REST_BYTES = 64, 8
"""Bytes of a question that ANSWER_BYTES holds, and about what each further one takes where nobody shares it."""


class Asking:
    """A question by a caller, known by the bytes behind the secret; the same object while it goes on being asked."""

    __slots__ = ("answer_bytes", "caller", "key", "rest")

    def __init__(self, caller: Caller, rest: bytes) -> None:
        self.caller = caller
        self.rest = rest
        self.key = (id(caller), rest)
        """Equal for all askings of one question by one caller: whoever refers to one keeps the caller's id in use."""
        self.answer_bytes = ANSWER_BYTES + _REST_BYTES * max(0, len(rest) - _SMALL_MAX)
        """About what a ready answer to it takes."""


class Askings:
    """The latest askings of all callers, bounded in number and in bytes; at a bound all are forgotten.

    That costs little: ready answers are stored with records, and found again by an equal asking.
    """

    def __init__(self, most: int = 8_192, bytes_most: int = 1024 * 1024) -> None:
        self._most = most
        self._bytes_most = bytes_most
        self._number = 0
        self._bytes = 0
        self._callers: dict[int, tuple[Caller, dict[bytes, Asking]]] = {}

    def of(self, caller: Caller) -> dict[bytes, Asking]:
        """Return the caller's askings, by the bytes behind a secret."""
        known = self._callers.get(id(caller))
        if known is None:
            self._make_room(0)
            # A reference to the caller, so that no other object gets its id.
            known = self._callers[id(caller)] = (caller, {})
        return known[1]

    def begin(self, caller: Caller, rest: bytes) -> Asking | None:
        """Return the caller's first asking of the bytes behind a secret, or None if they are too many."""
        if len(rest) > REST_MAX:
            return None
        self._make_room(len(rest))
        asking = self.of(caller)[rest] = Asking(caller, rest)
        return asking

    def _make_room(self, size: int) -> None:
        if self._number >= self._most or self._bytes + size > self._bytes_most:
            self._callers.clear()
            self._number = self._bytes = 0
        self._number += 1
        self._bytes += size
