"""Management keys: the credentials for Latchkey's own RPCs (spec §6)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from latchkey.rules import secret_sha256
from latchkey_server.domain import errors, ids
from latchkey_server.domain.access.ports import Transaction
from latchkey_server.domain.access.roles import require_within
from latchkey_server.domain.model import (
    Caller,
    Change,
    ChangeKind,
    Holder,
    Json,
    ManagementKey,
    Revocation,
    RevokeReason,
    Role,
    Secret,
)
from latchkey_server.domain.mutations import Effects, MutationResult, Mutations, Origin, View, effects_of
from latchkey_server.domain.paging import Page, cut, id_cursor
from latchkey_server.domain.secret import MANAGEMENT_PREFIX, Peppers, mask, new_secret, stored_secret
from latchkey_server.domain.store import Clock, Store
from latchkey_server.domain.validation import (
    MEMBER_MAX,
    NAME_MAX,
    Violations,
    check_count,
    check_etag,
    check_grace,
    check_note,
    check_text,
)

API_IDS_MAX = 100


@dataclass(frozen=True, slots=True)
class ManagementKeyFields:
    """What Create and Update set."""

    name: str
    role: Role
    member: str = ""
    api_ids: frozenset[UUID] = frozenset()
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class ManagementKeyView:
    """A management key with what describes its secrets."""

    management_key: ManagementKey
    secrets: tuple[Secret, ...]


@dataclass(frozen=True, slots=True)
class NewManagementKey:
    """A management key and, unless this is a replay, its secret."""

    view: ManagementKeyView
    secret: str


ManagementKeyEdit = Callable[[ManagementKeyFields, Violations], ManagementKeyFields]
"""Makes the new fields from the old ones; what can't be parsed is noted."""


