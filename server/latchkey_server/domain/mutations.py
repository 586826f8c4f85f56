"""The one way in which anything is changed: revision, change rows, audit and request_id in one transaction.

Each command says what to do as ``work(tx, now, revision)`` and returns its Effects. The workspace's revision is locked
first, so that revisions are contiguous and in commit order; a sequence would show a gap while a slower transaction is
open.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from latchkey_server.domain import errors
from latchkey_server.domain.ids import API, IDENTITY, MANAGEMENT_KEY, WORKSPACE, format_id, new_id
from latchkey_server.domain.model import AuditEvent, Caller, Change, ChangeKind, Json, Revision
from latchkey_server.domain.snapshots import Resource, snapshot
from latchkey_server.domain.store import (
    AnsweredRequest,
    ChangeListener,
    Clock,
    MutationTransaction,
    RequestKey,
    Store,
)

T = TypeVar("T")
Tx = TypeVar("Tx", bound=MutationTransaction)
Tx_co = TypeVar("Tx_co", bound=MutationTransaction, covariant=True)

REPLAY_WINDOW = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asks for a mutation and how: for access, audit and idempotence."""

    caller: Caller
    method: str
    call_id: str
    peer: str
    request_id: str = ""
    content_hash: bytes = b""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of audit: what was done to what, and its facts before and after."""

    action: str
    target_id: str
    before: Json | None = None
    after: Json | None = None


@dataclass(frozen=True, slots=True)
class Effects:
    """What a command did. ``outcome`` is stored for replays: ids and results, never a secret."""

    changes: tuple[Change, ...] = ()
    audit: tuple[AuditEntry, ...] = ()
    outcome: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MutationResult(Generic[T]):
    """A mutation's answer."""

    value: T
    revision: Revision
    replayed: bool


def effects_of(action: str, change: Change, before: Resource | None, after: Resource | None, outcome: Json) -> Effects:
    """Return the effects of making, changing or removing one resource, audited as it was before and after."""
    target = format_id(_PREFIXES[change.kind], change.target_id)
    entry = AuditEntry(action, target, snapshot(before) if before else None, snapshot(after) if after else None)
    return Effects((change,), (entry,), outcome)


_PREFIXES = {
    ChangeKind.API_CHANGED: API,
    ChangeKind.IDENTITY_CHANGED: IDENTITY,
    ChangeKind.MANAGEMENT_KEY_CHANGED: MANAGEMENT_KEY,
}


Work = Callable[[Tx, datetime, int], Awaitable[Effects]]
"""A command: it runs in a transaction, at a time, and its first change makes the given revision."""

View = Callable[[Tx, datetime, Json], Awaitable[T]]
"""Makes a mutation's answer from a command's outcome, the first time and for a replay."""


class RequestRaced(Exception):
    """Another call answered the same request_id at the same moment: run again and find its answer."""


class Mutations(Generic[Tx_co]):
    """Runs commands by the rules above."""

    def __init__(self, store: Store[Tx_co], clock: Clock, listener: ChangeListener) -> None:
        self._store = store
        self._clock = clock
        self._listener = listener
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def run(
        self,
        origin: Origin,
        work: Work[Tx_co],
        view: View[Tx_co, T],
        *,
        workspace_id: UUID | None = None,
        while_disabled: bool = False,
    ) -> MutationResult[T]:
        """Run ``work`` on the caller's workspace (or the one given) and return what ``view`` makes of its outcome.

        Raises WorkspaceDisabled unless ``while_disabled``, RequestIdReused, and whatever the work raises.
        """
        target = workspace_id or origin.caller.workspace_id
        command = _command(origin, work, view, target, self._clock, while_disabled)
        # A workspace's mutations wait for each other anyway: here they do it without holding a connection each.
        async with self._turns.setdefault(target, asyncio.Lock()):
            while True:
                try:
                    changes, result = await self._store.write(command)
                    break
                except RequestRaced:
                    continue
        self._listener.committed(result.revision, changes)
        return result


