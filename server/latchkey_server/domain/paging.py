"""Pages: a token carries where to go on and which question it belongs to."""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import UUID

from latchkey.rules import normalize_environment
from latchkey_server.domain import errors

T = TypeVar("T")

_BINDING_BYTES = 8

DEFAULT_SIZE, MAX_SIZE = 50, 1_000


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, and the cursor behind it, None on the last page."""

    items: Sequence[T]
    next_cursor: str | None
    cursor_of: Callable[[T], str] = field(default=str, compare=False)

    def first(self, count: int) -> "Page[T]":
        """Return the page with only its first ``count`` items: the next one begins with what was left out."""
        if count >= len(self.items):
            return self
        return Page(self.items[:count], self.cursor_of(self.items[count - 1]), self.cursor_of)


def encode_token(binding: bytes, cursor: str | None) -> str:
    """Return the token that continues behind ``cursor`` for the question that ``binding`` stands for."""
    if cursor is None:
        return ""
    return base64.urlsafe_b64encode(_digest(binding, cursor) + cursor.encode()).decode().rstrip("=")


def decode_token(binding: bytes, token: str) -> str | None:
    """Return the cursor of a token, None for an empty one; raises PageTokenInvalid unless it is of this question."""
    if not token:
        return None
    try:
        raw = base64.urlsafe_b64decode((token + "=" * (-len(token) % 4)).encode("ascii"))
        cursor = raw[_BINDING_BYTES:].decode()
    except (binascii.Error, UnicodeError, ValueError):
        raise errors.PageTokenInvalid from None
    if encode_token(binding, cursor) != token:
        raise errors.PageTokenInvalid
    return cursor


def page_size(asked: int, default: int = DEFAULT_SIZE, most: int = MAX_SIZE) -> int:
    """Return how many items a page holds at most; raises InvalidField for a negative ``asked``."""
    if asked < 0:
        raise errors.InvalidField.one("page_size", "must not be negative")
    return min(asked or default, most)


def id_cursor(cursor: str | None) -> UUID | None:
    """Return the id behind which an id-ordered list goes on."""
    if cursor is None:
        return None
    try:
        return UUID(cursor)
    except ValueError:
        raise errors.PageTokenInvalid from None


def label_cursor(cursor: str | None) -> str | None:
    """Return the label behind which a list ordered by labels goes on."""
    try:
        return None if cursor is None else normalize_environment(cursor)
    except ValueError:
        raise errors.PageTokenInvalid from None


def cut(items: Sequence[T], size: int, cursor_of: Callable[[T], str]) -> Page[T]:
    """Return a page of ``size`` out of a list that was read one item longer."""
    shown = items[:size]
    return Page(shown, cursor_of(shown[-1]) if len(items) > size else None, cursor_of)


def _digest(binding: bytes, cursor: str) -> bytes:
    """Bind the cursor to its question; this detects mistakes in tokens, and protects no secret."""
    return hashlib.sha256(hashlib.sha256(binding).digest() + cursor.encode()).digest()[:_BINDING_BYTES]
