"""What verifications and callers need of the database: two single-shard look-ups, never a fan-out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from latchkey_server.domain.access.credentials import Credential
from latchkey_server.domain.freshness import History, Instant
from latchkey_server.domain.limits.credits import credit_state
from latchkey_server.domain.limits.spend import spend_state, spend_window
from latchkey_server.domain.model import Balance, Holder, Identity, Key
from latchkey_server.domain.ratelimit_json import ratelimits_of
from latchkey_server.domain.secret import Peppers
from latchkey_server.domain.store import Clock
from latchkey_server.domain.verify.model import Record
from latchkey_server.storage.database import Connection, Database, Row
from latchkey_server.storage.keys.columns import KEY_COLUMNS, key_of
from latchkey_server.storage.keys.keys import PostgresKeys
from latchkey_server.storage.tenants.management_keys import MANAGEMENT_KEY_COLUMNS, management_key_of

HistoryOf = Callable[[UUID, int, Instant], History]
"""Gives the history of a workspace, of which a revision was just read at an instant."""


# One statement is one snapshot: the key and its workspace's revision belong together. Columns are named, so that a
# prepared statement outlives a migration that adds some.
_SELECT_RECORDS = f"""
    SELECT {", ".join(f"k.{column.name}" for column in KEY_COLUMNS if column.name != "metadata")},
        k.metadata::text AS metadata,
        i.external_id, i.metadata::text AS identity_metadata, i.ratelimits AS identity_ratelimits,
        i.create_time AS identity_create_time, i.update_time AS identity_update_time,
        i.revision AS identity_revision, w.enabled AS workspace_enabled, w.max_cacheable_for,
        r.revision AS workspace_revision, s.secret_id, s.end_time AS secret_end_time,
        s.ended AS secret_ended, b.remaining, b.settled_time
    FROM unnest($2::uuid[], $3::uuid[]) AS asked(key_id, secret_id)
    JOIN key k ON k.workspace_id = $1 AND k.key_id = asked.key_id
    JOIN secret s ON s.workspace_id = $1 AND s.holder_id = asked.key_id AND s.secret_id = asked.secret_id
    JOIN workspace w ON w.workspace_id = $1
    JOIN workspace_revision r ON r.workspace_id = $1
    LEFT JOIN identity i ON i.workspace_id = $1 AND i.identity_id = k.identity_id
    LEFT JOIN credit_balance b ON b.workspace_id = $1 AND b.key_id = k.key_id
"""

_SELECT_CREDENTIALS = f"""
    SELECT {", ".join("m." + column for column in MANAGEMENT_KEY_COLUMNS.split(", "))},
        w.root, r.revision AS workspace_revision, s.secret_id, s.end_time AS secret_end_time, s.ended AS secret_ended
    FROM unnest($2::uuid[], $3::uuid[]) AS asked(management_key_id, secret_id)
    JOIN management_key m ON m.workspace_id = $1 AND m.management_key_id = asked.management_key_id
    JOIN secret s ON s.workspace_id = $1 AND s.holder_id = m.management_key_id AND s.secret_id = asked.secret_id
    JOIN workspace w ON w.workspace_id = $1
    JOIN workspace_revision r ON r.workspace_id = $1
