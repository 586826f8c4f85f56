"""Making keys: a draft becomes a key, with its api, prefix, member, identity and balance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from latchkey_server.domain import errors, ids
from latchkey_server.domain.errors import Violation
from latchkey_server.domain.keys import fields as key_fields
from latchkey_server.domain.keys.ports import Transaction
from latchkey_server.domain.limits.credits import credit_state
from latchkey_server.domain.model import (
    Balance,
    Caller,
    Change,
    ChangeKind,
    Identity,
    Json,
    Key,
    KeyFields,
    Workspace,
)
from latchkey_server.domain.mutations import AuditEntry, Effects
from latchkey_server.domain.snapshots import snapshot
from latchkey_server.domain.tenants.identities import new_identity
from latchkey_server.domain.tenants.workspaces import existing_workspace
from latchkey_server.domain.turns import in_slices
from latchkey_server.domain.validation import Violations, check_prefix

DEFAULT_PREFIX = "sk"


@dataclass(frozen=True, slots=True)
class KeyDraft:
    """A key to be made. ``member`` None means the caller's own; an empty ``prefix`` the workspace's default."""

    fields: KeyFields
    member: str | None = None
    api_id: UUID | None = None
    prefix: str = ""
    ttl: timedelta | None = None
    found: tuple[Violation, ...] = ()
    """What could not be parsed."""


class KeyMaker:
    """Makes the keys of one transaction: resolves api, prefix, member and identity, and remembers what was made."""

    def __init__(self, tx: Transaction, caller: Caller, workspace: Workspace, now: datetime, revision: int) -> None:
        self._tx = tx
        self._caller = caller
        self._workspace = workspace
        self._now = now
        self._revision = revision
        self._identities: dict[str, Identity] = {}
        self._made: list[Identity] = []

    @classmethod
    async def of(cls, tx: Transaction, caller: Caller, now: datetime, revision: int) -> "KeyMaker":
        """Return a maker for the caller's workspace; ``revision`` is the one that this transaction makes."""
        return cls(tx, caller, await existing_workspace(tx, caller.workspace_id), now, revision)

    async def make(self, draft: KeyDraft) -> Key:
        """Return the key that a draft describes, its identity left to ``with_identity``.

        Raises InvalidField, ApiNotFound and ApiBinding.
        """
        found = Violations("key")
        fields = key_fields.normalized(
            replace(draft.fields, member=self._caller.member if draft.member is None else draft.member), found
        )
        prefix = draft.prefix or self._workspace.settings.default_prefix or DEFAULT_PREFIX
        check_prefix(found, "prefix", prefix)
        asked = Violations()
        expire_time = key_fields.expiry(asked, fields.expire_time, draft.ttl, self._now)
        asked.found += [*draft.found, *found.found]
        asked.check()
        api_id = await self._api_id(draft.api_id)
        return Key(
            workspace_id=self._caller.workspace_id,
            key_id=ids.new_id(),
            api_id=api_id,
            prefix=prefix,
            fields=replace(fields, expire_time=expire_time),
            identity_id=None,
            revocation=None,
            create_time=self._now,
            update_time=self._now,
            delete_time=None,
            revision=self._revision,
        )

    async def with_identity(self, key: Key) -> Key:
        """Return the key with the identity that its external id names, made now if nobody had it."""
        return replace(key, identity_id=await self.identity_id(key.fields.external_id))

    async def identity_id(self, external_id: str) -> UUID | None:
        """Return the identity with this external id, made now if nobody had it; None for an empty one."""
        if not external_id:
            return None
        identity = self._identities.get(external_id)
        if identity is None:
            identity = await self._tx.identities.by_external_id(self._caller.workspace_id, external_id)
        if identity is None:
            identity = new_identity(self._caller.workspace_id, external_id, self._now, self._revision)
            await self._tx.identities.insert(identity)
            self._made.append(identity)
        self._identities[external_id] = identity
        return identity.identity_id

    async def insert_balances(self, keys: Sequence[Key]) -> None:
        """Begin the balance of those keys that have credits and had none before."""
        begun = {key.key_id: Balance(key.fields.credits.amount, self._now) for key in keys if key.fields.credits}
        if begun:
            await self._tx.keys.insert_balances(self._caller.workspace_id, begun)

    async def carry_balance(self, before: Key, after: Key) -> None:
        """Settle what came due under the old credits before the new ones apply, so that no refill moves."""
        if before.fields.credits == after.fields.credits:
            return
        stored = await self._tx.keys.lock_balance(after.workspace_id, after.key_id)
        if stored is None:
            await self.insert_balances([after])
            return
        settled = credit_state(before.fields.credits, stored, self._now)
        remaining = settled.remaining if settled else stored.remaining
        await self._tx.keys.update_balance(after.workspace_id, after.key_id, Balance(remaining, self._now))

    async def done(self, keys: Sequence[Key], action: str, outcome: Json) -> Effects:
        """Return what was done by making these keys."""

        def entry(key: Key) -> AuditEntry:
            return AuditEntry(action, ids.format_id(ids.KEY, key.key_id), after=snapshot(key))

        made = tuple(await in_slices(entry, keys))
        added = tuple(Change(ChangeKind.SECRET_ADDED, key.key_id) for key in keys)
        changes, audit = self._identity_changes()
        return Effects(changes + added, audit + made, outcome)

    def changed(self, before: Key, after: Key, action: str, *kinds: ChangeKind) -> Effects:
        """Return what was done by changing a key, identities made on the way included."""
        done = key_changed(before, after, action, *kinds)
        changes, audit = self._identity_changes()
        return Effects(changes + done.changes, audit + done.audit, done.outcome)

    def _identity_changes(self) -> tuple[tuple[Change, ...], tuple[AuditEntry, ...]]:
        changes = tuple(Change(ChangeKind.IDENTITY_CHANGED, identity.identity_id) for identity in self._made)
        audit = tuple(
            AuditEntry("identity.create", ids.format_id(ids.IDENTITY, made.identity_id), after=snapshot(made))
            for made in self._made
        )
        return changes, audit

    async def _api_id(self, asked: UUID | None) -> UUID:
        api_id = asked or self._workspace.default_api_id
        if not self._caller.covers_api(api_id):
            raise errors.ApiNotFound(ids.format_id(ids.API, api_id)) if asked else errors.ApiBinding()
        if asked and await self._tx.apis.get(self._caller.workspace_id, asked) is None:
            raise errors.ApiNotFound(ids.format_id(ids.API, asked))
        return api_id


def key_changed(before: Key, after: Key, action: str, *kinds: ChangeKind) -> Effects:
    """Return what was done by changing a key."""
    entry = AuditEntry(action, ids.format_id(ids.KEY, after.key_id), snapshot(before), snapshot(after))
    changes = tuple(Change(kind, after.key_id) for kind in kinds)
    return Effects(changes, (entry,), {"key_id": str(after.key_id)})
