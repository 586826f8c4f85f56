"""Migrations: numbered SQL files, each run once under one lock, in a transaction unless it says otherwise."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from itertools import takewhile
from typing import Final

import asyncpg

from latchkey_server.storage.database import Connection, Database
from latchkey_server.storage.schema.lock import schema_session, schema_transaction
from latchkey_server.storage.schema.lock_waits import LockWaits

# A server of the release before reads and writes these columns, so they stay; `checksum` is added to them.
_RECORD = (
    "CREATE TABLE IF NOT EXISTS schema_migration (number integer PRIMARY KEY, name text NOT NULL, "
    "breaking boolean NOT NULL, apply_time timestamptz NOT NULL DEFAULT now())"
)
_HAS_CHECKSUMS = (
    "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'schema_migration'::regclass AND attname = 'checksum')"
)
_PARTING = re.compile(r"^-- then$", re.MULTILINE)
_UNHURRIED: Final = 7 * 86_400.0
"""Seconds that a statement outside a transaction may take: an index over years takes hours, and blocks nobody."""


class MigrationError(Exception):
    """One line for the operator: why the schema can't be changed, and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. A ``breaking`` one is not for servers that don't know it (docs/decisions/0003)."""

    number: int
    name: str
    sql: str

    @property
    def breaking(self) -> bool:
        """Tell whether the file says so above its first statement."""
        return self._says("-- breaking")

    @property
    def outside(self) -> bool:
        """Tell whether the file says that it runs outside a transaction, above its first statement."""
        return self._says("-- outside a transaction")

    @property
    def statements(self) -> Sequence[str]:
        """What a file outside a transaction runs one by one: its parts between lines `-- then`."""
        return _PARTING.split(self.sql)

    @property
    def checksum(self) -> str:
        """Return the SHA-256 of the file, by which the database recognises it."""
        return sha256(self.sql.encode()).hexdigest()

    def _says(self, mark: str) -> bool:
        head = takewhile(lambda line: line.startswith("--"), self.sql.splitlines())
        return any(line.startswith(mark) for line in head)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a migration waits for locks of others.

    It waits ``lock_seconds`` at a time, with pauses between: whoever comes after it waits behind it, verifications too.
    """

    lock_seconds: float = 2.0
    pauses: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 16.0)


