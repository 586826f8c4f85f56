"""KeyService's commands (spec §3)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from latchkey.rules import secret_sha256
from latchkey_server.domain import errors, ids
from latchkey_server.domain.keys import fields as key_fields
from latchkey_server.domain.keys.maker import KeyDraft, KeyMaker, key_changed
from latchkey_server.domain.keys.ports import KeyFilter, Transaction
from latchkey_server.domain.keys.views import view_key, view_keys
from latchkey_server.domain.limits.credits import credit_state
from latchkey_server.domain.model import (
    Balance,
    Caller,
    ChangeKind,
    CreditState,
    EnvironmentCount,
    Holder,
    Json,
    Key,
    KeyFields,
    KeyView,
    Revocation,
    RevokeReason,
    Secret,
)
from latchkey_server.domain.mutations import AuditEntry, Effects, MutationResult, Mutations, Origin, View
from latchkey_server.domain.paging import Page, cut, id_cursor, label_cursor
from latchkey_server.domain.replays import credits_json, credits_of
from latchkey_server.domain.secret import Peppers, mask, new_secret, stored_secret
from latchkey_server.domain.store import Clock, Store
from latchkey_server.domain.validation import Violations, check_etag, check_grace, check_note, check_range

UNDELETE_WINDOW = timedelta(days=30)
EDITABLE_WHEN_REVOKED = ("name", "environment", "member", "metadata")
_FILTERED_ROUNDS = 10

KeyEdit = Callable[[KeyFields, Violations], KeyFields]
"""Makes the new fields from the old ones; what can't be parsed is noted."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and, unless this is a replay, its secret."""

    view: KeyView
    secret: str


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What AdjustCredits does: set the balance, or add to it."""

    amount: int
    relative: bool


class Keys:
    """Creates, shows and changes keys."""

    def __init__(
        self, store: Store[Transaction], mutations: Mutations[Transaction], peppers: Peppers, clock: Clock
    ) -> None:
        self._store = store
        self._mutations = mutations
        self._peppers = peppers
        self._clock = clock

    async def create(self, origin: Origin, draft: KeyDraft) -> MutationResult[NewKey]:
        """Make a key and its first secret; the secret is in this answer and nowhere else.

        Raises InvalidField and ApiNotFound.
        """
        secret = ""

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            nonlocal secret
            maker = await KeyMaker.of(tx, origin.caller, now, revision)
            key = await maker.with_identity(await maker.make(draft))
            secret = new_secret(key.prefix)
            await tx.keys.insert([key])
            await tx.secrets.claim([self._secret_of(key, secret, now)])
            await maker.insert_balances([key])
            return await maker.done([key], "key.create", {"key_id": str(key.key_id)})

        applied = await self._mutations.run(origin, work, _key_view(origin.caller))
        shown = "" if applied.replayed else secret
        return MutationResult(NewKey(applied.value, shown), applied.revision, applied.replayed)

    async def get(self, caller: Caller, key_id: UUID) -> KeyView:
        """Return a key, deleted ones included; raises KeyNotFound."""

        async def work(tx: Transaction) -> KeyView:
            return await view_key(tx, await visible_key(tx, caller, key_id), self._clock())

        return await self._store.read(work)

    async def list(self, caller: Caller, wanted: KeyFilter, size: int, cursor: str | None) -> Page[KeyView]:
        """Return keys newest first. Statuses are filtered after reading, so that a page may come short."""
        narrowed = bound_filter(caller, wanted)

        async def work(tx: Transaction) -> Page[KeyView]:
            if narrowed is None:
                return Page((), None)
            return await self._page(tx, caller.workspace_id, narrowed, size, id_cursor(cursor))

        return await self._store.read(work)

    async def update(self, origin: Origin, key_id: UUID, edit: KeyEdit, etag: str = "") -> MutationResult[KeyView]:
        """Replace the fields by what ``edit`` makes of them.

        Raises KeyNotFound (deleted ones too), EtagMismatch, InvalidField, and KeyRevoked for a revoked key unless only
        its name, environment, member or metadata change.
        """

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            before = await living_key(tx, origin.caller, key_id, etag)
            found = Violations("key")
            fields = key_fields.normalized(edit(before.fields, found), found)
            found.check()
            if before.revocation and not _only_labels_differ(before.fields, fields):
                raise errors.KeyRevoked(
                    "The key is revoked; only its name, labels and metadata may change.",
                    key_id=ids.format_id(ids.KEY, key_id),
                )
            maker = await KeyMaker.of(tx, origin.caller, now, revision)
            identity_id = await maker.identity_id(fields.external_id)
            after = replace(before, fields=fields, identity_id=identity_id, update_time=now, revision=revision)
            await tx.keys.update(after)
            await maker.carry_balance(before, after)
            return maker.changed(before, after, "key.update", ChangeKind.KEY_CHANGED)

        return await self._mutations.run(origin, work, _key_view(origin.caller))

    async def rotate(self, origin: Origin, key_id: UUID, grace: timedelta, etag: str = "") -> MutationResult[NewKey]:
        """Make a new secret and end every older one at min(its end, now + grace); grace 0 marks it as ended.

        Raises KeyNotFound, EtagMismatch, InvalidField and KeyRevoked.
        """
        check_grace(grace)
        secret = ""

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            nonlocal secret
            before = await living_key(tx, origin.caller, key_id, etag)
            if before.revocation:
                raise errors.KeyRevoked(
                    "The key is revoked; create another key.", key_id=ids.format_id(ids.KEY, key_id)
                )
            end = min(now + grace, before.fields.expire_time or datetime.max.replace(tzinfo=now.tzinfo))
            await tx.secrets.end(before.workspace_id, key_id, end, at_once=not grace)
            secret = new_secret(before.prefix)
            await tx.secrets.claim([self._secret_of(before, secret, now)])
            after = replace(before, update_time=now, revision=revision)
            await tx.keys.update(after)
            return key_changed(before, after, "key.rotate", ChangeKind.KEY_CHANGED, ChangeKind.SECRET_ADDED)

        applied = await self._mutations.run(origin, work, _key_view(origin.caller))
        shown = "" if applied.replayed else secret
        return MutationResult(NewKey(applied.value, shown), applied.revision, applied.replayed)

    async def revoke(
        self, origin: Origin, key_id: UUID, reason: RevokeReason, note: str, etag: str = ""
    ) -> MutationResult[KeyView]:
        """Refuse the key for good; a revoked key stays as it is. Raises KeyNotFound, EtagMismatch, InvalidField."""
        found = Violations()
        check_note(found, "note", note)
        found.check()

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            before = await living_key(tx, origin.caller, key_id, etag)
            if before.revocation:
                return Effects(outcome={"key_id": str(key_id)})
            revocation = Revocation(reason, note, now)
            after = replace(before, revocation=revocation, update_time=now, revision=revision)
            await tx.keys.update(after)
            return key_changed(before, after, "key.revoke", ChangeKind.KEY_CHANGED)

        return await self._mutations.run(origin, work, _key_view(origin.caller))

    async def delete(self, origin: Origin, key_id: UUID, etag: str = "") -> MutationResult[KeyView]:
        """Hide the key. Raises KeyNotFound (deleted ones too) and EtagMismatch."""

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            before = await living_key(tx, origin.caller, key_id, etag)
            after = replace(before, delete_time=now, update_time=now, revision=revision)
            await tx.keys.update(after)
            return key_changed(before, after, "key.delete", ChangeKind.KEY_CHANGED)

        return await self._mutations.run(origin, work, _key_view(origin.caller))

    async def undelete(self, origin: Origin, key_id: UUID) -> MutationResult[KeyView]:
        """Bring a deleted key back. Raises KeyNotFound, KeyNotDeleted and UndeleteWindowPassed."""

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            before = await visible_key(tx, origin.caller, key_id)
            if before.delete_time is None:
                raise errors.KeyNotDeleted("The key is not deleted.", key_id=ids.format_id(ids.KEY, key_id))
            if now - before.delete_time > UNDELETE_WINDOW:
                raise errors.UndeleteWindowPassed(
                    "The key was deleted more than 30 days ago.", key_id=ids.format_id(ids.KEY, key_id)
                )
            after = replace(before, delete_time=None, update_time=now, revision=revision)
            await tx.keys.update(after)
            return key_changed(before, after, "key.undelete", ChangeKind.KEY_CHANGED, ChangeKind.SECRET_ADDED)

        return await self._mutations.run(origin, work, _key_view(origin.caller))

    async def lookup(self, caller: Caller, secret: str) -> tuple[KeyView, UUID]:
        """Return the key that a secret belongs to and the secret's id; raises KeyNotFound."""

        async def work(tx: Transaction) -> tuple[KeyView, UUID]:
            known = await self._find(tx, caller, secret)
            key = await tx.keys.get(caller.workspace_id, known.holder_id)
            if key is None or not caller.covers_api(key.api_id):
                raise errors.KeyNotFound("")
            return await view_key(tx, key, self._clock()), known.secret_id

        return await self._store.read(work)

    async def environments(
        self, caller: Caller, api_id: UUID | None, size: int, cursor: str | None
    ) -> Page[EnvironmentCount]:
        """Return how many keys carry each label in use, ordered by label: changing counts move none."""
        wanted = bound_filter(caller, KeyFilter(api_ids=frozenset({api_id} if api_id else ())))
        behind = label_cursor(cursor)

        async def work(tx: Transaction) -> Page[EnvironmentCount]:
            if wanted is None:
                return Page((), None)
            found = await tx.keys.environments(caller.workspace_id, wanted.api_ids, behind, size + 1)
            return cut(found, size, lambda count: count.environment)

        return await self._store.read(work)

    async def adjust_credits(self, origin: Origin, key_id: UUID, adjustment: Adjustment) -> MutationResult[CreditState]:
        """Set the balance or add to it. Raises InvalidField, KeyNotFound, CreditsNotSet and CreditsInsufficient."""
        if not adjustment.relative:
            found = Violations()
            check_range(found, "set", adjustment.amount, 0, key_fields.CREDITS_MAX)
            found.check()

        async def work(tx: Transaction, now: datetime, _revision: int) -> Effects:
            key = await living_key(tx, origin.caller, key_id)
            stored = await tx.keys.lock_balance(key.workspace_id, key_id)
            before = credit_state(key.fields.credits, stored, now)
            if before is None:
                raise errors.CreditsNotSet(
                    "The key has no credits; set them with UpdateKey first.", key_id=ids.format_id(ids.KEY, key_id)
                )
            after = replace(before, remaining=_adjusted(before.remaining, adjustment))
            await tx.keys.update_balance(key.workspace_id, key_id, Balance(after.remaining, now))
            facts = ({"remaining": before.remaining}, {"remaining": after.remaining})
            entry = AuditEntry("key.adjust_credits", ids.format_id(ids.KEY, key_id), *facts)
            return Effects(audit=(entry,), outcome=credits_json(after))

        async def view(tx: Transaction, _now: datetime, outcome: Json) -> CreditState:
            await visible_key(tx, origin.caller, key_id)
            return credits_of(outcome)

        return await self._mutations.run(origin, work, view)

    async def _page(
        self, tx: Transaction, workspace_id: UUID, wanted: KeyFilter, size: int, before: UUID | None
    ) -> Page[KeyView]:
        now = self._clock()
        found: list[KeyView] = []
        for _ in range(_FILTERED_ROUNDS):
            keys = await tx.keys.page(workspace_id, wanted, before, size + 1, now)
            views = await view_keys(tx, workspace_id, keys, now)
            found += [view for view in views if not wanted.statuses or view.status in wanted.statuses]
            if len(keys) <= size or len(found) > size:
                return cut(found, size, _view_cursor)
            before = keys[-1].key_id
        return Page(found, str(before), _view_cursor)

    async def _find(self, tx: Transaction, caller: Caller, secret: str) -> Secret:
        known = await tx.secrets.find(self._peppers.candidates(secret_sha256(secret)))
        if known is None or known.holder is not Holder.KEY or known.workspace_id != caller.workspace_id:
            raise errors.KeyNotFound("")
        return known

    def _secret_of(self, key: Key, secret: str, now: datetime) -> Secret:
        owner = (key.workspace_id, Holder.KEY, key.key_id)
        return stored_secret(*owner, secret_sha256(secret), mask(secret), self._peppers, now)


