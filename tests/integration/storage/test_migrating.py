"""How migrations run: refused if changed, patient with others' locks, and outside a transaction where they say so."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import date, timedelta

import asyncpg
import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2
from pydantic import SecretStr
from structlog.testing import capture_logs
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.opening import open_storage, open_straight, utc_now
from latchkey_server.storage.database import Database, open_database
from latchkey_server.storage.embedded.server import EmbeddedServer
from latchkey_server.storage.schema.migrate import (
    Migration,
    MigrationError,
    Patience,
    migrate,
    migrations,
    schema_trouble,
)
from latchkey_server.storage.usage.partitions import ensure_partitions
from latchkey_server.storage.usage.retention import drop_day
from tests.integration.wire.test_server import health_changes
from tests.support.postgres import locked, until_somebody_waits
from tests.support.process import run
from tests.support.service import PEPPERS, Service, rejection, settings_for

FIRST = len(migrations()) + 1
IMPATIENT = Patience(lock_seconds=0.5, pauses=(0.01,))
UNTIRING = Patience(lock_seconds=0.2, pauses=(0.01,) * 1000)

TABLE = Migration(FIRST, "thing.sql", "CREATE TABLE thing (a int NOT NULL); INSERT INTO thing VALUES (1), (1);")
COLUMN = Migration(FIRST + 1, "column.sql", "ALTER TABLE thing ADD COLUMN b int;")
INDEX = Migration(
    FIRST + 1,
    "index.sql",
    "-- outside a transaction\nDROP INDEX CONCURRENTLY IF EXISTS thing_by_a;\n-- then\n"
    "CREATE INDEX CONCURRENTLY thing_by_a ON thing (a);\n",
)
UNIQUE = Migration(FIRST + 1, "unique.sql", INDEX.sql.replace("CREATE", "CREATE UNIQUE"))

READING = "SELECT count(*) FROM thing"
OLDER = f"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; {READING}"
"""What building an index concurrently waits for in the end; a writer, in the beginning."""
WRITING = "INSERT INTO thing VALUES (4)"

FOR_A_LOCK = "a migration waits for a lock"
FOR_ANOTHER = "waiting for another process that changes the schema"

SCHEMA_LOCK = 0x6C6B_6D69_6772
"""The lock of every release."""


def with_these(*steps: Migration) -> Sequence[Migration]:
    return [*migrations(), *steps]


@pytest_asyncio.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A migrated database with one table more."""
    async with open_database(dsn, pool_size=10, timeout=30, statement_timeout=60) as opened:
        await migrate(opened, with_these(TABLE))
        yield opened


async def fetch(database: Database, query: str, *arguments: object) -> list[tuple[object, ...]]:
    async with database.connection() as connection:
        return [tuple(row) for row in await connection.fetch(query, *arguments)]


async def execute(database: Database, statement: str) -> None:
    async with database.connection() as connection:
        await connection.execute(statement)


async def trouble(database: Database, *steps: Migration) -> str | None:
    async with database.connection() as connection:
        return await schema_trouble(connection, with_these(*steps))


async def recorded(database: Database) -> list[tuple[object, ...]]:
    return await fetch(database, "SELECT number, name, checksum FROM schema_migration ORDER BY number")


async def indexes(database: Database) -> list[tuple[object, ...]]:
    """Return the indexes of the table and whether they are valid."""
    query = "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indrelid = 'thing'::regclass"
    return await fetch(database, query)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.01), reraise=True):
        with attempt:
            assert await condition()


async def until_told(logs: Sequence[Mapping[str, object]], event: str, times: int = 1) -> None:
    """Wait until this was logged so many times."""

    async def told() -> bool:
        return [entry["event"] for entry in logs].count(event) == times

    await until(told)


# A changed file.


async def test_every_migration_is_recorded_with_the_checksum_of_its_file(database: Database) -> None:
    assert await recorded(database) == [(step.number, step.name, step.checksum) for step in with_these(TABLE)]


async def test_a_database_of_before_checksums_is_served_and_takes_them_when_it_is_migrated(database: Database) -> None:
    await execute(database, "ALTER TABLE schema_migration DROP COLUMN checksum")

    before = await trouble(database, TABLE)
    applied = await migrate(database, with_these(TABLE))

    assert (before, applied) == (None, [])
    assert await recorded(database) == [(step.number, step.name, step.checksum) for step in with_these(TABLE)]
    assert await trouble(database, TABLE) is None


async def test_what_a_server_of_before_checksums_applies_gets_its_checksum_from_the_next_one(
    database: Database,
) -> None:
    await execute(database, f"INSERT INTO schema_migration (number, name, breaking) VALUES ({FIRST + 1}, '', false)")

    before = await trouble(database, TABLE, COLUMN)
    applied = await migrate(database, with_these(TABLE, COLUMN))

    assert (before, applied) == (None, [])
    assert (await recorded(database))[-1] == (COLUMN.number, "", COLUMN.checksum)


