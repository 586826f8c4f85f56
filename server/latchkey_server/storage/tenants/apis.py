"""Apis."""

from uuid import UUID

from latchkey_server.domain.model import Api
from latchkey_server.storage.database import Connection, Row
from latchkey_server.storage.sql import Conditions

_COLUMNS = "workspace_id, api_id, name, is_default, create_time, update_time, revision"


class PostgresApis:
    """Apis of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, workspace_id: UUID, api_id: UUID) -> Api | None:
        row = await self._connection.fetchrow(
            f"SELECT {_COLUMNS} FROM api WHERE workspace_id = $1 AND api_id = $2", workspace_id, api_id
        )
        return _api_of(row) if row else None

    async def page(self, workspace_id: UUID, api_ids: frozenset[UUID], before: UUID | None, limit: int) -> list[Api]:
        where = Conditions("workspace_id = $1", workspace_id)
        where.add_if(bool(api_ids), "api_id = ANY(?)", list(api_ids))
        where.add_if(before is not None, "api_id < ?", before)
        rows = await self._connection.fetch(
            f"SELECT {_COLUMNS} FROM api WHERE {where.text} ORDER BY api_id DESC LIMIT {where.bind(limit)}",
            *where.arguments,
        )
        return [_api_of(row) for row in rows]

    async def insert(self, api: Api) -> None:
        await self._connection.execute(
            f"INSERT INTO api ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            api.workspace_id,
            api.api_id,
            api.name,
            api.is_default,
            api.create_time,
            api.update_time,
            api.revision,
        )

    async def update(self, api: Api) -> None:
        await self._connection.execute(
            "UPDATE api SET name = $3, update_time = $4, revision = $5 WHERE workspace_id = $1 AND api_id = $2",
            api.workspace_id,
            api.api_id,
            api.name,
            api.update_time,
            api.revision,
        )

    async def has_keys(self, workspace_id: UUID, api_id: UUID) -> bool:
        found = await self._connection.fetchval(
            "SELECT EXISTS (SELECT FROM key WHERE workspace_id = $1 AND api_id = $2)", workspace_id, api_id
        )
        return bool(found)

    async def delete(self, workspace_id: UUID, api_id: UUID) -> None:
        await self._connection.execute("DELETE FROM api WHERE workspace_id = $1 AND api_id = $2", workspace_id, api_id)


def _api_of(row: Row) -> Api:
    return Api(
        workspace_id=row["workspace_id"],
        api_id=row["api_id"],
        name=row["name"],
        is_default=row["is_default"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        revision=row["revision"],
    )
