"""Management keys."""

from uuid import UUID

from latchkey_server.domain.model import ManagementKey, Role
from latchkey_server.domain.turns import in_slices
from latchkey_server.storage.database import Connection, Row
from latchkey_server.storage.rows import revocation_of

MANAGEMENT_KEY_COLUMNS = (
    "workspace_id, management_key_id, name, role, member, api_ids, all_workspaces, expire_time, revoke_reason, "
    "revoke_note, revoke_time, create_time, update_time, revision"
)


class PostgresManagementKeys:
    """Management keys of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, workspace_id: UUID, management_key_id: UUID) -> ManagementKey | None:
        row = await self._connection.fetchrow(
            f"SELECT {MANAGEMENT_KEY_COLUMNS} FROM management_key WHERE workspace_id = $1 AND management_key_id = $2",
            workspace_id,
            management_key_id,
        )
        return management_key_of(row) if row else None

    async def page(
        self, workspace_id: UUID, show_revoked: bool, before: UUID | None, limit: int
    ) -> list[ManagementKey]:
        rows = await self._connection.fetch(
            f"SELECT {MANAGEMENT_KEY_COLUMNS} FROM management_key WHERE workspace_id = $1 "
            "AND ($2::uuid IS NULL OR management_key_id < $2) AND ($3 OR revoke_time IS NULL) "
            "ORDER BY management_key_id DESC LIMIT $4",
            workspace_id,
            before,
            show_revoked,
            limit,
        )
        return await in_slices(management_key_of, rows)

    async def insert(self, management_key: ManagementKey) -> None:
        revoked = management_key.revocation
        await self._connection.execute(
            f"INSERT INTO management_key ({MANAGEMENT_KEY_COLUMNS}) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            management_key.workspace_id,
            management_key.management_key_id,
            management_key.name,
            int(management_key.role),
            management_key.member,
            sorted(management_key.api_ids),
            management_key.all_workspaces,
            management_key.expire_time,
            int(revoked.reason) if revoked else None,
            revoked.note if revoked else "",
            revoked.revoke_time if revoked else None,
            management_key.create_time,
            management_key.update_time,
            management_key.revision,
        )

    async def update(self, management_key: ManagementKey) -> None:
        revoked = management_key.revocation
        await self._connection.execute(
            "UPDATE management_key SET name = $3, role = $4, member = $5, api_ids = $6, expire_time = $7, "
            "revoke_reason = $8, revoke_note = $9, revoke_time = $10, update_time = $11, revision = $12 "
            "WHERE workspace_id = $1 AND management_key_id = $2",
            management_key.workspace_id,
            management_key.management_key_id,
            management_key.name,
            int(management_key.role),
            management_key.member,
            sorted(management_key.api_ids),
            management_key.expire_time,
            int(revoked.reason) if revoked else None,
            revoked.note if revoked else "",
            revoked.revoke_time if revoked else None,
            management_key.update_time,
            management_key.revision,
        )

    async def other_lasting_owner_exists(self, workspace_id: UUID, management_key_id: UUID) -> bool:
        found = await self._connection.fetchval(
            "SELECT EXISTS (SELECT FROM management_key WHERE workspace_id = $1 AND management_key_id <> $2 "
            "AND role = $3 AND revoke_time IS NULL AND api_ids = '{}' AND expire_time IS NULL)",
            workspace_id,
            management_key_id,
            int(Role.OWNER),
        )
        return bool(found)


def management_key_of(row: Row) -> ManagementKey:
    """Return the management key in a row."""
    return ManagementKey(
        workspace_id=row["workspace_id"],
        management_key_id=row["management_key_id"],
        name=row["name"],
        role=Role(row["role"]),
        member=row["member"],
        api_ids=frozenset(row["api_ids"]),
        all_workspaces=row["all_workspaces"],
        expire_time=row["expire_time"],
        revocation=revocation_of(row),
        create_time=row["create_time"],
        update_time=row["update_time"],
        revision=row["revision"],
    )
