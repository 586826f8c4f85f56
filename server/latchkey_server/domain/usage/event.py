"""Usage events: what is accepted, and which ones are the same (spec §5).

Money is int64 nano-dollars; there are no floats anywhere.
"""

import enum
import json
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from latchkey.rules import NANOS
from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.model import Json
from latchkey_server.domain.sha256 import sha256
from latchkey_server.domain.validation import (
    MEMBER_MAX,
    UNITS_MAX,
    Violations,
    check_metadata,
    check_range,
    check_text,
    check_token,
)

_json = json.encoder.encode_basestring_ascii
COST_MAX = 1_000_000 * NANOS
# An answer's sums are int64, which hold over nine thousand million maximal events, half that for total_tokens.
COUNT_MAX = UNITS_MAX
EVENTS_MAX = 1_000
"""Events of one call."""

EVENT_ID_MAX = 128
TEXT_MAX = 128
METADATA_MAX = 512


class UsageType(enum.IntEnum):
    """What the numbers of an event mean; the numbers are the proto's and the database's."""

    CONSUME = 1
    REFUND = 2
    ADJUSTMENT = 3
    BLOCKED = 4
    ERROR = 5


class Outcome(enum.IntEnum):
    """What became of an event; the numbers are the proto's."""

    NEW = 1
    DUPLICATE = 2
    CONFLICT = 3
    REJECTED = 4


class UsageEvent(NamedTuple):
    """An event as it was sent, before defaults; ``cost`` in nano-dollars, times to the microsecond."""

    source: str
    event_id: str
    key_id: UUID
    type: UsageType
    occurred_time: datetime
    member: str | None = None
    model: str = ""
    task: str = ""
    requests: int | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: int = 0
    operation_id: str = ""
    metadata: Json | None = None


class StoredEvent(NamedTuple):
    """An event with its identity, its content and its defaults."""

    event: UsageEvent
    id_hash: bytes
    content_hash: bytes
    member: str
    requests: int


class ItemResult(NamedTuple):
    """What became of one event; ``error`` says why it is REJECTED or CONFLICT."""

    outcome: Outcome
    error: LatchkeyError | None = None


def check_event(event: UsageEvent) -> None:
    """Raise InvalidField for an event that can't be accepted whatever the time and the key."""
    found = Violations("event")
    check_token(found, "source", event.source, required=True)
    if not (event.event_id.isascii() and event.event_id.isprintable()) or " " in event.event_id:
        found.add("event_id", "must be printable ASCII characters")
    if not 1 <= len(event.event_id) <= EVENT_ID_MAX:
        found.add("event_id", f"must be 1 to {EVENT_ID_MAX} characters")
    check_text(found, "member", event.member or "", MEMBER_MAX)
    check_text(found, "model", event.model, TEXT_MAX)
    check_text(found, "task", event.task, TEXT_MAX)
    check_token(found, "operation_id", event.operation_id)
    if event.metadata is not None:
        check_metadata(found, "metadata", event.metadata, METADATA_MAX)
    _check_numbers(found, event)
    found.check()


def _check_numbers(found: Violations, event: UsageEvent) -> None:
    check_range(found, "requests", event.requests or 0, 0, COUNT_MAX)
    check_range(found, "input_tokens", event.input_tokens, 0, COUNT_MAX)
    check_range(found, "output_tokens", event.output_tokens, 0, COUNT_MAX)
    check_range(found, "cached_tokens", event.cached_tokens, 0, COUNT_MAX)
    if event.cached_tokens > event.input_tokens:
        found.add("cached_tokens", "must be at most input_tokens")
    if not -COST_MAX <= event.cost <= COST_MAX:
        found.add("cost", "must be at most 1,000,000 USD either way")
    match event.type:
        case UsageType.CONSUME if event.cost < 0:
            found.add("cost", "must not be negative for CONSUME; send a REFUND")
        case UsageType.REFUND if event.cost > 0:
            found.add("cost", "must not be positive for REFUND")
        case UsageType.BLOCKED | UsageType.ERROR if event.cost:
            found.add("cost", f"must be 0 for {event.type.name}")
        case _:
            pass
    counts = (event.requests or 0, event.input_tokens, event.output_tokens, event.cached_tokens)
    if event.type is not UsageType.CONSUME and any(counts):
        found.add("requests", f"and all tokens must be 0 for {event.type.name}")


def check_time(event: UsageEvent, earliest: datetime, latest: datetime) -> None:
    """Raise OccurredTimeOutOfRange unless the event happened within [earliest, latest]."""
    if not earliest <= event.occurred_time <= latest:
        raise errors.OccurredTimeOutOfRange(
            "occurred_time is outside the accepted window.",
            earliest=earliest.isoformat(timespec="seconds").replace("+00:00", "Z"),
            latest=latest.isoformat(timespec="seconds").replace("+00:00", "Z"),
        )


def default_requests(event: UsageEvent) -> int:
    """Return the requests that an event stands for: what it says, else one for CONSUME."""
    if event.requests is not None:
        return event.requests
    return 1 if event.type is UsageType.CONSUME else 0


def id_hash(source: str, event_id: str) -> bytes:
    """Return the 16 bytes that stand for an event's identity in its workspace."""
    return sha256(f"{source}\n{event_id}".encode()).digest()[:16]


def content_hash(event: UsageEvent) -> bytes:
    """Return 16 bytes over the fixed list of fields that make two events the same, as sent, before defaults."""
    member, requests, metadata = event.member, event.requests, event.metadata
    # The compact JSON of a list of these, built by hand: it is made for every event, and must never change.
    occurred = event.occurred_time
    utc = occurred if occurred.tzinfo is UTC else occurred.astimezone(UTC)
    text = (
        f'["{event.key_id}",{int(event.type)},{"null" if member is None else _json(member)},{_json(event.model)},'
        f"{_json(event.task)},{'null' if requests is None else requests},{event.input_tokens},{event.output_tokens},"
        f'{event.cached_tokens},{event.cost},"{utc.isoformat(timespec="microseconds")}",'
        f"{_json(event.operation_id)},{'null' if metadata is None else _canonical(metadata)}]"
    )
    return sha256(text.encode()).digest()[:16]


def _canonical(metadata: Json) -> str:
    return json.dumps(metadata, separators=(",", ":"), sort_keys=True)
