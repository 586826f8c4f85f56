"""What becomes of reported events: NEW, DUPLICATE, CONFLICT or REJECTED, each by itself (spec §5)."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from latchkey_server.domain import errors, ids
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.model import Caller
from latchkey_server.domain.usage.event import (
    ItemResult,
    Outcome,
    StoredEvent,
    UsageEvent,
    check_event,
    check_time,
    content_hash,
    default_requests,
    id_hash,
)
from latchkey_server.domain.usage.rollups import KeyFacts

ReportedItem = UsageEvent | LatchkeyError
"""An event, or what was wrong with it before it became one."""


class Window(NamedTuple):
    """When an event may have happened to be accepted."""

    earliest: datetime
    latest: datetime


class Candidate(NamedTuple):
    """An event that is valid by itself, with the hashes of its identity and its content."""

    event: UsageEvent
    id_hash: bytes
    content_hash: bytes


Checked = Candidate | LatchkeyError


class Prepared(NamedTuple):
    """An item after all checks that need no recorded identity.

    ``stored`` is what would be recorded, ``error`` why nothing may be; ``candidate`` is None for an invalid event.
    """

    candidate: Candidate | None
    stored: StoredEvent | None
    error: LatchkeyError | None


_NEW, _DUPLICATE = ItemResult(Outcome.NEW), ItemResult(Outcome.DUPLICATE)


def checked(item: ReportedItem) -> Checked:
    """Return an event as a candidate, or what is wrong with it whatever the time and the key."""
    if isinstance(item, LatchkeyError):
        return item
    try:
        check_event(item)
    except LatchkeyError as error:
        return error
    return Candidate(item, id_hash(item.source, item.event_id), content_hash(item))


def sort_out(caller: Caller, keys: Mapping[UUID, KeyFacts], window: Window, item: Checked) -> Prepared:
    """Return an item with what would be recorded of it, or why nothing may be."""
    return Prepared(None, None, item) if isinstance(item, LatchkeyError) else _prepared(caller, item, keys, window)


def first_of_each(sorted_out: Sequence[Sequence[Prepared]]) -> dict[bytes, StoredEvent]:
    """Return the first event of each identity that may be recorded."""
    fresh: dict[bytes, StoredEvent] = {}
    for items in sorted_out:
        for item in items:
            if item.stored is not None:
                fresh.setdefault(item.stored.id_hash, item.stored)
    return fresh


def refused(sorted_out: Sequence[Sequence[Prepared]]) -> set[bytes]:
    """Return the identities of the events that may not be recorded."""
    return {
        item.candidate.id_hash
        for items in sorted_out
        for item in items
        if item.candidate is not None and item.error is not None
    }


def outcomes(sorted_out: Sequence[Sequence[Prepared]], recorded: Mapping[bytes, bytes]) -> list[list[ItemResult]]:
    """Return what becomes of each item; ``recorded`` is id hash → content hash of what was recorded before."""
    known = dict(recorded)
    return [[_outcome(item, known) for item in items] for items in sorted_out]


def _prepared(caller: Caller, item: Candidate, keys: Mapping[UUID, KeyFacts], window: Window) -> Prepared:
    event = item.event
    try:
        check_time(event, window.earliest, window.latest)
        key = keys.get(event.key_id)
        if key is None or not caller.covers_api(key.api_id):
            raise errors.KeyNotFound(ids.format_id(ids.KEY, event.key_id))
    except LatchkeyError as error:
        return Prepared(item, None, error)
    member = key.member if event.member is None else event.member
    return Prepared(item, StoredEvent(event, item.id_hash, item.content_hash, member, default_requests(event)), None)


def _outcome(item: Prepared, known: dict[bytes, bytes]) -> ItemResult:
    """Return what becomes of the next item and remember what it records."""
    if item.candidate is not None:
        recorded = known.get(item.candidate.id_hash)
        if recorded is not None:
            same = recorded == item.candidate.content_hash
            return _DUPLICATE if same else ItemResult(Outcome.CONFLICT, errors.UsageConflict())
        if item.error is None:
            known[item.candidate.id_hash] = item.candidate.content_hash
            return _NEW
    return ItemResult(Outcome.REJECTED, item.error)
