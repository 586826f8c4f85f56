"""Answered request_ids."""

from datetime import datetime

from latchkey_server.domain.store import AnsweredRequest, RequestKey
from latchkey_server.storage.database import Connection


class PostgresRequests:
    """Answered requests of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def find(self, key: RequestKey, since: datetime) -> AnsweredRequest | None:
        row = await self._connection.fetchrow(
            "SELECT content_hash, outcome FROM answered_request WHERE workspace_id = $1 AND caller_id = $2 "
            "AND method = $3 AND request_id = $4 AND create_time > $5",
            key.workspace_id,
            key.caller_id,
            key.method,
            key.request_id,
            since,
        )
        return AnsweredRequest(row["content_hash"], row["outcome"]) if row else None

    async def record(self, key: RequestKey, answered: AnsweredRequest, since: datetime, now: datetime) -> bool:
        recorded = await self._connection.fetchval(
            "INSERT INTO answered_request AS r (workspace_id, caller_id, method, request_id, content_hash, outcome, "
            "create_time) VALUES ($1, $2, $3, $4, $5, $6, $7) "
            "ON CONFLICT (workspace_id, caller_id, method, request_id) DO UPDATE "
            "SET content_hash = excluded.content_hash, outcome = excluded.outcome, create_time = excluded.create_time "
            "WHERE r.create_time <= $8 RETURNING true",
            key.workspace_id,
            key.caller_id,
            key.method,
            key.request_id,
            answered.content_hash,
            answered.outcome,
            now,
            since,
        )
        return bool(recorded)
