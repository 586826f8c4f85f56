"""Secrets: the one global table of hashes, and what each workspace stores of its own."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from latchkey_server.domain.model import Holder, Secret
from latchkey_server.storage.database import Connection, Row, read_rows

_COLUMNS = "workspace_id, holder_id, secret_id, holder, hash, pepper_id, mask, create_time, end_time, ended"

_NOBODY = UUID(int=0)


class PostgresSecrets:
    """Secrets of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def find(self, hashes: Sequence[bytes]) -> Secret | None:
        found = await self._connection.fetchrow(
            "SELECT workspace_id, holder_id, secret_id FROM secret_hash WHERE hash = ANY($1::bytea[])",
            list(hashes),
        )
        if found is None:
            return None
        row = await self._connection.fetchrow(
            f"SELECT {_COLUMNS} FROM secret WHERE workspace_id = $1 AND holder_id = $2 AND secret_id = $3",
            found["workspace_id"],
            found["holder_id"],
            found["secret_id"],
        )
        return _secret_of(row) if row else None

    async def claim(self, secrets: Sequence[Secret]) -> set[bytes]:
        # Sorted, so that two imports with common hashes wait for each other in one order.
        ordered = sorted(secrets, key=lambda secret: secret.hash)
        rows = await self._connection.fetch(
            "INSERT INTO secret_hash (hash, workspace_id, holder, holder_id, secret_id) "
            "SELECT * FROM unnest($1::bytea[], $2::uuid[], $3::smallint[], $4::uuid[], $5::uuid[]) "
            "ON CONFLICT (hash) DO NOTHING RETURNING hash",
            [secret.hash for secret in ordered],
            [secret.workspace_id for secret in ordered],
            [int(secret.holder) for secret in ordered],
            [secret.holder_id for secret in ordered],
            [secret.secret_id for secret in ordered],
        )
        claimed = {row["hash"] for row in rows}
        await self._connection.executemany(
            f"INSERT INTO secret ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            [_values(secret) for secret in ordered if secret.hash in claimed],
        )
        return claimed

    async def hold(self, hashes: Sequence[bytes]) -> set[bytes]:
        # Sorted, as in claim. A row inserted and removed still makes others wait until this transaction ends.
        rows = await self._connection.fetch(
            "INSERT INTO secret_hash (hash, workspace_id, holder, holder_id, secret_id) "
            "SELECT hash, $2, 0, $2, $2 FROM unnest($1::bytea[]) AS h(hash) "
            "ON CONFLICT (hash) DO NOTHING RETURNING hash",
            sorted(hashes),
            _NOBODY,
        )
        held = [row["hash"] for row in rows]
        await self._connection.execute("DELETE FROM secret_hash WHERE hash = ANY($1::bytea[])", held)
        return set(held)

    async def of(self, workspace_id: UUID, holder_ids: Sequence[UUID]) -> Mapping[UUID, tuple[Secret, ...]]:
        secrets = await read_rows(
            self._connection,
            _secret_of,
            f"SELECT {_COLUMNS} FROM secret WHERE workspace_id = $1 AND holder_id = ANY($2) ORDER BY secret_id DESC",
            workspace_id,
            list(holder_ids),
        )
        found: dict[UUID, list[Secret]] = {}
        for secret in secrets:
            found.setdefault(secret.holder_id, []).append(secret)
        return {holder_id: tuple(held) for holder_id, held in found.items()}

    async def end(self, workspace_id: UUID, holder_id: UUID, end_time: datetime, at_once: bool) -> None:
        await self._connection.execute(
            "UPDATE secret SET end_time = least(end_time, $3), ended = ended OR $4 "
            "WHERE workspace_id = $1 AND holder_id = $2",
            workspace_id,
            holder_id,
            end_time,
            at_once,
        )


def _values(secret: Secret) -> tuple[object, ...]:
    return (
        secret.workspace_id,
        secret.holder_id,
        secret.secret_id,
        int(secret.holder),
        secret.hash,
        secret.pepper_id,
        secret.mask,
        secret.create_time,
        secret.end_time,
        secret.ended,
    )


def _secret_of(row: Row) -> Secret:
    return Secret(**{**row, "holder": Holder(row["holder"])})
