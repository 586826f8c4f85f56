"""The keys that a report is grouped by, as it shows them."""

from collections.abc import Collection
from uuid import UUID

from latchkey_server.domain.reporting.request import ReportKey
from latchkey_server.storage.database import Connection


async def reported_keys(connection: Connection, workspace_id: UUID, key_ids: Collection[UUID]) -> dict[UUID, ReportKey]:
    """Return keys as reports show them, deleted ones included."""
    if not key_ids:
        return {}
    found = await connection.fetch(
        "SELECT key_id, name, delete_time IS NOT NULL AS deleted, revoke_time IS NOT NULL AS revoked "
        "FROM key WHERE workspace_id = $1 AND key_id = ANY($2)",
        workspace_id,
        list(key_ids),
    )
    return {row["key_id"]: ReportKey(**row) for row in found}
