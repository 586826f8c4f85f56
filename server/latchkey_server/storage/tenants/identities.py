"""Identities."""

from uuid import UUID

from latchkey_server.domain.model import Identity
from latchkey_server.domain.ratelimit_json import ratelimits_json, ratelimits_of
from latchkey_server.domain.turns import in_slices
from latchkey_server.storage.database import Connection, Row

_COLUMNS = "workspace_id, identity_id, external_id, metadata, ratelimits, create_time, update_time, revision"


class PostgresIdentities:
    """Identities of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, workspace_id: UUID, identity_id: UUID) -> Identity | None:
        row = await self._connection.fetchrow(
            f"SELECT {_COLUMNS} FROM identity WHERE workspace_id = $1 AND identity_id = $2",
            workspace_id,
            identity_id,
        )
        return _identity_of(row) if row else None

    async def by_external_id(self, workspace_id: UUID, external_id: str) -> Identity | None:
        row = await self._connection.fetchrow(
            f"SELECT {_COLUMNS} FROM identity WHERE workspace_id = $1 AND external_id = $2",
            workspace_id,
            external_id,
        )
        return _identity_of(row) if row else None

    async def page(self, workspace_id: UUID, before: UUID | None, limit: int) -> list[Identity]:
        rows = await self._connection.fetch(
            f"SELECT {_COLUMNS} FROM identity WHERE workspace_id = $1 "
            "AND ($2::uuid IS NULL OR identity_id < $2) ORDER BY identity_id DESC LIMIT $3",
            workspace_id,
            before,
            limit,
        )
        return await in_slices(_identity_of, rows)

    async def insert(self, identity: Identity) -> None:
        await self._connection.execute(
            f"INSERT INTO identity ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            identity.workspace_id,
            identity.identity_id,
            identity.external_id,
            identity.metadata,
            ratelimits_json(identity.ratelimits),
            identity.create_time,
            identity.update_time,
            identity.revision,
        )

    async def update(self, identity: Identity) -> None:
        await self._connection.execute(
            "UPDATE identity SET metadata = $3, ratelimits = $4, update_time = $5, revision = $6 "
            "WHERE workspace_id = $1 AND identity_id = $2",
            identity.workspace_id,
            identity.identity_id,
            identity.metadata,
            ratelimits_json(identity.ratelimits),
            identity.update_time,
            identity.revision,
        )

    async def has_keys(self, workspace_id: UUID, identity_id: UUID) -> bool:
        found = await self._connection.fetchval(
            "SELECT EXISTS (SELECT FROM key WHERE workspace_id = $1 AND identity_id = $2)",
            workspace_id,
            identity_id,
        )
        return bool(found)

    async def delete(self, workspace_id: UUID, identity_id: UUID) -> None:
        await self._connection.execute(
            "DELETE FROM identity WHERE workspace_id = $1 AND identity_id = $2", workspace_id, identity_id
        )


def _identity_of(row: Row) -> Identity:
    return Identity(
        workspace_id=row["workspace_id"],
        identity_id=row["identity_id"],
        external_id=row["external_id"],
        metadata=row["metadata"],
        ratelimits=ratelimits_of(row["ratelimits"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
        revision=row["revision"],
    )
