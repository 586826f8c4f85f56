"""Migrations: numbered SQL files, each run once, in a transaction of its own, under one lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from latchkey_server.storage.database import Connection

# Keeps two processes from changing the schema at once; no tenant's request ever takes it.
_LOCK = 0x6C6B_6D69_6772


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. A ``breaking`` one is not for servers that don't know it (docs/decisions/0003)."""

    number: int
    name: str
    sql: str

    @property
    def breaking(self) -> bool:
        """Tell whether the file says so in its first line."""
        return self.sql.startswith("-- breaking")


@cache
def migrations() -> Sequence[Migration]:
    """Return every migration that this server knows, in order."""
    files = sorted(
        (file for file in resources.files(__package__).joinpath("migrations").iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    return [Migration(int(file.name.partition("_")[0]), file.name, file.read_text(encoding="utf-8")) for file in files]


async def schema_trouble(connection: Connection) -> str | None:
    """Return why the schema is not the one that this server needs, in one line, or None."""
    applied = await _applied(connection)
    missing = [migration.name for migration in migrations() if migration.number not in applied]
    if missing:
        return f"the database's schema is behind ({', '.join(missing)}): run latchkey-server migrate"
    breaking = await connection.fetchval(
        "SELECT max(number) FROM schema_migration WHERE breaking AND number > $1", migrations()[-1].number
    )
    if breaking:
        return f"the database's schema is ahead of this server (migration {breaking}): run a newer server"
    return None


async def migrate(connection: Connection) -> list[str]:
    """Run the migrations that are missing and return their names; each is whole or not there at all."""
    return [migration.name for migration in migrations() if await _apply(connection, migration)]


async def lock_schema(connection: Connection) -> None:
    """Keep every other process from changing the schema until this transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)


async def _apply(connection: Connection, migration: Migration) -> bool:
    async with connection.transaction():
        await lock_schema(connection)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migration (number integer PRIMARY KEY, name text NOT NULL, "
            "breaking boolean NOT NULL, apply_time timestamptz NOT NULL DEFAULT now())"
        )
        if migration.number in await _applied(connection):
            return False
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO schema_migration (number, name, breaking) VALUES ($1, $2, $3)",
            migration.number,
            migration.name,
            migration.breaking,
        )
        return True


async def _applied(connection: Connection) -> set[int]:
    if await connection.fetchval("SELECT to_regclass('schema_migration')") is None:
        return set()
    rows = await connection.fetch("SELECT number FROM schema_migration")
    return {row["number"] for row in rows}
