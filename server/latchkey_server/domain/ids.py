"""Identifiers: UUIDv7 inside, TypeID text outside: ``<prefix>_`` and 26 characters of base32 (TypeID spec 0.3)."""

import secrets
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from uuid import UUID

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE = {character: value for value, character in enumerate(_ALPHABET)}
_LENGTH = 26

WORKSPACE, API, KEY, IDENTITY = "ws", "api", "key", "idn"
MANAGEMENT_KEY, SECRET, AUDIT_EVENT = "mk", "sec", "aud"


class IdMaker:
    """Makes UUIDv7s (RFC 9562, 6.2 method 1) each larger than all it made before, however its clock moves."""

    def __init__(self, nanoseconds: Callable[[], int] = time.time_ns) -> None:
        self._nanoseconds = nanoseconds
        self._last = 0
        self._lock = threading.Lock()

    def make(self) -> UUID:
        """Return a fresh id: its milliseconds, a counter of 12 bits inside them, 62 random bits."""
        milliseconds, counter = divmod(self._tick(), 1 << 12)
        return UUID(int=(milliseconds << 80) | (0x7 << 76) | (counter << 64) | (0x2 << 62) | secrets.randbits(62))

    def _tick(self) -> int:
        # A millisecond's counter begins at random in its lower half, and a full one carries into the next millisecond.
        now = (self._nanoseconds() // 1_000_000 << 12) | secrets.randbits(11)
        with self._lock:
            self._last = max(now, self._last + 1)
            return self._last


_maker = IdMaker()


def new_id() -> UUID:
    """Return a fresh UUIDv7, larger than all that this process made before: ordered by creation."""
    return _maker.make()


def format_id(prefix: str, identifier: UUID) -> str:
    """Return the text of an identifier, such as ``key_01jd3q4v9ef0sr1b2m5x8wz6ty``."""
    value = identifier.int
    letters = []
    for _ in range(_LENGTH):
        letters.append(_ALPHABET[value & 31])
        value >>= 5
    return f"{prefix}_{''.join(reversed(letters))}"


@lru_cache(maxsize=16_384)
def parse_id(prefix: str, text: str) -> UUID:
    """Return the identifier that ``text`` names; raises ValueError unless it is exactly what format_id gives."""
    head, _, tail = text.rpartition("_")
    if head != prefix or len(tail) != _LENGTH or tail[0] > "7":
        raise ValueError(f"must be {prefix}_ and {_LENGTH} characters of base32")
    value = 0
    for character in tail:
        digit = _VALUE.get(character)
        if digit is None:
            raise ValueError(f"must be {prefix}_ and {_LENGTH} characters of base32")
        value = (value << 5) | digit
    return UUID(int=value)


def is_id(prefix: str, text: str) -> bool:
    """Tell whether ``text`` is an identifier of this kind."""
    try:
        parse_id(prefix, text)
    except ValueError:
        return False
    return True
