"""Migrations of a database that is in use: nothing recorded is lost, and reports are what they were (spec §5)."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from latchkey.v1 import usage_pb2
from latchkey_server.app import build_workspaces
from latchkey_server.domain import ids
from latchkey_server.domain.outcomes.counts import by_outcome
from latchkey_server.domain.usage.event import StoredEvent, UsageEvent, content_hash, default_requests, id_hash
from latchkey_server.opening import open_storage, utc_now
from latchkey_server.storage.database import Database
from latchkey_server.storage.embedded.server import EmbeddedServer
from latchkey_server.storage.schema.migrate import migrate, migrations
from latchkey_server.storage.usage.partitions import ensure_partitions
from latchkey_server.storage.usage.repository import PostgresUsage
from latchkey_server.transport.convert.usage import read_event
from tests.integration.outcomes.test_by_label import SEED as VERIFICATIONS_SEED
from tests.integration.outcomes.test_by_label import Known as VerifiedKey
from tests.integration.outcomes.test_by_label import Model as Verifications
from tests.integration.outcomes.test_by_label import check as check_verifications
from tests.integration.storage.test_schema import empty_database
from tests.integration.usage.test_rollups import SEED, Known, Model, Used, check, check_one
from tests.integration.usage.test_usage import DUPLICATE, NEW, Event, asking, at, report, usd
from tests.support.service import Client, serving, settings_for
from tests.support.upkeep import ACCEPTED, database_of, differences, label_differences, maintain

BEFORE = 3
"""The last migration before usage was summed by quarters of an hour and by label."""

BEFORE_LABELS = 5
"""The last one before verifications were summed by label."""

EVENTS = 300
GROUPINGS = ((), ("ENVIRONMENT",), ("KEY",), ("ENVIRONMENT", "MODEL", "TASK"), ("KEY", "MEMBER"))

BOTH = ["maintain", "reattribute"]
"""The job leases that a server's own upkeep needs."""

# A key's label of now, and the one that its usage is attributed to.
KEYS = (("prod", "prod"), ("staging", "staging"), ("", ""), ("prod", "staging"))

_ROLL_UPS = """
    INSERT INTO usage_key_day
    SELECT workspace_id, key_id, (occurred_time AT TIME ZONE 'UTC')::date, sum(cost_nanos), 0,
        sum(requests), sum(input_tokens), sum(output_tokens), sum(cached_tokens)
    FROM usage_event WHERE type = 1 GROUP BY 1, 2, 3;
    INSERT INTO usage_key_total
    SELECT workspace_id, key_id, sum(spend_nanos), sum(adjustment_nanos), sum(requests), sum(input_tokens),
        sum(output_tokens), sum(cached_tokens)
    FROM usage_key_day GROUP BY 1, 2;
"""
_HELD = "INSERT INTO job_lease SELECT name, 'the test', now() + interval '1 hour' FROM unnest($1::text[]) AS name"
_SCHEMA = """
    SELECT 'column', table_name, column_name, data_type, is_nullable, column_default
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL
    SELECT 'index', tablename, indexdef, '', '', '' FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', ''
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
"""


@asynccontextmanager
async def database_as_of(postgres: EmbeddedServer, last: int) -> AsyncIterator[str]:
    """Lend a database as the migrations up to a number make it."""
    name = f"as_of_{last}"
    dsn = await empty_database(postgres, name)
    known = [migration for migration in migrations() if migration.number <= last]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("latchkey_server.storage.schema.migrate.migrations", lambda: known)
        await bring_up(dsn)
    yield dsn
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest_asyncio.fixture
async def old(postgres: EmbeddedServer) -> AsyncIterator[str]:
    """A database as the migrations made it before usage was summed as it is now."""
    async with database_as_of(postgres, BEFORE) as dsn:
        yield dsn


@pytest_asyncio.fixture
async def before_labels(postgres: EmbeddedServer) -> AsyncIterator[str]:
    """A database as the migrations made it before verifications were summed by label."""
    async with database_as_of(postgres, BEFORE_LABELS) as dsn:
        yield dsn


async def bring_up(dsn: str) -> list[str]:
    async with database_of(dsn) as database:
        done = await migrate(database)
        async with database.connection() as connection:
            await ensure_partitions(connection, utc_now(), ACCEPTED)
        return done


async def bootstrap(dsn: str) -> str:
    """Make the first workspace and return its OWNER's secret."""
    async with open_storage(settings_for(dsn)) as storage:
        return await build_workspaces(storage, utc_now).bootstrap() or ""