"""


@dataclass(frozen=True, slots=True)
class _Found:
    sha256: bytes
    holder_id: UUID
    secret_id: UUID


class DatabaseRecords:
    """Reads records and credentials, many at a time."""

    def __init__(
        self,
        database: Database,
        peppers: Peppers,
        clock: Clock,
        instant: Callable[[], Instant],
        history_of: HistoryOf,
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._clock = clock
        self._instant = instant
        self._history_of = history_of

    async def records(self, sha256s: Sequence[bytes]) -> dict[bytes, Record]:
        """Return the records of secrets, the unknown ones left out; raises DatabaseUnavailable."""
        async with self._database.connection() as connection:
            read_at = self._instant()
            records: dict[bytes, Record] = {}
            for workspace_id, found in (await self._find(connection, sha256s, Holder.KEY)).items():
                records |= await self._workspace_records(connection, workspace_id, found, read_at)
            return records

    async def credentials(self, sha256s: Sequence[bytes]) -> dict[bytes, Credential]:
        """Return the credentials of management secrets, the unknown ones left out; raises DatabaseUnavailable."""
        async with self._database.connection() as connection:
            read_at = self._instant()
            credentials: dict[bytes, Credential] = {}
            for workspace_id, found in (await self._find(connection, sha256s, Holder.MANAGEMENT_KEY)).items():
                credentials |= await self._workspace_credentials(connection, workspace_id, found, read_at)
            return credentials

    async def revision(self, workspace_id: UUID) -> int:
        """Return the revision that a workspace has now, 0 for an unknown one; raises DatabaseUnavailable."""
        async with self._database.connection() as connection:
            revision = await connection.fetchval(
                "SELECT revision FROM workspace_revision WHERE workspace_id = $1", workspace_id
            )
            return revision or 0

    async def _find(
        self, connection: Connection, sha256s: Sequence[bytes], holder: Holder
    ) -> Mapping[UUID, Sequence[_Found]]:
        """Return the holders of secrets, by workspace; the only statement over several workspaces."""
        asked = {candidate: sha256 for sha256 in sha256s for candidate in self._peppers.candidates(sha256)}
        rows = await connection.fetch(
            "SELECT hash, workspace_id, holder_id, secret_id FROM secret_hash "
            "WHERE hash = ANY($1::bytea[]) AND holder = $2",
            list(asked),
            int(holder),
        )
        found: dict[UUID, list[_Found]] = {}
        for row in rows:
            item = _Found(asked[row["hash"]], row["holder_id"], row["secret_id"])
            found.setdefault(row["workspace_id"], []).append(item)
        return found

    async def _workspace_records(
        self, connection: Connection, workspace_id: UUID, found: Sequence[_Found], read_at: Instant
    ) -> dict[bytes, Record]:
        rows = await _fetch(connection, _SELECT_RECORDS, workspace_id, found)
        if not rows:
            return {}
        now = self._clock()
        keys = {row["key_id"]: key_of(row, with_metadata=False) for row in rows}
        spent = await _spent(connection, workspace_id, keys, now)
        history = self._history_of(workspace_id, rows[0]["workspace_revision"], read_at)
        sha256s = {item.secret_id: item.sha256 for item in found}
        return {
            sha256s[row["secret_id"]]: _record_of(
                row, keys[row["key_id"]], spent.get(row["key_id"], 0), now, read_at, history
            )
            for row in rows
        }

    async def _workspace_credentials(
        self, connection: Connection, workspace_id: UUID, found: Sequence[_Found], read_at: Instant
    ) -> dict[bytes, Credential]:
        rows = await _fetch(connection, _SELECT_CREDENTIALS, workspace_id, found)
        sha256s = {item.secret_id: item.sha256 for item in found}
        return {
            sha256s[row["secret_id"]]: Credential(
                management_key=management_key_of(row),
                root=row["root"],
                secret_end_time=row["secret_end_time"],
                secret_ended=row["secret_ended"],
                revision=row["workspace_revision"],
                read_at=read_at,
                history=self._history_of(workspace_id, row["workspace_revision"], read_at),
            )
            for row in rows
        }


async def _fetch(connection: Connection, statement: str, workspace_id: UUID, found: Sequence[_Found]) -> list[Row]:
    return await connection.fetch(
        statement, workspace_id, [item.holder_id for item in found], [item.secret_id for item in found]
    )


async def _spent(
    connection: Connection, workspace_id: UUID, keys: Mapping[UUID, Key], now: datetime
) -> Mapping[UUID, int]:
    """Return the net spend of the keys that have a cap; read after the keys, for it may only have grown since."""
    since = {
        key.key_id: spend_window(key.fields.spend_limit.reset_interval, now)[0]
        for key in keys.values()
        if key.fields.spend_limit
    }
    return await PostgresKeys(connection).net_spend(workspace_id, since) if since else {}


def _record_of(row: Row, key: Key, spent: int, now: datetime, read_at: Instant, history: History) -> Record:
    balance = Balance(row["remaining"], row["settled_time"]) if row["settled_time"] else None
    return Record(
        key=key,
        secret_id=row["secret_id"],
        secret_end_time=row["secret_end_time"],
        secret_ended=row["secret_ended"],
        identity=_identity_of(row),
        workspace_enabled=row["workspace_enabled"],
        max_cacheable_for=row["max_cacheable_for"],
        credits=credit_state(key.fields.credits, balance, now),
        spend=spend_state(key.fields.spend_limit, spent, now),
        revision=row["workspace_revision"],
        read_at=read_at,
        history=history,
        metadata=row["metadata"],
        identity_metadata=row["identity_metadata"] or "{}",
    )


def _identity_of(row: Row) -> Identity | None:
    if row["identity_id"] is None:
        return None
    return Identity(
        workspace_id=row["workspace_id"],
        identity_id=row["identity_id"],
        external_id=row["external_id"],
        metadata={},
        ratelimits=ratelimits_of(row["identity_ratelimits"]),
        create_time=row["identity_create_time"],
        update_time=row["identity_update_time"],
        revision=row["identity_revision"],
    )