class ManagementKeys:
    """Creates, shows and changes management keys."""

    def __init__(
        self, store: Store[Transaction], mutations: Mutations[Transaction], peppers: Peppers, clock: Clock
    ) -> None:
        self._store = store
        self._mutations = mutations
        self._peppers = peppers
        self._clock = clock

    async def create(
        self, origin: Origin, fields: ManagementKeyFields, found: Violations, *, all_workspaces: bool = False
    ) -> MutationResult[NewManagementKey]:
        """Make a management key and its first secret; ``found`` holds what could not be parsed.

        Raises InvalidField, ApiNotFound and PermissionsExceeded.
        """
        if all_workspaces and fields.role is not Role.VERIFIER:
            found.add("all_workspaces", "is only for the role VERIFIER")
        _check(fields, found)
        require_within(origin.caller, fields.role, fields.api_ids, all_workspaces)
        secret = new_secret(MANAGEMENT_PREFIX)

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            await _require_apis(tx, origin.caller.workspace_id, fields.api_ids)
            made = new_management_key(origin.caller.workspace_id, fields, now, revision, all_workspaces=all_workspaces)
            await tx.management_keys.insert(made)
            await tx.secrets.claim([management_secret(made, secret, self._peppers, now)])
            return _effects("management_key.create", None, made)

        return _with_secret(await self._mutations.run(origin, work, _view(origin.caller)), secret)

    async def get(self, caller: Caller, management_key_id: UUID) -> ManagementKeyView:
        """Return a management key; raises ManagementKeyNotFound."""

        async def work(tx: Transaction) -> ManagementKeyView:
            return await view_management_key(tx, caller.workspace_id, management_key_id)

        return await self._store.read(work)

    async def list(self, caller: Caller, show_revoked: bool, size: int, cursor: str | None) -> Page[ManagementKeyView]:
        """Return management keys newest first."""

        async def work(tx: Transaction) -> Page[ManagementKeyView]:
            workspace_id = caller.workspace_id
            found = await tx.management_keys.page(workspace_id, show_revoked, id_cursor(cursor), size + 1)
            secrets = await tx.secrets.of(workspace_id, [item.management_key_id for item in found])
            views = [ManagementKeyView(item, secrets.get(item.management_key_id, ())) for item in found]
            return cut(views, size, lambda view: str(view.management_key.management_key_id))

        return await self._store.read(work)

    async def update(
        self, origin: Origin, management_key_id: UUID, edit: ManagementKeyEdit, etag: str = ""
    ) -> MutationResult[ManagementKeyView]:
        """Change a management key that lies within the caller's permissions before and after.

        Raises ManagementKeyNotFound, ManagementKeyRevoked, EtagMismatch, InvalidField, ApiNotFound,
        PermissionsExceeded and LastOwner.
        """

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            before = await self._changeable(tx, origin.caller, management_key_id, etag)
            after = replace(_edited(before, edit), update_time=now, revision=revision)
            require_within(origin.caller, after.role, after.api_ids, after.all_workspaces)
            # An api that it was bound to may be deleted by now, which must not block other changes.
            await _require_apis(tx, before.workspace_id, after.api_ids - before.api_ids)
            await tx.management_keys.update(after)
            if not _lasting_owner(after):
                await _require_other_owner(tx, before)
            return _effects("management_key.update", before, after)

        return await self._mutations.run(origin, work, _view(origin.caller))

    async def rotate(
        self, origin: Origin, management_key_id: UUID, grace: timedelta
    ) -> MutationResult[NewManagementKey]:
        """Make a new secret and end every older one at min(its end, now + grace); grace 0 marks it as ended.

        Raises ManagementKeyNotFound, ManagementKeyRevoked, InvalidField and PermissionsExceeded.
        """
        check_grace(grace)
        secret = new_secret(MANAGEMENT_PREFIX)

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            before = await self._changeable(tx, origin.caller, management_key_id)
            await tx.secrets.end(before.workspace_id, management_key_id, now + grace, at_once=not grace)
            await tx.secrets.claim([management_secret(before, secret, self._peppers, now)])
            after = replace(before, update_time=now, revision=revision)
            await tx.management_keys.update(after)
            return _effects("management_key.rotate", before, after)

        return _with_secret(await self._mutations.run(origin, work, _view(origin.caller)), secret)

    async def revoke(
        self, origin: Origin, management_key_id: UUID, reason: RevokeReason, note: str
    ) -> MutationResult[ManagementKeyView]:
        """Refuse a management key for good; a revoked one stays as it is.

        Raises ManagementKeyNotFound, InvalidField, PermissionsExceeded and LastOwner.
        """
        found = Violations()
        check_note(found, "note", note)
        found.check()

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            before = await _existing(tx, origin.caller.workspace_id, management_key_id)
            require_within(origin.caller, before.role, before.api_ids, before.all_workspaces)
            if before.revocation:
                return Effects(outcome={"management_key_id": str(management_key_id)})
            await _require_other_owner(tx, before)
            revocation = Revocation(reason, note, now)
            after = replace(before, revocation=revocation, update_time=now, revision=revision)
            await tx.management_keys.update(after)
            return _effects("management_key.revoke", before, after)

        return await self._mutations.run(origin, work, _view(origin.caller))

    async def _changeable(
        self, tx: Transaction, caller: Caller, management_key_id: UUID, etag: str = ""
    ) -> ManagementKey:
        before = await _existing(tx, caller.workspace_id, management_key_id)
        require_within(caller, before.role, before.api_ids, before.all_workspaces)
        if before.revocation:
            raise errors.ManagementKeyRevoked(
                "The management key is revoked; create another.",
                management_key_id=ids.format_id(ids.MANAGEMENT_KEY, management_key_id),
            )
        check_etag(etag, before.revision)
        return before


def new_management_key(
    workspace_id: UUID,
    fields: ManagementKeyFields,
    now: datetime,
    revision: int,
    *,
    all_workspaces: bool = False,
) -> ManagementKey:
    """Return a fresh management key."""
    return ManagementKey(
        workspace_id=workspace_id,
        management_key_id=ids.new_id(),
        name=fields.name,
        role=fields.role,
        member=fields.member,
        api_ids=fields.api_ids,
        all_workspaces=all_workspaces,
        expire_time=fields.expire_time,
        revocation=None,
        create_time=now,
        update_time=now,
        revision=revision,
    )


