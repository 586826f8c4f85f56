"""ReportUsage: each event becomes NEW, DUPLICATE, CONFLICT or REJECTED by itself; acknowledged means committed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from latchkey_server.domain import errors, ids
from latchkey_server.domain.access import Caller
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.ports import Clock, Store, Transaction
from latchkey_server.domain.usage import (
    ItemResult,
    Outcome,
    StoredEvent,
    UsageEvent,
    check_event,
    check_time,
    compare,
    id_hash,
    roll_up,
    stored,
)
from latchkey_server.domain.validation import require_number

EVENTS_MAX = 1_000
AHEAD = timedelta(minutes=5)

Item = UsageEvent | LatchkeyError
"""An event, or what was wrong with it before it became one."""


@dataclass(frozen=True, slots=True)
class Window:
    """When an event may have happened to be accepted."""

    earliest: datetime
    latest: datetime


class UsageRecorder:
    """Records usage events; ``accepted`` is how far back they may have happened."""

    def __init__(self, store: Store, clock: Clock, accepted: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._accepted = accepted

    async def report(self, caller: Caller, items: Sequence[Item]) -> list[ItemResult]:
        """Record the events and return a result for each, in order; raises InvalidField for their number only."""
        require_number("events", len(items), EVENTS_MAX)
        checked = [_checked(item) for item in items]

        async def work(tx: Transaction) -> list[ItemResult]:
            now = self._clock()
            window = Window(now - self._accepted, now + AHEAD)
            return await _record(tx, caller, checked, window, now)

        return await self._store.write(work)


def _checked(item: Item) -> Item:
    if isinstance(item, LatchkeyError):
        return item
    try:
        check_event(item)
    except LatchkeyError as error:
        return error
    return item


async def _record(
    tx: Transaction, caller: Caller, items: Sequence[Item], window: Window, now: datetime
) -> list[ItemResult]:
    events = [item for item in items if isinstance(item, UsageEvent)]
    hashes = sorted({id_hash(event.source, event.event_id) for event in events})
    known = dict(await tx.usage.known(caller.workspace_id, hashes))
    keys = await tx.usage.key_members(caller.workspace_id, sorted({event.key_id for event in events}))
    results, fresh = _sorted_out(caller, items, known, keys, window)
    claimed = await tx.usage.claim(caller.workspace_id, sorted(fresh.values(), key=lambda item: item.id_hash))
    if len(claimed) < len(fresh):
        raced = [hash_ for hash_ in hashes if hash_ in fresh and hash_ not in claimed]
        meanwhile = await tx.usage.known(caller.workspace_id, raced)
        _yield_to(items, results, meanwhile)
    new = [item for hash_, item in fresh.items() if hash_ in claimed]
    await tx.usage.insert(caller.workspace_id, new, now)
    await tx.usage.roll_up(caller.workspace_id, roll_up(new))
    return results


def _sorted_out(
    caller: Caller,
    items: Sequence[Item],
    known: dict[bytes, bytes],
    keys: Mapping[UUID, tuple[UUID, str]],
    window: Window,
) -> tuple[list[ItemResult], dict[bytes, StoredEvent]]:
    """Return a result for each item and the new events by id hash. Identity comes before time and key (spec §5)."""
    results: list[ItemResult] = []
    fresh: dict[bytes, StoredEvent] = {}
    for item in items:
        try:
            if isinstance(item, LatchkeyError):
                raise item
            if seen := compare(known, item):
                results.append(seen)
                continue
            check_time(item, window.earliest, window.latest)
            new = stored(item, _member(caller, item, keys))
        except LatchkeyError as error:
            results.append(ItemResult(Outcome.REJECTED, error))
            continue
        fresh[new.id_hash] = new
        known[new.id_hash] = new.content_hash
        results.append(ItemResult(Outcome.NEW))
    return results, fresh


def _member(caller: Caller, event: UsageEvent, keys: Mapping[UUID, tuple[UUID, str]]) -> str:
    key = keys.get(event.key_id)
    if key is None or not caller.covers_api(key[0]):
        raise errors.KeyNotFound(ids.format_id(ids.KEY, event.key_id))
    return key[1]


def _yield_to(items: Sequence[Item], results: list[ItemResult], meanwhile: Mapping[bytes, bytes]) -> None:
    """Replace the results of events that another call recorded between our look and our claim."""
    for index, item in enumerate(items):
        if isinstance(item, UsageEvent) and results[index].outcome is not Outcome.REJECTED:
            results[index] = compare(meanwhile, item) or results[index]
