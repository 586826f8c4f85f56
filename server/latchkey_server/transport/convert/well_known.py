"""Well-known messages and the domain's values: times, durations, money, JSON, ids; what is malformed is noted."""

import enum
from collections.abc import Sequence
from datetime import MAXYEAR, MINYEAR, UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from latchkey.money import USD, nanos_of
from latchkey.rules import NANOS
from latchkey.v1 import revision_pb2
from latchkey_server.domain import errors, ids
from latchkey_server.domain.model import Json, Revision
from latchkey_server.domain.validation import METADATA_MAX, Violations, counted, metadata_problem

E = TypeVar("E", bound=enum.IntEnum)

_STRUCT_BYTES = 6
"""Bytes of a message for each byte of the JSON that it stands for, at most."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECOND = timedelta(seconds=1)


class HasPresence(Protocol):
    """A message of which a field's presence can be asked."""

    def HasField(self, field_name: Any) -> bool: ...


def timestamp(instant: datetime) -> Timestamp:
    """Return an instant as a Timestamp."""
    message = Timestamp()
    timestamp_into(message, instant)
    return message


def timestamp_into(message: Timestamp, instant: datetime) -> None:
    """Set a message to an instant."""
    since = instant - _EPOCH
    message.seconds = since.days * 86_400 + since.seconds
    message.nanos = since.microseconds * 1_000


def optional_timestamp(instant: datetime | None) -> Timestamp | None:
    """Return an instant as a Timestamp, or None."""
    return None if instant is None else timestamp(instant)


def duration(length: timedelta) -> Duration:
    """Return a length of time as a Duration."""
    seconds, rest = divmod(length, _SECOND)
    return Duration(seconds=seconds, nanos=rest // _MICROSECOND * 1_000)


def struct(value: Json) -> Struct:
    """Return JSON as a Struct."""
    message = Struct()
    message.update(value)
    return message


def revision(value: Revision) -> revision_pb2.Revision:
    """Return a revision as a message."""
    return revision_pb2.Revision(workspace_id=ids.format_id(ids.WORKSPACE, value.workspace_id), number=value.number)


def read_time(found: Violations, field: str, message: HasPresence, name: str) -> datetime | None:
    """Return the instant in field ``name`` of a message, truncated to microseconds; None when absent or noted."""
    if not message.HasField(name):
        return None
    value: Timestamp = getattr(message, name)
    try:
        if not 0 <= value.nanos < NANOS:
            raise ValueError
        instant = _EPOCH + timedelta(0, value.seconds, value.nanos // 1_000)
        # Without the calendar's first and last year, so that arithmetic with an instant never leaves it.
        if not MINYEAR < instant.year < MAXYEAR:
            raise ValueError
        return instant
    except (ValueError, OverflowError):
        found.add(field, f"must be a time from year {MINYEAR + 1} to {MAXYEAR - 1}")
        return None


def required_time(found: Violations, field: str, message: HasPresence, name: str) -> datetime:
    """Return the instant in a required field; when it is absent that is noted and the epoch returned."""
    instant = read_time(found, field, message, name)
    if instant is None and not message.HasField(name):
        found.add(field, "is required")
    return instant or _EPOCH


def read_duration(found: Violations, field: str, message: HasPresence, name: str) -> timedelta | None:
    """Return the length of time in field ``name`` of a message; None when absent or noted."""
    if not message.HasField(name):
        return None
    value: Duration = getattr(message, name)
    try:
        if abs(value.nanos) >= NANOS or value.seconds * value.nanos < 0:
            raise ValueError
        return timedelta(seconds=value.seconds, microseconds=value.nanos / 1_000)
    except (ValueError, OverflowError):
        found.add(field, "must be a duration with seconds and nanos of one sign")
        return None


def read_money(found: Violations, field: str, message: HasPresence, name: str) -> int | None:
    """Return the nano-dollars in field ``name`` of a message; None when absent or noted."""
    if not message.HasField(name):
        return None
    value: Money = getattr(message, name)
    if value.currency_code != USD:
        found.add(f"{field}.currency_code", "must be USD")
        return None
    if abs(value.nanos) >= NANOS or value.units * value.nanos < 0:
        found.add(field, "must have units and nanos of one sign, nanos below 1,000,000,000")
        return None
    return nanos_of(value)


def read_struct(found: Violations, field: str, value: Struct, most: int = METADATA_MAX) -> Json:
    """Return the JSON of a message; what has no JSON form, or can't be of ``most`` bytes as JSON, is noted."""
    # A digit and its comma take eleven bytes of a message, and nothing is denser: what is larger is not converted.
    if value.ByteSize() > _STRUCT_BYTES * most:
        found.add(field, metadata_problem(most))
        return {}
    try:
        read: Json = json_format.MessageToDict(value)
    except (json_format.Error, ValueError):
        found.add(field, "must hold finite numbers and complete values")
        return {}
    return read


def read_enum(found: Violations, field: str, kind: type[E], value: int, unspecified: E | None = None) -> E:
    """Return an enum value; zero means ``unspecified``, and where there is none it is required."""
    if value == 0 and unspecified is not None:
        return unspecified
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(member.name for member in kind)
        found.add(field, f"must be one of {names}" if value else f"is required: one of {names}")
        return next(iter(kind))


def read_id(found: Violations, field: str, prefix: str, text: str) -> UUID:
    """Return the id that ``text`` names; a malformed one is noted."""
    return found.attempt(field, lambda: ids.parse_id(prefix, text), UUID(int=0))


def read_ids(found: Violations, field: str, prefix: str, texts: Sequence[str], most: int) -> tuple[UUID, ...]:
    """Return the ids that ``texts`` name; malformed ones are noted, and more than ``most``."""
    asked = counted(found, field, texts, most)
    return tuple(read_id(found, f"{field}[{index}]", prefix, text) for index, text in enumerate(asked))


def required_id(field: str, prefix: str, text: str) -> UUID:
    """Return the id in a request; raises InvalidField for a missing or malformed one."""
    found = Violations()
    if not text:
        raise errors.InvalidField.one(field, "is required")
    if prefix == ids.KEY and ids.is_id(ids.MANAGEMENT_KEY, text):
        raise errors.KeyNotFound(text)
    identifier = read_id(found, field, prefix, text)
    found.check()
    return identifier


def optional_id(field: str, prefix: str, text: str) -> UUID | None:
    """Return the id in a request, None for none; raises InvalidField for a malformed one."""
    return required_id(field, prefix, text) if text else None