def management_secret(holder: ManagementKey, secret: str, peppers: Peppers, now: datetime) -> Secret:
    """Return what is stored of a management key's secret."""
    owner = (holder.workspace_id, Holder.MANAGEMENT_KEY, holder.management_key_id)
    return stored_secret(*owner, secret_sha256(secret), mask(secret), peppers, now)


async def view_management_key(tx: Transaction, workspace_id: UUID, management_key_id: UUID) -> ManagementKeyView:
    """Return a management key as it is now; raises ManagementKeyNotFound."""
    management_key = await _existing(tx, workspace_id, management_key_id)
    secrets = await tx.secrets.of(workspace_id, [management_key_id])
    return ManagementKeyView(management_key, secrets.get(management_key_id, ()))


def _edited(before: ManagementKey, edit: ManagementKeyEdit) -> ManagementKey:
    found = Violations("management_key")
    fields = edit(_fields(before), found)
    if before.all_workspaces and fields.role is not Role.VERIFIER:
        found.add("role", "must stay VERIFIER with all_workspaces")
    _check(fields, found)
    return replace(
        before,
        name=fields.name,
        role=fields.role,
        member=fields.member,
        api_ids=fields.api_ids,
        expire_time=fields.expire_time,
    )


def _check(fields: ManagementKeyFields, found: Violations) -> None:
    check_text(found, "name", fields.name, NAME_MAX)
    check_text(found, "member", fields.member, MEMBER_MAX)
    check_count(found, "api_ids", fields.api_ids, API_IDS_MAX)
    found.check()


def _fields(management_key: ManagementKey) -> ManagementKeyFields:
    return ManagementKeyFields(
        name=management_key.name,
        role=management_key.role,
        member=management_key.member,
        api_ids=management_key.api_ids,
        expire_time=management_key.expire_time,
    )


async def _existing(tx: Transaction, workspace_id: UUID, management_key_id: UUID) -> ManagementKey:
    management_key = await tx.management_keys.get(workspace_id, management_key_id)
    if management_key is None:
        raise errors.ManagementKeyNotFound(ids.format_id(ids.MANAGEMENT_KEY, management_key_id))
    return management_key


async def _require_apis(tx: Transaction, workspace_id: UUID, api_ids: frozenset[UUID]) -> None:
    for api_id in sorted(api_ids):
        if await tx.apis.get(workspace_id, api_id) is None:
            raise errors.ApiNotFound(ids.format_id(ids.API, api_id))


def _lasting_owner(management_key: ManagementKey) -> bool:
    return management_key.role is Role.OWNER and not management_key.api_ids and management_key.expire_time is None


async def _require_other_owner(tx: Transaction, management_key: ManagementKey) -> None:
    """Raise LastOwner unless another OWNER lasts; one that will expire does not count."""
    if management_key.role is not Role.OWNER or management_key.api_ids:
        return
    if not await tx.management_keys.other_lasting_owner_exists(
        management_key.workspace_id, management_key.management_key_id
    ):
        raise errors.LastOwner("The workspace would be left without a lasting OWNER; make another first.")


def _effects(action: str, before: ManagementKey | None, after: ManagementKey) -> Effects:
    change = Change(ChangeKind.MANAGEMENT_KEY_CHANGED, after.management_key_id)
    return effects_of(action, change, before, after, {"management_key_id": str(after.management_key_id)})


def _view(caller: Caller) -> View[Transaction, ManagementKeyView]:
    async def view(tx: Transaction, _now: datetime, outcome: Json) -> ManagementKeyView:
        return await view_management_key(tx, caller.workspace_id, UUID(outcome["management_key_id"]))

    return view


def _with_secret(applied: MutationResult[ManagementKeyView], secret: str) -> MutationResult[NewManagementKey]:
    shown = "" if applied.replayed else secret
    return MutationResult(NewManagementKey(applied.value, shown), applied.revision, applied.replayed)