def _command(
    origin: Origin, work: Work[Tx], view: View[Tx, T], workspace_id: UUID, clock: Clock, while_disabled: bool
) -> Callable[[Tx], Awaitable[tuple[Sequence[Change], MutationResult[T]]]]:
    """Return a mutation's work in a transaction, which gives the changes for this process to apply, and the answer."""

    async def run(tx: Tx) -> tuple[Sequence[Change], MutationResult[T]]:
        current = await tx.workspaces.lock_revision(workspace_id)
        now = clock()
        if answered := await _answered(tx, origin, now):
            replay = await _replay(tx, answered, view, now)
            return _whatever_changed(replay.revision.workspace_id), replay
        if not while_disabled:
            await _require_enabled(tx, workspace_id)
        effects = await work(tx, now, current + 1)
        revision = Revision(workspace_id, current + len(effects.changes))
        await tx.workspaces.append_changes(workspace_id, current, effects.changes, now)
        await tx.audit.append(audit_events(origin, effects.audit, workspace_id, now))
        if origin.request_id:
            await _remember(tx, origin, effects, revision, now)
        return effects.changes, MutationResult(await view(tx, now, effects.outcome), revision, replayed=False)

    return run


def _whatever_changed(workspace_id: UUID) -> tuple[Change, ...]:
    """Return changes that stand for those of a replayed command, which are no longer known.

    This process may never have applied them: the first answer may have been lost, or given by another process. What
    this process answers next must be no older than its reply.
    """
    return Change(ChangeKind.SECRET_ADDED, workspace_id), Change(ChangeKind.WORKSPACE_CHANGED, workspace_id)


def audit_events(
    origin: Origin, entries: tuple[AuditEntry, ...], workspace_id: UUID, now: datetime
) -> list[AuditEvent]:
    """Return the audit events of a command, as they are stored.

    Of a caller of another workspace only the id is recorded: its member and address concern its own workspace.
    """
    own = origin.caller.workspace_id == workspace_id
    return [
        AuditEvent(
            workspace_id=workspace_id,
            audit_event_id=new_id(),
            actor_id=origin.caller.management_key_id,
            actor_member=origin.caller.member if own else "",
            action=entry.action,
            target_id=entry.target_id,
            before=entry.before,
            after=entry.after,
            call_id=origin.call_id,
            peer=origin.peer if own else "",
            event_time=now,
        )
        for entry in entries
    ]


async def _require_enabled(tx: MutationTransaction, workspace_id: UUID) -> None:
    workspace = await tx.workspaces.get(workspace_id)
    if workspace is not None and not workspace.enabled:
        raise errors.WorkspaceDisabled(
            "The workspace is disabled and takes no changes.", workspace_id=format_id(WORKSPACE, workspace_id)
        )


def _request_key(origin: Origin) -> RequestKey:
    caller = origin.caller
    return RequestKey(caller.workspace_id, caller.management_key_id, origin.method, origin.request_id)


async def _answered(tx: MutationTransaction, origin: Origin, now: datetime) -> Json | None:
    if not origin.request_id:
        return None
    answered = await tx.requests.find(_request_key(origin), now - REPLAY_WINDOW)
    if answered is None:
        return None
    if answered.content_hash != origin.content_hash:
        raise errors.RequestIdReused(origin.method)
    return answered.outcome


async def _replay(tx: Tx, outcome: Json, view: View[Tx, T], now: datetime) -> MutationResult[T]:
    revision = Revision(UUID(outcome["workspace_id"]), outcome["revision"])
    return MutationResult(await view(tx, now, outcome["outcome"]), revision, replayed=True)


async def _remember(
    tx: MutationTransaction, origin: Origin, effects: Effects, revision: Revision, now: datetime
) -> None:
    outcome = {
        "workspace_id": str(revision.workspace_id),
        "revision": revision.number,
        "outcome": effects.outcome,
    }
    answered = AnsweredRequest(origin.content_hash, outcome)
    if not await tx.requests.record(_request_key(origin), answered, now - REPLAY_WINDOW, now):
        raise RequestRaced