async def make_keys(database: Database, model: Model) -> UUID:
    """Make keys, one of them retagged since its usage was attributed, and return their workspace."""
    async with database.connection() as connection:
        workspace = await connection.fetchrow("SELECT workspace_id, default_api_id FROM workspace")
        assert workspace is not None
        for number, (environment, attributed) in enumerate(KEYS):
            key_id, member = ids.new_id(), ("", "ann")[number % 2]
            await connection.execute(
                "INSERT INTO key (workspace_id, key_id, api_id, prefix, name, environment, folded_environment, "
                "enabled, allow_ips, scopes, ratelimits, guardrail_id, firewall_policy_id, member, metadata, "
                "create_time, update_time, revision) "
                "VALUES ($1, $2, $3, 'sk', '', $4, $5, true, '{}', '{}', '[]', '', '', $6, '{}', now(), now(), 1)",
                workspace["workspace_id"],
                key_id,
                workspace["default_api_id"],
                environment,
                attributed,
                member,
            )
            api_id = ids.format_id(ids.API, workspace["default_api_id"])
            model.keys.append(Known(ids.format_id(ids.KEY, key_id), api_id, environment, "", member))
        return UUID(str(workspace["workspace_id"]))


def used_somehow(model: Model) -> list[Event]:
    """Return events of every type over several days."""
    made = [model.event(number) for number in range(EVENTS)]
    moment = datetime.now(UTC) - timedelta(days=2)
    kinds = {"ADJUSTMENT": 70, "BLOCKED": 0, "ERROR": 0}
    for number, (kind, cost) in enumerate(kinds.items()):
        for key in model.keys:
            item = Event(source="tests", event_id=f"{kind} {key.key_id}".replace(" ", "-"), key_id=key.key_id)
            item.type = usage_pb2.UsageType.Value(f"USAGE_TYPE_{kind}")
            item.cost.CopyFrom(usd(cost))
            item.occurred_time.CopyFrom(at(moment + timedelta(hours=number)))
            time = item.occurred_time.ToDatetime(tzinfo=UTC)
            model.used.append(Used(key, time, key.member, "", "", (0, cost, 0, 0, 0, 0)))
            made.append(item)
    return made


def stored(item: Event, member: str) -> StoredEvent:
    """Return an event as ReportUsage stores it."""
    read = read_event(item.SerializeToString())
    assert isinstance(read, UsageEvent)
    member = member if read.member is None else read.member
    return StoredEvent(read, id_hash(read.source, read.event_id), content_hash(read), member, default_requests(read))


async def record(database: Database, workspace_id: UUID, model: Model, made: Sequence[Event]) -> None:
    """Record events as servers of that time did: rows and identities, and roll-ups of another shape."""
    members = {key.key_id: key.member for key in model.keys}
    rows = [stored(item, members[item.key_id]) for item in made]
    async with database.transaction() as connection:
        usage = PostgresUsage(connection)
        assert len(await usage.claim(workspace_id, rows)) == len(made)
        await usage.insert(workspace_id, rows, utc_now())
        await connection.execute(_ROLL_UPS)


async def execute(dsn: str, statement: str, *arguments: object) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement, *arguments)
    await connection.close()


async def packed_and_reattributed(dsn: str) -> bool:
    connection = await asyncpg.connect(dsn)
    found = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM usage_key_day) "
        "AND NOT EXISTS (SELECT FROM key WHERE environment <> attributed_environment)"
    )
    await connection.close()
    return bool(found)


async def check_all(owner: Client, model: Model) -> None:
    for grouping in GROUPINGS:
        for width, zone in (("NONE", "UTC"), ("1D", "UTC"), ("1D", "Asia/Kolkata")):
            request = asking(*grouping)
            request.bucket_width = usage_pb2.BucketWidth.Value(f"BUCKET_WIDTH_{width}")
            request.time_zone, request.page_size = zone, 10_000
            await check_one(owner, model, request)
    await check(owner, model, 20)


