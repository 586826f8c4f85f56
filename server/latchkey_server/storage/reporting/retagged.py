"""Retagged keys, whose label is not the attributed one any more: reports by label correct for them."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from latchkey_server.storage.database import Connection
from latchkey_server.storage.sql import Conditions


class Retagged(NamedTuple):
    """A key, its current label, its attributed label, and its api."""

    key_id: UUID
    environment: str
    attributed_environment: str
    api_id: UUID


async def retagged_keys(connection: Connection, workspace_id: UUID) -> list[Retagged]:
    """Return the retagged keys of a workspace, in the snapshot of the open transaction."""
    rows = await connection.fetch(
        "SELECT key_id, environment, attributed_environment, api_id FROM key "
        "WHERE workspace_id = $1 AND environment <> attributed_environment",
        workspace_id,
    )
    return [Retagged(*row) for row in rows]


def moved_keys(where: Conditions, keys: Sequence[Retagged]) -> str:
    """Return a common table expression ``moved`` of keys.

    The keys are bound, not looked up again, so that a statement is planned for their number: a planner that expects
    few of them sorts a hundred thousand rows to sum them up.
    """
    columns = map(list, zip(*keys, strict=True))
    key_ids, environments, attributed, api_ids = (where.bind(column) for column in columns)
    return (
        f"moved AS MATERIALIZED (SELECT * FROM unnest({key_ids}::uuid[], {environments}::text[], "
        f"{attributed}::text[], {api_ids}::uuid[]) AS k(key_id, environment, attributed_environment, api_id))"
    )
