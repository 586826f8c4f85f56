"""Tenants, the counter of their changes, and the changes."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from latchkey_server.domain.errors import WorkspaceNotFound
from latchkey_server.domain.ids import WORKSPACE, format_id
from latchkey_server.domain.model import Change, ChangeKind, Workspace, WorkspaceSettings
from latchkey_server.domain.turns import in_slices
from latchkey_server.storage.channel import notify
from latchkey_server.storage.database import Connection, Row

# Only the first start of a service takes it: never a tenant's request.
_BOOTSTRAP_LOCK = 0x6C6B_626F_6F74

_COLUMNS = (
    "workspace_id, name, enabled, root, default_api_id, default_prefix, max_cacheable_for, create_time, "
    "update_time, revision"
)


class PostgresWorkspaces:
    """Workspaces of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, workspace_id: UUID) -> Workspace | None:
        row = await self._connection.fetchrow(f"SELECT {_COLUMNS} FROM workspace WHERE workspace_id = $1", workspace_id)
        return _workspace_of(row) if row else None

    async def page(self, before: UUID | None, limit: int) -> list[Workspace]:
        rows = await self._connection.fetch(
            f"SELECT {_COLUMNS} FROM workspace WHERE $1::uuid IS NULL OR workspace_id < $1 "
            "ORDER BY workspace_id DESC LIMIT $2",
            before,
            limit,
        )
        return await in_slices(_workspace_of, rows)

    async def insert(self, workspace: Workspace) -> None:
        settings = workspace.settings
        await self._connection.execute(
            f"INSERT INTO workspace ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            workspace.workspace_id,
            workspace.name,
            workspace.enabled,
            workspace.root,
            workspace.default_api_id,
            settings.default_prefix,
            settings.max_cacheable_for,
            workspace.create_time,
            workspace.update_time,
            workspace.revision,
        )
        await self._connection.execute(
            "INSERT INTO workspace_revision (workspace_id, revision) VALUES ($1, 0)", workspace.workspace_id
        )

    async def update(self, workspace: Workspace) -> None:
        settings = workspace.settings
        await self._connection.execute(
            "UPDATE workspace SET name = $2, enabled = $3, default_prefix = $4, max_cacheable_for = $5, "
            "update_time = $6, revision = $7 WHERE workspace_id = $1",
            workspace.workspace_id,
            workspace.name,
            workspace.enabled,
            settings.default_prefix,
            settings.max_cacheable_for,
            workspace.update_time,
            workspace.revision,
        )

    async def lock_bootstrap(self) -> None:
        await self._connection.execute("SELECT pg_advisory_xact_lock($1)", _BOOTSTRAP_LOCK)

    async def lock_revision(self, workspace_id: UUID) -> int:
        revision = await self._connection.fetchval(
            "SELECT revision FROM workspace_revision WHERE workspace_id = $1 FOR UPDATE", workspace_id
        )
        if revision is None:
            raise WorkspaceNotFound(format_id(WORKSPACE, workspace_id))
        return int(revision)

    async def append_changes(self, workspace_id: UUID, after: int, changes: Sequence[Change], now: datetime) -> None:
        if not changes:
            return
        await self._connection.execute(
            "INSERT INTO change (workspace_id, revision, kind, target_id, create_time) "
            "SELECT $1, $2 + c.at, c.kind, c.target_id, $5 "
            "FROM unnest($3::smallint[], $4::uuid[]) WITH ORDINALITY AS c(kind, target_id, at)",
            workspace_id,
            after,
            [int(change.kind) for change in changes],
            [change.target_id for change in changes],
            now,
        )
        await self._connection.execute(
            "UPDATE workspace_revision SET revision = $2 WHERE workspace_id = $1",
            workspace_id,
            after + len(changes),
        )
        added = any(change.kind is ChangeKind.SECRET_ADDED for change in changes)
        await notify(self._connection, workspace_id, secret_added=added)


def _workspace_of(row: Row) -> Workspace:
    return Workspace(
        workspace_id=row["workspace_id"],
        name=row["name"],
        enabled=row["enabled"],
        root=row["root"],
        default_api_id=row["default_api_id"],
        settings=WorkspaceSettings(row["default_prefix"], row["max_cacheable_for"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
        revision=row["revision"],
    )
