"""Field rules that several nouns share; violations are collected, so that a caller sees all of them at once."""

import json
import math
import re
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import TypeVar

from latchkey.rules import WILDCARD, has_control_characters, normalize_environment
from latchkey_server.domain import errors
from latchkey_server.domain.errors import Violation
from latchkey_server.domain.model import Json, RateLimit, etag_of

T = TypeVar("T")

VIOLATIONS_MAX = 20
"""Violations reported at once: an answer's trailer has to stay below the 8 KiB that clients accept."""

NAME_MAX = 128
MEMBER_MAX = 128
EXTERNAL_ID_MAX = 255
NOTE_MAX = 1_000
METADATA_MAX = 4_096
METADATA_LEVELS = 16
RATELIMITS_MAX = 20
SCOPE_MAX = 128
UNITS_MAX = 1_000_000_000
GRACE_MAX = timedelta(days=365)
PREFIX = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,30}[A-Za-z0-9])?")
TOKEN = re.compile(r"[!-~]{1,64}")
_SCOPE_SEGMENT = re.compile(r"[A-Za-z0-9_:/@+~-]+")
_RATELIMIT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_WINDOW_MIN, _WINDOW_MAX = timedelta(seconds=1), timedelta(days=31)


class Violations:
    """The violations found so far, under a path such as ``key``."""

    def __init__(self, path: str = "") -> None:
        self._path = f"{path}." if path else ""
        self.found: list[Violation] = []

    def add(self, field: str, problem: str) -> None:
        """Note that ``field`` breaks its rule; beyond VIOLATIONS_MAX none is added."""
        if len(self.found) < VIOLATIONS_MAX:
            self.found.append(Violation(self._path + field, problem))

    def attempt(self, field: str, convert: Callable[[], T], fallback: T) -> T:
        """Return what ``convert`` gives, or note its ValueError and return the fallback."""
        try:
            return convert()
        except ValueError as error:
            self.add(field, str(error))
            return fallback

    def check(self) -> None:
        """Raise InvalidField if anything was found."""
        if self.found:
            raise errors.InvalidField(self.found)


def check_etag(etag: str, revision: int) -> None:
    """Raise EtagMismatch unless ``etag`` is that of the revision; an empty one matches every revision."""
    if etag and etag != etag_of(revision):
        raise errors.EtagMismatch


def check_grace(grace: timedelta) -> None:
    """Raise InvalidField unless a rotation may leave older secrets valid for so long."""
    if not timedelta(0) <= grace <= GRACE_MAX:
        raise errors.InvalidField.one("grace", f"must be 0 to {GRACE_MAX.days} days")


def check_text(found: Violations, field: str, text: str, most: int) -> str:
    """Return ``text`` after noting control characters and lengths beyond ``most`` code points."""
    if len(text) > most:
        found.add(field, f"must be at most {most} code points")
    elif has_control_characters(text):
        found.add(field, "must not contain control characters")
    return text


def check_storable(found: Violations, field: str, text: str) -> str:
    """Return a text to compare with stored ones, after noting U+0000, which no stored text can hold."""
    if "\0" in text:
        found.add(field, "must not contain U+0000")
    return text


def check_note(found: Violations, field: str, text: str) -> str:
    """Return a note, which may hold line breaks and tabs, after noting what else is wrong with it."""
    check_text(found, field, text[: NOTE_MAX + 1].translate({9: " ", 10: " ", 13: " "}), NOTE_MAX)
    return text


def check_token(found: Violations, field: str, text: str, *, required: bool = False) -> str:
    """Return an opaque id of the caller's (1 to 64 printable ASCII characters) after noting what is wrong."""
    if (text or required) and not TOKEN.fullmatch(text):
        found.add(field, "must be 1 to 64 printable ASCII characters")
    return text


def check_environment(found: Violations, field: str, text: str) -> str:
    """Return the normalised label after noting control characters."""
    return found.attempt(field, lambda: normalize_environment(text), "")