async def test_a_changed_migration_is_refused_before_anything_else_is_run(database: Database) -> None:
    changed = Migration(TABLE.number, TABLE.name, f"{TABLE.sql} -- or so")

    with pytest.raises(MigrationError, match=r"^migration thing\.sql is not the file .*: restore that file, or .*$"):
        await migrate(database, with_these(changed, COLUMN))

    assert [number for number, _, _ in await recorded(database)] == [step.number for step in with_these(TABLE)]


async def test_a_server_does_not_serve_on_a_schema_that_another_file_made(service: Service, dsn: str) -> None:
    async with grpc.aio.insecure_channel(service.address) as channel:
        health = health_changes(channel)
        begun = await anext(health)
        connection = await asyncpg.connect(dsn)
        await connection.execute("UPDATE schema_migration SET checksum = 'another' WHERE number = 2")
        await connection.close()

        async with asyncio.timeout(30):
            told = await anext(health)
        failed = await rejection((await service.client(service.root_secret)).create_key())
        refused = await run("migrate", LATCHKEY_DATABASE_URL=dsn, LATCHKEY_PEPPERS=PEPPERS)
        async with open_database(dsn, pool_size=1, timeout=30) as database:
            reason = await trouble(database)

    assert begun == health_pb2.HealthCheckResponse.SERVING
    assert told == health_pb2.HealthCheckResponse.NOT_SERVING
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_NOT_READY")
    assert "0002_usage.sql" in str(reason)
    assert (refused.status, refused.out, refused.err) == (1, "", f"latchkey-server: {reason}\n")


# Locks of others.


async def test_a_migration_lets_others_pass_while_it_does_not_get_its_lock(dsn: str, database: Database) -> None:
    async with locked(dsn, READING) as _, asyncio.timeout(30):
        migrating = asyncio.create_task(migrate(database, with_these(TABLE, COLUMN), UNTIRING))
        await until_somebody_waits(dsn)
        read = await fetch(database, READING)
        still_waiting = not migrating.done()

    assert (read, still_waiting) == ([(2,)], True)
    assert await migrating == [COLUMN.name]
    assert await trouble(database, TABLE, COLUMN) is None


async def test_a_lock_that_is_not_let_go_ends_in_one_line_that_tells_who_has_it(dsn: str, database: Database) -> None:
    with capture_logs() as logs:
        async with locked(dsn, READING):
            ((holder,),) = await fetch(
                database, "SELECT pid FROM pg_locks WHERE relation = 'thing'::regclass AND mode = 'AccessShareLock'"
            )
            with pytest.raises(MigrationError) as refused:
                await migrate(database, with_these(TABLE, COLUMN), IMPATIENT)

    told = f"process {holder} (idle in transaction)"
    assert str(refused.value) == (
        f"column.sql needs a lock that {told} did not let go: end them, or migrate again later"
    )
    assert [(entry["event"], entry["held_by"]) for entry in logs] == [(FOR_A_LOCK, told)]
    assert "thing" not in str(logs)
    assert await trouble(database, TABLE, COLUMN) is not None


async def test_a_migration_that_gives_up_has_changed_nothing(dsn: str, database: Database) -> None:
    both = Migration(FIRST + 1, "both.sql", f"CREATE TABLE other (); {COLUMN.sql}")

    async with locked(dsn, READING):
        with pytest.raises(MigrationError):
            await migrate(database, with_these(TABLE, both), IMPATIENT)

    assert await fetch(database, "SELECT to_regclass('other')") == [(None,)]
    assert await migrate(database, with_these(TABLE, both), IMPATIENT) == [both.name]


async def test_waiting_for_another_process_that_migrates_is_told_with_its_pid(database: Database) -> None:
    async with database.connection() as other:
        pid = other.get_server_pid()
        await other.execute(f"SELECT pg_advisory_lock({SCHEMA_LOCK})")
        with capture_logs() as logs:
            migrating = asyncio.create_task(migrate(database, with_these(TABLE, COLUMN)))
            await until_told(logs, FOR_ANOTHER)
            await other.execute(f"SELECT pg_advisory_unlock({SCHEMA_LOCK})")
            applied = await migrating

    assert applied == [COLUMN.name]
    assert [entry["pids"] for entry in logs] == [[pid]]


async def test_upkeep_leaves_a_day_that_is_past_its_time_for_later_while_the_schema_is_changed(
    database: Database,
) -> None:
    async with database.connection() as other:
        await other.execute(f"SELECT pg_advisory_lock({SCHEMA_LOCK})")
        meanwhile = await drop_day(database, date(2026, 1, 1))
        await other.execute(f"SELECT pg_advisory_unlock({SCHEMA_LOCK})")

    assert (meanwhile, await drop_day(database, date(2026, 1, 1))) == (False, True)


# Outside a transaction.


async def test_an_index_is_built_while_others_write(dsn: str, database: Database) -> None:
    with capture_logs() as logs:
        async with locked(dsn, OLDER):
            migrating = asyncio.create_task(migrate(database, with_these(TABLE, INDEX), IMPATIENT))
            await until_told(logs, FOR_A_LOCK)
            await execute(database, "INSERT INTO thing VALUES (3)")
            still_waiting = not migrating.done()
        applied = await migrating

    assert (still_waiting, applied) == (True, [INDEX.name])
    assert await indexes(database) == [("thing_by_a", True)]
    assert re.fullmatch(r"process \d+ \(idle in transaction\)", logs[0]["held_by"])
    assert await trouble(database, TABLE, INDEX) is None


