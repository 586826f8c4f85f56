"""Identifiers: UUIDv7 inside, TypeID text outside: ``<prefix>_`` and 26 characters of base32 (TypeID spec 0.3)."""

import secrets
import time
from uuid import UUID

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUE = {character: value for value, character in enumerate(_ALPHABET)}
_LENGTH = 26

WORKSPACE, API, KEY, IDENTITY = "ws", "api", "key", "idn"
MANAGEMENT_KEY, SECRET, AUDIT_EVENT = "mk", "sec", "aud"


def new_id() -> UUID:
    """Return a fresh UUIDv7 (RFC 9562): ordered by creation to the millisecond, 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | secrets.randbits(80)
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    return UUID(int=(value & ~(0x3 << 62)) | (0x2 << 62))


def format_id(prefix: str, identifier: UUID) -> str:
    """Return the text of an identifier, such as ``key_01jd3q4v9ef0sr1b2m5x8wz6ty``."""
    value = identifier.int
    letters = []
    for _ in range(_LENGTH):
        letters.append(_ALPHABET[value & 31])
        value >>= 5
    return f"{prefix}_{''.join(reversed(letters))}"


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
