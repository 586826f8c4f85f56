"""The schema: migrations, partitions, and being ready for distribution by workspace (architecture §3)."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration

from latchkey.v1 import key_service_pb2, usage_service_pb2, verify_service_pb2
from latchkey_server.opening import utc_now
from latchkey_server.storage.database import open_database
from latchkey_server.storage.embedded.server import EmbeddedServer
from latchkey_server.storage.schema.migrate import migrate, migrations, schema_trouble
from latchkey_server.storage.usage.partitions import days_needed, ensure_partitions
from tests.support.service import serving
from tests.support.upkeep import maintain

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
BACK = timedelta(days=35)

# Global by nature: small, found by hash or id without a workspace, or not a tenant's at all.
NOT_A_TENANTS = {"job_lease", "pepper", "schema_migration", "secret_hash", "usage_retained"}


async def empty_database(postgres: EmbeddedServer, name: str) -> str:
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return postgres.dsn(name)


async def test_concurrent_migrations_and_partition_upkeep_do_each_thing_once(postgres: EmbeddedServer) -> None:
    dsn = await empty_database(postgres, "raced")

    async with open_database(dsn, pool_size=8, timeout=30) as database:

        async def prepare() -> tuple[list[str], int]:
            applied = await migrate(database)
            async with database.connection() as connection:
                return applied, await ensure_partitions(connection, NOW, BACK)

        done = await asyncio.gather(*(prepare() for _ in range(6)))

    assert sorted(name for applied, _ in done for name in applied) == [migration.name for migration in migrations()]
    assert sum(created for _, created in done) == len(list(days_needed(NOW, BACK)))


@pytest.mark.parametrize("breaking", [False, True])
async def test_a_schema_that_is_ahead_stops_a_server_only_if_it_breaks(dsn: str, breaking: bool) -> None:
    async with open_database(dsn, pool_size=1, timeout=30) as database, database.connection() as connection:
        current = await schema_trouble(connection)
        await connection.execute(
            "INSERT INTO schema_migration (number, name, breaking) VALUES (9999, 'from the future', $1)", breaking
        )
        ahead = await schema_trouble(connection)

    assert current is None
    assert ("9999" in ahead) if ahead else not breaking


async def test_statements_outlive_a_migration_that_adds_a_column(dsn: str) -> None:
    async with serving(dsn) as service:
        client = await service.client(service.root_secret)
        made = await client.create_key()
        for _ in range(3):
            await client.verify(made.secret, verify_service_pb2.VerifyRequest(max_staleness=Duration()))
        connection = await asyncpg.connect(dsn)
        for table in ("key", "management_key", "usage_event", "workspace", "identity"):
            await connection.execute(f"ALTER TABLE {table} ADD COLUMN added_later text NOT NULL DEFAULT ''")
        await connection.close()

        verified = await client.verify(made.secret, verify_service_pb2.VerifyRequest(max_staleness=Duration()))
        listed = await client.keys.ListKeys(key_service_pb2.ListKeysRequest())
        events = await client.usage.ListUsageEvents(usage_service_pb2.ListUsageEventsRequest())

    assert verified.valid
    assert [key.key_id for key in listed.keys] == [made.key.key_id]
    assert not events.events


async def test_every_tenants_table_leads_its_keys_with_the_workspace(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(
        "SELECT c.relname AS table, i.relname AS index, a.attname AS first, x.indisunique AS is_unique "
        "FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = x.indkey[0] "
        "WHERE c.relnamespace = 'public'::regnamespace"
    )
    triggers = await connection.fetchval("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")
    await connection.close()

    assert {row["first"] for row in rows if row["table"] not in NOT_A_TENANTS} == {"workspace_id"}
    assert {row["table"] for row in rows} > NOT_A_TENANTS
    assert triggers == 0


async def test_events_of_a_day_without_a_partition_are_kept_and_the_day_is_left_where_it_is(dsn: str) -> None:
    later = datetime.now(UTC) + timedelta(days=100)
    async with open_database(dsn, pool_size=1, timeout=30) as database, database.connection() as connection:
        await connection.execute(
            "INSERT INTO usage_event SELECT gen_random_uuid(), $1, 'x', gen_random_uuid(), 1, '', '', '', '', '', "
            "0, 0, 0, 0, 0, '', NULL, $1",
            later,
        )
        created = await ensure_partitions(connection, later, timedelta(0))
        kept = await connection.fetchval("SELECT count(*) FROM usage_event")

    assert (created, kept) == (3, 1)


async def test_changes_and_answered_requests_are_kept_for_a_day(dsn: str) -> None:
    async with serving(dsn, lambda: utc_now() - timedelta(days=2)) as past:
        old = await past.client(past.root_secret)
        await old.keys.CreateKey(key_service_pb2.CreateKeyRequest(request_id="old"))
    async with serving(dsn) as present:
        new = await present.client(past.root_secret)
        made = await new.keys.CreateKey(key_service_pb2.CreateKeyRequest(request_id="new"))
    await maintain(dsn)
    connection = await asyncpg.connect(dsn)
    changes = await connection.fetch("SELECT revision FROM change")
    requests = await connection.fetch("SELECT request_id FROM answered_request")
    await connection.close()

    assert [row["revision"] for row in changes] == [made.revision.number]
    assert [row["request_id"] for row in requests] == ["new"]