async def test_what_is_not_built_concurrently_waits_no_longer_for_a_lock_outside_a_transaction(
    dsn: str, database: Database
) -> None:
    column = Migration(FIRST + 1, "column.sql", f"-- outside a transaction\n{COLUMN.sql}")

    async with locked(dsn, READING):
        with pytest.raises(MigrationError, match=r"column\.sql needs a lock"):
            await migrate(database, with_these(TABLE, column), IMPATIENT)
        read = await fetch(database, READING)

    assert len(read) == 1
    assert await migrate(database, with_these(TABLE, column), IMPATIENT) == [column.name]


async def test_processes_that_migrate_at_once_build_an_index_once_beside_upkeep(dsn: str, database: Database) -> None:
    later = utc_now() + timedelta(days=100)

    async def upkeep() -> int:
        async with database.connection() as connection:
            return await ensure_partitions(connection, later, timedelta(0))

    with capture_logs() as logs:
        async with locked(dsn, WRITING):
            first = asyncio.create_task(migrate(database, with_these(TABLE, INDEX)))
            await until_somebody_waits(dsn)
            others = [asyncio.create_task(migrate(database, with_these(TABLE, INDEX))) for _ in range(2)]
            partitioning = asyncio.create_task(upkeep())
            await until_told(logs, FOR_ANOTHER, 3)
        applied = await asyncio.gather(first, *others)

    assert applied == [[INDEX.name], [], []]
    assert await partitioning == 4
    assert await indexes(database) == [("thing_by_a", True)]


async def test_a_server_of_the_release_before_that_waits_for_the_lock_costs_a_second_attempt(
    dsn: str, database: Database
) -> None:
    """It waits in a statement, so that PostgreSQL finds it and the index waiting for each other."""

    async def both_wait() -> bool:
        return await fetch(database, "SELECT count(*) FROM pg_locks WHERE NOT granted") == [(2,)]

    async with database.connection() as older, older.transaction():
        # Whoever looks first when both wait is the one that PostgreSQL ends.
        await older.execute("SET LOCAL deadlock_timeout = '1min'")
        async with locked(dsn, WRITING):
            migrating = asyncio.create_task(migrate(database, with_these(TABLE, INDEX)))
            await until_somebody_waits(dsn)
            partitioning = asyncio.create_task(older.execute(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))
            await until(both_wait)
        await partitioning
    assert await migrating == [INDEX.name]
    assert await indexes(database) == [("thing_by_a", True)]


async def test_an_index_that_could_not_be_built_is_built_anew_by_the_next_run(database: Database) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await migrate(database, with_these(TABLE, UNIQUE))
    left, behind = await indexes(database), await trouble(database, TABLE, UNIQUE)
    await execute(database, "DELETE FROM thing; INSERT INTO thing VALUES (1), (2)")

    applied = await migrate(database, with_these(TABLE, UNIQUE))

    assert left == [("thing_by_a", False)]
    assert UNIQUE.name in str(behind)
    assert applied == [UNIQUE.name]
    assert await indexes(database) == [("thing_by_a", True)]


async def test_an_index_whose_build_was_killed_is_built_anew_by_the_next_run(dsn: str, database: Database) -> None:
    async with locked(dsn, OLDER):
        migrating = asyncio.create_task(migrate(database, with_these(TABLE, INDEX)))
        await until_somebody_waits(dsn)
        await fetch(database, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
        with pytest.raises(DatabaseUnavailable):
            await migrating
        left = await indexes(database)

    assert left == [("thing_by_a", False)]
    assert await migrate(database, with_these(TABLE, INDEX)) == [INDEX.name]
    assert await indexes(database) == [("thing_by_a", True)]


async def test_a_statement_outside_a_transaction_may_take_as_long_as_it_takes(dsn: str) -> None:
    asking = Migration(
        FIRST + 1,
        "asking.sql",
        "-- outside a transaction\nINSERT INTO told SELECT current_setting('statement_timeout');",
    )
    async with open_database(dsn, pool_size=1, timeout=30) as database:
        await execute(database, "CREATE TABLE told (setting text)")
        await migrate(database, with_these(TABLE, asking))

        assert await fetch(database, "SELECT setting FROM told") == [("0",)]
        assert await fetch(database, "SHOW statement_timeout") == [("31s",)]


async def test_migrations_go_past_a_transaction_pooler(dsn: str, postgres: EmbeddedServer) -> None:
    pooled = settings_for(dsn)
    straight = pooled.model_copy(update={"listen_dsn": SecretStr(postgres.dsn("postgres"))})
    async with open_storage(pooled) as storage:
        reached = []
        for settings in (pooled, straight):
            async with open_straight(storage, settings) as database:
                reached += await fetch(database, "SELECT current_database()::text")

    assert reached == [(dsn.partition("?")[0].rpartition("/")[2],), ("postgres",)]