def check_count(found: Violations, field: str, values: Collection[object], most: int) -> None:
    """Note lists that are longer than ``most``."""
    if len(values) > most:
        found.add(field, f"must have at most {most} entries")


def counted(found: Violations, field: str, values: Sequence[T], most: int) -> Sequence[T]:
    """Return a list, or nothing after noting that it is longer than ``most``: a list is counted before it is read."""
    check_count(found, field, values, most)
    return values if len(values) <= most else ()


def require_number(field: str, count: int, most: int) -> None:
    """Raise InvalidField unless a list has 1 to ``most`` entries."""
    if not 1 <= count <= most:
        raise errors.InvalidField.one(field, f"must have 1 to {most} entries")


def check_range(found: Violations, field: str, value: int, least: int, most: int) -> int:
    """Return ``value`` after noting that it lies outside [least, most]."""
    if not least <= value <= most:
        found.add(field, f"must be {least:,} to {most:,}")
    return value


def check_prefix(found: Violations, field: str, prefix: str) -> str:
    """Return a secret prefix after noting a wrong one."""
    if not PREFIX.fullmatch(prefix):
        found.add(field, "must be 1 to 32 of [A-Za-z0-9_-], alphanumeric at both ends")
    return prefix


def scope_problem(scope: str, *, wildcards: bool) -> str | None:
    """Return what is wrong with a scope, or None; ``*`` segments are for granted scopes only."""
    if len(scope) > SCOPE_MAX:
        return f"must be at most {SCOPE_MAX} characters"
    for segment in scope.split("."):
        if segment == WILDCARD:
            if not wildcards:
                return "must be a concrete scope without *"
        elif not _SCOPE_SEGMENT.fullmatch(segment):
            return "must be segments of [A-Za-z0-9_:/@+~-] joined by dots"
    return None


def compact_json(value: Json) -> str:
    """Return the compact JSON text by which sizes are measured and contents compared."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def metadata_problem(most: int) -> str:
    """Return what is wrong with metadata of more than so many bytes."""
    return f"must be at most {most} bytes as compact JSON"


def check_metadata(found: Violations, field: str, metadata: Json, most: int = METADATA_MAX) -> Json:
    """Return metadata after noting what can't be stored: too deep, too large, not finite, U+0000."""
    if not _at_most_deep(metadata, METADATA_LEVELS):
        found.add(field, f"must be at most {METADATA_LEVELS} levels deep")
    elif not _storable(metadata):
        found.add(field, "must hold finite numbers and no U+0000")
    elif len(compact_json(metadata).encode()) > most:
        found.add(field, metadata_problem(most))
    return metadata


def _at_most_deep(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_at_most_deep(item, levels - 1) for item in inner)


def _storable(value: object) -> bool:
    if isinstance(value, dict):
        return all("\0" not in key and _storable(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_storable, value))
    if isinstance(value, str):
        return "\0" not in value
    return not isinstance(value, float) or math.isfinite(value)


def check_ratelimits(found: Violations, field: str, limits: Sequence[RateLimit]) -> tuple[RateLimit, ...]:
    """Return rate limits after noting wrong names, numbers and windows, each by its index."""
    check_count(found, field, limits, RATELIMITS_MAX)
    names: set[str] = set()
    for index, limit in enumerate(limits[:RATELIMITS_MAX]):
        path = f"{field}[{index}]"
        if not _RATELIMIT_NAME.fullmatch(limit.name):
            found.add(f"{path}.name", "must be 1 to 64 of [A-Za-z0-9_.-]")
        if limit.name in names:
            found.add(f"{path}.name", "must be unique in the list")
        names.add(limit.name)
        check_range(found, f"{path}.limit", limit.limit, 1, UNITS_MAX)
        if not _WINDOW_MIN <= limit.window <= _WINDOW_MAX or limit.window.microseconds:
            found.add(f"{path}.window", "must be whole seconds, 1 s to 31 days")
    return tuple(limits)
