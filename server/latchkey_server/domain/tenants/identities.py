"""Identities: the end customers that keys belong to."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from latchkey_server.domain import errors, ids
from latchkey_server.domain.access.roles import require_unbound
from latchkey_server.domain.model import Caller, Change, ChangeKind, Identity, Json, RateLimit
from latchkey_server.domain.mutations import Effects, MutationResult, Mutations, Origin, effects_of
from latchkey_server.domain.paging import Page, cut, id_cursor
from latchkey_server.domain.replays import identity_json, identity_of
from latchkey_server.domain.store import Store
from latchkey_server.domain.tenants.ports import Transaction
from latchkey_server.domain.validation import (
    EXTERNAL_ID_MAX,
    Violations,
    check_etag,
    check_metadata,
    check_ratelimits,
    check_text,
)

Name = UUID | str
"""An identity's id, or its external id."""


@dataclass(frozen=True, slots=True)
class IdentityFields:
    """What an update sets."""

    metadata: Json
    ratelimits: tuple[RateLimit, ...]


IdentityEdit = Callable[[IdentityFields, Violations], IdentityFields]
"""Makes the new fields from the old ones; what can't be parsed is noted."""

IdentityMake = Callable[[Violations], IdentityFields]
"""Makes the fields of a new identity; what can't be parsed is noted."""


def new_identity(workspace_id: UUID, external_id: str, now: datetime, revision: int) -> Identity:
    """Return a fresh identity without metadata and limits."""
    return Identity(workspace_id, ids.new_id(), external_id, {}, (), now, now, revision)


class Identities:
    """Shows and changes identities."""

    def __init__(self, store: Store[Transaction], mutations: Mutations[Transaction]) -> None:
        self._store = store
        self._mutations = mutations

    async def get(self, caller: Caller, name: Name) -> Identity:
        """Return an identity; raises IdentityNotFound."""

        async def work(tx: Transaction) -> Identity:
            return await _existing(tx, caller.workspace_id, name)

        return await self._store.read(work)

    async def list(self, caller: Caller, size: int, cursor: str | None) -> Page[Identity]:
        """Return identities newest first."""

        async def work(tx: Transaction) -> Page[Identity]:
            found = await tx.identities.page(caller.workspace_id, id_cursor(cursor), size + 1)
            return cut(found, size, lambda identity: str(identity.identity_id))

        return await self._store.read(work)

    async def update(
        self, origin: Origin, name: Name, edit: IdentityEdit, *, make: IdentityMake | None = None, etag: str = ""
    ) -> MutationResult[Identity]:
        """Change an identity, or ``make`` it when it is named by an unknown external id.

        Raises IdentityNotFound, EtagMismatch, InvalidField and ApiBinding.
        """
        require_unbound(origin.caller)

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            found = _name_violations(name)
            before = await _find(tx, origin.caller.workspace_id, name)
            if before is None and make is not None and isinstance(name, str):
                fresh = new_identity(origin.caller.workspace_id, name, now, revision)
                made = _with_fields(fresh, make(found), found)
                await tx.identities.insert(made)
                return _effects("identity.create", None, made, made)
            found.check()
            if before is None:
                raise errors.IdentityNotFound(_shown(name))
            check_etag(etag, before.revision)
            after = replace(_edited(before, edit, found), update_time=now, revision=revision)
            await tx.identities.update(after)
            return _effects("identity.update", before, after, after)

        return await self._mutations.run(origin, work, _view)

    async def delete(self, origin: Origin, identity_id: UUID, etag: str = "") -> MutationResult[None]:
        """Remove an identity without keys. Raises IdentityNotFound, EtagMismatch, IdentityInUse and ApiBinding."""
        require_unbound(origin.caller)
        workspace_id = origin.caller.workspace_id

        async def work(tx: Transaction, _now: datetime, _revision: int) -> Effects:
            before = await _existing(tx, workspace_id, identity_id)
            check_etag(etag, before.revision)
            if await tx.identities.has_keys(workspace_id, identity_id):
                shown = ids.format_id(ids.IDENTITY, identity_id)
                raise errors.IdentityInUse("The identity has keys, or deleted ones.", identity_id=shown)
            await tx.identities.delete(workspace_id, identity_id)
            return _effects("identity.delete", before, None, before)

        async def view(_tx: Transaction, _now: datetime, _outcome: Json) -> None:
            return None

        return await self._mutations.run(origin, work, view)


def _name_violations(name: Name) -> Violations:
    found = Violations("identity")
    if isinstance(name, str):
        check_text(found, "external_id", name, EXTERNAL_ID_MAX)
    return found


def _edited(identity: Identity, edit: IdentityEdit, found: Violations) -> Identity:
    return _with_fields(identity, edit(IdentityFields(identity.metadata, identity.ratelimits), found), found)


def _with_fields(identity: Identity, fields: IdentityFields, found: Violations) -> Identity:
    metadata = check_metadata(found, "metadata", fields.metadata)
    ratelimits = check_ratelimits(found, "ratelimits", fields.ratelimits)
    found.check()
    return replace(identity, metadata=metadata, ratelimits=ratelimits)


def _effects(action: str, before: Identity | None, after: Identity | None, identity: Identity) -> Effects:
    change = Change(ChangeKind.IDENTITY_CHANGED, identity.identity_id)
    return effects_of(action, change, before, after, identity_json(identity))


async def _view(_tx: Transaction, _now: datetime, outcome: Json) -> Identity:
    return identity_of(outcome)


async def _find(tx: Transaction, workspace_id: UUID, name: Name) -> Identity | None:
    if isinstance(name, str):
        return await tx.identities.by_external_id(workspace_id, name)
    return await tx.identities.get(workspace_id, name)


async def _existing(tx: Transaction, workspace_id: UUID, name: Name) -> Identity:
    identity = await _find(tx, workspace_id, name)
    if identity is None:
        raise errors.IdentityNotFound(_shown(name))
    return identity


def _shown(name: Name) -> str:
    return name if isinstance(name, str) else ids.format_id(ids.IDENTITY, name)