async def test_usage_recorded_before_a_migration_is_reported_the_same_after_it(old: str) -> None:
    """Under the labels of now, also of a key that was retagged; and once upkeep has packed and reattributed it."""
    print(f"TEST_SEED={SEED}")
    model = Model(SEED)
    secret = await bootstrap(old)
    async with database_of(old) as database:
        workspace_id = await make_keys(database, model)
        made = used_somehow(model)
        await record(database, workspace_id, model, made)

    assert await bring_up(old) == [migration.name for migration in migrations() if migration.number > BEFORE]

    assert await differences(old) == {}, f"TEST_SEED={SEED}"
    await execute(old, _HELD, BOTH)
    async with serving(old) as service:
        owner = await service.client(secret)
        await check_all(owner, model)
        await execute(old, "DELETE FROM job_lease WHERE name = ANY($1)", BOTH)
        await maintain(old)
        assert await packed_and_reattributed(old)
        assert await differences(old) == {}, f"TEST_SEED={SEED}"
        await check_all(owner, model)
        assert set(await report(owner, made)) == {DUPLICATE}
        assert await report(owner, [model.event(EVENTS)]) == [NEW]
        assert await differences(old) == {}, f"TEST_SEED={SEED}"
        await check_all(owner, model)


# As servers of the time before counts by label took their turn at upkeep, and counted.
_TAKEN = """
    INSERT INTO lease AS l (name, holder, end_time) VALUES ('fold', 'an older server', now() + interval '1 minute')
    ON CONFLICT (name) DO UPDATE SET end_time = excluded.end_time WHERE l.holder = excluded.holder
"""
_COUNT = """
    INSERT INTO verification_quarter AS v (workspace_id, quarter, key_id, code, management_key_id, model, tag, tagged,
        prefix, other, verifications)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ON CONFLICT (workspace_id, quarter, key_id, code, management_key_id, model, tag, tagged, prefix, other)
    DO UPDATE SET verifications = v.verifications + excluded.verifications
"""


async def test_verifications_counted_before_a_migration_are_reported_the_same_after_it(before_labels: str) -> None:
    """Under the labels of now, also of a key that was retagged; what no key has and keys that are gone, too."""
    print(f"TEST_SEED={VERIFICATIONS_SEED}")
    keys, model = Model(VERIFICATIONS_SEED), Verifications(VERIFICATIONS_SEED)
    secret = await bootstrap(before_labels)
    async with database_of(before_labels) as database:
        workspace_id = await make_keys(database, keys)
        model.keys = [VerifiedKey(ids.parse_id(ids.KEY, key.key_id), key.api_id, key.environment) for key in keys.keys]
        counted = model.verify(workspace_id, 300)
        async with database.connection() as connection:
            rows = [
                (workspace_id, quarter, key_id, *rest, count)
                for (quarter, *rest), by_key in (await by_outcome(counted)).items()
                for key_id, count in by_key.items()
            ]
            gone = (workspace_id, utc_now() - timedelta(days=89), ids.new_id(), *rows[0][3:])
            await connection.executemany(_COUNT, [*rows, gone])

    assert "0006_verification_labels.sql" in await bring_up(before_labels)

    assert await label_differences(before_labels) == 0, f"TEST_SEED={VERIFICATIONS_SEED}"
    await execute(before_labels, _HELD, BOTH)
    async with serving(before_labels) as service:
        owner = await service.client(secret)
        await check_verifications(owner, model, 40)
        await execute(before_labels, "DELETE FROM job_lease WHERE name = ANY($1)", BOTH)
        await maintain(before_labels)
        assert await label_differences(before_labels) == 0, f"TEST_SEED={VERIFICATIONS_SEED}"
        await check_verifications(owner, model, 40)


async def test_a_server_that_does_not_count_by_label_neither_counts_nor_does_upkeep_after_the_migration(
    before_labels: str,
) -> None:
    row = (ids.new_id(), utc_now(), ids.new_id(), 1, ids.new_id(), "", "", False, "", False, 1)
    async with database_of(before_labels) as database, database.connection() as connection:
        await connection.execute(_TAKEN)
        await connection.execute(_COUNT, *row)

        await bring_up(before_labels)

        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.execute(_COUNT, *row)
        with pytest.raises(asyncpg.UndefinedTableError):
            await connection.execute(_TAKEN)
    assert await label_differences(before_labels) == 0


async def schema_of(dsn: str) -> set[tuple[str, ...]]:
    """Return all columns, indexes and constraints, every daily partition under one name."""
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(_SCHEMA)
    await connection.close()
    return {tuple(re.sub(r"usage_event_\d{8}", "usage_event_day", str(value)) for value in row) for row in rows}


async def test_a_migrated_database_has_the_schema_of_a_fresh_one(old: str, dsn: str) -> None:
    await bootstrap(old)
    await bring_up(old)

    fresh, migrated = await schema_of(dsn), await schema_of(old)

    assert len(fresh) > 100
    assert migrated == fresh