def _adjusted(remaining: int, adjustment: Adjustment) -> int:
    """Return what a balance becomes; raises CreditsInsufficient for one out of range."""
    adjusted = adjustment.amount + (remaining if adjustment.relative else 0)
    if not 0 <= adjusted <= key_fields.CREDITS_MAX:
        raise errors.CreditsInsufficient(
            f"The balance must stay 0 to {key_fields.CREDITS_MAX:,}; {remaining:,} remain.", remaining=str(remaining)
        )
    return adjusted


def bound_filter(caller: Caller, wanted: KeyFilter) -> KeyFilter | None:
    """Return the filter narrowed to the caller's api binding; None when nothing can match."""
    if not caller.api_ids:
        return wanted
    api_ids = wanted.api_ids & caller.api_ids if wanted.api_ids else caller.api_ids
    return replace(wanted, api_ids=api_ids) if api_ids else None


async def visible_key(tx: Transaction, caller: Caller, key_id: UUID) -> Key:
    """Return a key that the caller may see, deleted or not; raises KeyNotFound."""
    key = await tx.keys.get(caller.workspace_id, key_id)
    if key is None or not caller.covers_api(key.api_id):
        raise errors.KeyNotFound(ids.format_id(ids.KEY, key_id))
    return key


async def living_key(tx: Transaction, caller: Caller, key_id: UUID, etag: str = "") -> Key:
    """Return a key that the caller may change; raises KeyNotFound, also for a deleted one, and EtagMismatch."""
    key = await visible_key(tx, caller, key_id)
    if key.delete_time is not None:
        raise errors.KeyNotFound(ids.format_id(ids.KEY, key_id))
    check_etag(etag, key.revision)
    return key


def _key_view(caller: Caller) -> View[Transaction, KeyView]:
    async def view(tx: Transaction, now: datetime, outcome: Json) -> KeyView:
        return await view_key(tx, await visible_key(tx, caller, UUID(outcome["key_id"])), now)

    return view


def _view_cursor(view: KeyView) -> str:
    return str(view.key.key_id)


def _only_labels_differ(before: KeyFields, after: KeyFields) -> bool:
    unchanged = {name: getattr(before, name) for name in EDITABLE_WHEN_REVOKED}
    return replace(after, **unchanged) == before
