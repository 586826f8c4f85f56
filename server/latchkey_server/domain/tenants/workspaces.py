"""Workspaces: the tenants, the first start that makes the root one, and who may see and change which."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from latchkey_server.domain import errors, ids
from latchkey_server.domain.access.management_keys import (
    ManagementKeyFields,
    ManagementKeyView,
    management_secret,
    new_management_key,
    view_management_key,
)
from latchkey_server.domain.access.roles import require_root_owner, require_unbound
from latchkey_server.domain.model import (
    Caller,
    Change,
    ChangeKind,
    Json,
    ManagementKey,
    Role,
    Workspace,
    WorkspaceSettings,
)
from latchkey_server.domain.mutations import AuditEntry, Effects, MutationResult, Mutations, Origin, audit_events
from latchkey_server.domain.paging import Page, cut, id_cursor
from latchkey_server.domain.secret import MANAGEMENT_PREFIX, Peppers, new_secret
from latchkey_server.domain.snapshots import snapshot
from latchkey_server.domain.store import Clock, Store
from latchkey_server.domain.tenants.apis import DEFAULT_NAME, new_api
from latchkey_server.domain.tenants.ports import Transaction
from latchkey_server.domain.validation import NAME_MAX, Violations, check_etag, check_prefix, check_text

CACHEABLE_MAX = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class WorkspaceFields:
    """What Create and Update set."""

    name: str = ""
    enabled: bool = True
    settings: WorkspaceSettings = field(default_factory=WorkspaceSettings)


@dataclass(frozen=True, slots=True)
class NewWorkspace:
    """A workspace with its first OWNER and, unless this is a replay, that OWNER's secret."""

    workspace: Workspace
    owner: ManagementKeyView
    secret: str


WorkspaceEdit = Callable[[WorkspaceFields, Violations], WorkspaceFields]
"""Makes the new fields from the old ones; what can't be parsed is noted."""


class Workspaces:
    """Creates, shows and changes tenants."""

    def __init__(
        self, store: Store[Transaction], mutations: Mutations[Transaction], peppers: Peppers, clock: Clock
    ) -> None:
        self._store = store
        self._mutations = mutations
        self._peppers = peppers
        self._clock = clock

    async def bootstrap(self) -> str | None:
        """Make the root workspace and return its first OWNER's secret, once; None when there is one already."""
        secret = new_secret(MANAGEMENT_PREFIX)

        async def work(tx: Transaction) -> bool:
            await tx.workspaces.lock_bootstrap()
            if await tx.workspaces.page(None, 1):
                return False
            now = self._clock()
            workspace, owner = await self._make(tx, WorkspaceFields("root"), secret, now, root=True)
            origin = Origin(Caller(workspace.workspace_id, owner.management_key_id, Role.OWNER), "", "", "")
            events = audit_events(origin, _made_entries(workspace, owner), workspace.workspace_id, now)
            await tx.audit.append([replace(event, actor_id=None) for event in events])
            return True

        return secret if await self._store.write(work) else None

    async def create(self, origin: Origin, fields: WorkspaceFields, found: Violations) -> MutationResult[NewWorkspace]:
        """Make a tenant with its default api and first OWNER; ``found`` holds what could not be parsed.

        Raises RoleTooLow and InvalidField.
        """
        require_root_owner(origin.caller)
        _check(fields, found)
        secret = new_secret(MANAGEMENT_PREFIX)

        async def work(tx: Transaction, now: datetime, _revision: int) -> Effects:
            workspace, owner = await self._make(tx, fields, secret, now)
            entries = _made_entries(workspace, owner)
            await tx.audit.append(audit_events(origin, entries, workspace.workspace_id, now))
            outcome = {
                "workspace_id": str(workspace.workspace_id),
                "owner_id": str(owner.management_key_id),
                "revision": workspace.revision,
            }
            return Effects(audit=entries[:1], outcome=outcome)

        async def view(tx: Transaction, _now: datetime, outcome: Json) -> NewWorkspace:
            workspace_id = UUID(outcome["workspace_id"])
            workspace = await existing_workspace(tx, workspace_id)
            owner = await view_management_key(tx, workspace_id, UUID(outcome["owner_id"]))
            return NewWorkspace(workspace, owner, "")

        applied = await self._mutations.run(origin, work, view)
        made = replace(applied.value, secret="" if applied.replayed else secret)
        revision = replace(applied.revision, workspace_id=made.workspace.workspace_id, number=FIRST_REVISION)
        return MutationResult(made, revision, applied.replayed)

    async def get(self, caller: Caller, workspace_id: UUID | None) -> Workspace:
        """Return the caller's own workspace, or any for a root OWNER; raises WorkspaceNotFound."""
        wanted = workspace_id or caller.workspace_id
        _require_visible(caller, wanted)

        async def work(tx: Transaction) -> Workspace:
            return await existing_workspace(tx, wanted)

        return await self._store.read(work)

    async def list(self, caller: Caller, size: int, cursor: str | None) -> Page[Workspace]:
        """Return all workspaces newest first; raises RoleTooLow unless the caller is a root OWNER."""
        require_root_owner(caller)

        async def work(tx: Transaction) -> Page[Workspace]:
            found = await tx.workspaces.page(id_cursor(cursor), size + 1)
            return cut(found, size, lambda workspace: str(workspace.workspace_id))

        return await self._store.read(work)

    async def update(
        self, origin: Origin, workspace_id: UUID | None, edit: WorkspaceEdit, etag: str = ""
    ) -> MutationResult[Workspace]:
        """Change name and settings of the caller's own workspace, or ``enabled`` of any as a root OWNER.

        Raises WorkspaceNotFound, EtagMismatch, InvalidField, RoleTooLow, ApiBinding and RootWorkspace.
        """
        caller = origin.caller
        target = workspace_id or caller.workspace_id
        _require_visible(caller, target)
        require_unbound(caller)

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            before = await existing_workspace(tx, target)
            check_etag(etag, before.revision)
            after = replace(_edited(caller, before, edit), update_time=now, revision=revision)
            await tx.workspaces.update(after)
            entry = AuditEntry(
                "workspace.update", ids.format_id(ids.WORKSPACE, target), snapshot(before), snapshot(after)
            )
            if target != caller.workspace_id:
                await tx.audit.append(audit_events(origin, (entry,), caller.workspace_id, now))
            change = Change(ChangeKind.WORKSPACE_CHANGED, target)
            return Effects((change,), (entry,), {"workspace_id": str(target)})

        async def view(tx: Transaction, _now: datetime, outcome: Json) -> Workspace:
            return await existing_workspace(tx, UUID(outcome["workspace_id"]))

        return await self._mutations.run(origin, work, view, workspace_id=target, while_disabled=caller.root_owner)

    async def _make(
        self, tx: Transaction, fields: WorkspaceFields, secret: str, now: datetime, *, root: bool = False
    ) -> tuple[Workspace, ManagementKey]:
        workspace_id = ids.new_id()
        api = new_api(workspace_id, DEFAULT_NAME, now, FIRST_REVISION, is_default=True)
        workspace = Workspace(
            workspace_id=workspace_id,
            name=fields.name,
            enabled=fields.enabled,
            root=root,
            default_api_id=api.api_id,
            settings=fields.settings,
            create_time=now,
            update_time=now,
            revision=FIRST_REVISION,
        )
        wanted = ManagementKeyFields(name="first owner", role=Role.OWNER)
        owner = new_management_key(workspace_id, wanted, now, FIRST_REVISION)
        await tx.workspaces.insert(workspace)
        await tx.apis.insert(api)
        await tx.management_keys.insert(owner)
        await tx.secrets.claim([management_secret(owner, secret, self._peppers, now)])
        change = Change(ChangeKind.WORKSPACE_CHANGED, workspace_id)
        await tx.workspaces.append_changes(workspace_id, FIRST_REVISION - 1, [change], now)
        return workspace, owner


