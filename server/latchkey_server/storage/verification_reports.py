"""Which reports of client caches were taken, and the uses of keys that they tell."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from latchkey_server.storage.database import Connection


class VerificationReportRepository:
    """Reports of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def advance(self, workspace_id: UUID, client_id: str, sequence: int, now: datetime) -> bool:
        advanced = await self._connection.fetchval(
            "INSERT INTO verification_report AS r (workspace_id, client_id, sequence, report_time) "
            "VALUES ($1, $2, $3, $4) ON CONFLICT (workspace_id, client_id) DO UPDATE "
            "SET sequence = excluded.sequence, report_time = excluded.report_time "
            "WHERE r.sequence < excluded.sequence RETURNING true",
            workspace_id,
            client_id,
            sequence,
            now,
        )
        return bool(advanced)

    async def used(self, workspace_id: UUID, api_ids: frozenset[UUID], used: Mapping[UUID, datetime]) -> None:
        ordered = sorted(used.items())
        await self._connection.execute(
            "INSERT INTO key_last_used AS u (workspace_id, key_id, last_used_time) "
            "SELECT $1, k.key_id, t.used FROM unnest($2::uuid[], $3::timestamptz[]) AS t(key_id, used) "
            "JOIN key k ON k.workspace_id = $1 AND k.key_id = t.key_id "
            "WHERE cardinality($4::uuid[]) = 0 OR k.api_id = ANY($4) ORDER BY k.key_id "
            "ON CONFLICT (workspace_id, key_id) DO UPDATE SET last_used_time = excluded.last_used_time "
            "WHERE u.last_used_time < excluded.last_used_time",
            workspace_id,
            [key_id for key_id, _ in ordered],
            [moment for _, moment in ordered],
            list(api_ids),
        )