@cache
def migrations() -> Sequence[Migration]:
    """Return every migration that this server knows, in order."""
    files = sorted(
        (file for file in resources.files(__package__).joinpath("migrations").iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    return [Migration(int(file.name.partition("_")[0]), file.name, file.read_text(encoding="utf-8")) for file in files]


async def schema_trouble(connection: Connection, known: Sequence[Migration] | None = None) -> str | None:
    """Return why the schema is not the one that this server needs, in one line, or None."""
    known = migrations() if known is None else known
    applied = await _applied(connection)
    missing = [migration.name for migration in known if migration.number not in applied]
    if missing:
        return f"the database's schema is behind ({', '.join(missing)}): run latchkey-server migrate"
    breaking = await connection.fetchval(
        "SELECT max(number) FROM schema_migration WHERE breaking AND number > $1", known[-1].number
    )
    if breaking:
        return f"the database's schema is ahead of this server (migration {breaking}): run a newer server"
    return _changed(known, applied)


async def migrate(
    database: Database, known: Sequence[Migration] | None = None, patience: Patience = Patience()
) -> list[str]:
    """Run the migrations that are missing and return their names.

    Each is applied as a whole or not at all; one outside a transaction that was cut short begins again. Raises
    MigrationError if an applied one has been changed since, or if others hold their locks for too long; a second
    connection of the database finds out who they are (docs/decisions/0007).
    """
    known = migrations() if known is None else known
    async with database.connection() as connection:
        runner = _Runner(database, connection, patience)
        await runner.prepare(known)
        return [migration.name for migration in known if await runner.run(migration)]


class _Runner:
    """Runs migrations on one connection."""

    def __init__(self, database: Database, connection: Connection, patience: Patience) -> None:
        self._database = database
        self._connection = connection
        self._patience = patience

    async def prepare(self, known: Sequence[Migration]) -> None:
        """Record the checksums that are missing; raises MigrationError if a file has changed since it was applied."""
        await self._patiently("schema_migration", lambda: self._prepare(known))
        if changed := _changed(known, await _applied(self._connection)):
            raise MigrationError(changed)

    async def run(self, migration: Migration) -> bool:
        """Run a migration and tell whether it was missing."""
        attempt = self._outside if migration.outside else self._inside
        return await self._patiently(migration.name, lambda: attempt(migration))

    async def _patiently(self, what: str, attempt: Callable[[], Awaitable[bool]]) -> bool:
        waits = LockWaits(self._database, self._connection.get_server_pid(), what)
        async with waits.watched():
            for pause in (0.0, *self._patience.pauses):
                await asyncio.sleep(pause)
                try:
                    return await attempt()
                except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                    continue
        holders = waits.blockers or "other sessions"
        raise MigrationError(f"{what} needs a lock that {holders} did not let go: end them, or migrate again later")

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        async with schema_transaction(self._connection):
            await self._connection.execute(f"SET LOCAL lock_timeout = {self._patience.lock_seconds * 1000:.0f}")
            yield

    async def _prepare(self, known: Sequence[Migration]) -> bool:
        async with self._transaction():
            await self._connection.execute(_RECORD)
            if not await self._connection.fetchval(_HAS_CHECKSUMS):
                await self._connection.execute("ALTER TABLE schema_migration ADD COLUMN checksum text")
            # Files applied by a server that recorded no checksums are taken to be unchanged.
            await self._connection.executemany(
                "UPDATE schema_migration SET checksum = $2 WHERE number = $1 AND checksum IS NULL",
                [(migration.number, migration.checksum) for migration in known],
            )
        return True

    async def _inside(self, migration: Migration) -> bool:
        async with self._transaction():
            if migration.number in await _applied(self._connection):
                return False
            await self._connection.execute(migration.sql)
            await _remember(self._connection, migration)
        return True

    async def _outside(self, migration: Migration) -> bool:
        async with schema_session(self._connection):
            if migration.number in await _applied(self._connection):
                return False
            await self._connection.execute("SET statement_timeout = 0")
            try:
                for statement in migration.statements:
                    # What is built CONCURRENTLY blocks nobody while it waits for older transactions.
                    wait = 0 if "CONCURRENTLY" in statement else self._patience.lock_seconds * 1000
                    await self._connection.execute(f"SET lock_timeout = {wait:.0f}")
                    await self._connection.execute(statement, timeout=_UNHURRIED)
            finally:
                await self._connection.execute("RESET statement_timeout; RESET lock_timeout")
            await _remember(self._connection, migration)
        return True


async def _remember(connection: Connection, migration: Migration) -> None:
    await connection.execute(
        "INSERT INTO schema_migration (number, name, breaking, checksum) VALUES ($1, $2, $3, $4)",
        migration.number,
        migration.name,
        migration.breaking,
        migration.checksum,
    )


async def _applied(connection: Connection) -> Mapping[int, str | None]:
    """Return the checksum of every migration that was applied, None where none is recorded."""
    if await connection.fetchval("SELECT to_regclass('schema_migration')") is None:
        return {}
    # Through the row's JSON: the column is missing until a server that adds it has migrated.
    rows = await connection.fetch("SELECT number, to_jsonb(m) ->> 'checksum' AS checksum FROM schema_migration AS m")
    return {row["number"]: row["checksum"] for row in rows}


def _changed(known: Sequence[Migration], applied: Mapping[int, str | None]) -> str | None:
    for migration in known:
        if applied.get(migration.number) not in (None, migration.checksum):
            return (
                f"migration {migration.name} is not the file that this database has run: "
                "restore that file, or run the release that has it; what is new belongs into a new file"
            )
    return None