FIRST_REVISION = 1
"""The revision of a new workspace: its own creation."""


def _made_entries(workspace: Workspace, owner: ManagementKey) -> tuple[AuditEntry, ...]:
    workspace_id = ids.format_id(ids.WORKSPACE, workspace.workspace_id)
    owner_id = ids.format_id(ids.MANAGEMENT_KEY, owner.management_key_id)
    return (
        AuditEntry("workspace.create", workspace_id, after=snapshot(workspace)),
        AuditEntry("management_key.create", owner_id, after=snapshot(owner)),
    )


def _edited(caller: Caller, before: Workspace, edit: WorkspaceEdit) -> Workspace:
    found = Violations("workspace")
    fields = edit(WorkspaceFields(before.name, before.enabled, before.settings), found)
    _check(fields, found)
    _require_may_change(caller, before, fields)
    return replace(before, name=fields.name, enabled=fields.enabled, settings=fields.settings)


def _check(fields: WorkspaceFields, found: Violations) -> None:
    check_text(found, "name", fields.name, NAME_MAX)
    settings = fields.settings
    if settings.default_prefix:
        check_prefix(found, "settings.default_prefix", settings.default_prefix)
    if not timedelta(0) <= settings.max_cacheable_for <= CACHEABLE_MAX:
        found.add("settings.max_cacheable_for", "must be 0 to 1 hour")
    found.check()


def _require_visible(caller: Caller, workspace_id: UUID) -> None:
    if workspace_id != caller.workspace_id and not caller.root_owner:
        raise errors.WorkspaceNotFound(ids.format_id(ids.WORKSPACE, workspace_id))


def _require_may_change(caller: Caller, before: Workspace, fields: WorkspaceFields) -> None:
    if fields.enabled != before.enabled:
        require_root_owner(caller)
        if before.root:
            raise errors.RootWorkspace("The root workspace can't be disabled.")
    own = before.workspace_id == caller.workspace_id
    if not own and (fields.name != before.name or fields.settings != before.settings):
        raise errors.RoleTooLow("OWNER of the root workspace", "ADMIN of that workspace")


async def existing_workspace(tx: Transaction, workspace_id: UUID) -> Workspace:
    """Return a workspace as it is now; raises WorkspaceNotFound."""
    workspace = await tx.workspaces.get(workspace_id)
    if workspace is None:
        raise errors.WorkspaceNotFound(ids.format_id(ids.WORKSPACE, workspace_id))
    return workspace
