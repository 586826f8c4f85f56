"""Reports and recording read only what they need: never a whole table, never another workspace's rows (spec §5)."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest
import pytest_asyncio

from latchkey_server.domain.outcomes.report import VerificationDimension as By
from latchkey_server.domain.outcomes.report import VerificationFilter, VerificationQuery
from latchkey_server.domain.reporting.buckets import Width, buckets
from latchkey_server.domain.reporting.request import ReportQuery
from latchkey_server.domain.usage.report import EventPage, Measure, UsageDimension, UsageFilter, UsageQuery
from latchkey_server.opening import utc_now
from latchkey_server.storage.embedded.server import EmbeddedServer
from latchkey_server.storage.keys.keys import PostgresKeys
from latchkey_server.storage.outcomes.reattribution import move_verifications
from latchkey_server.storage.outcomes.repository import PostgresVerifications
from latchkey_server.storage.usage.packing import pack_some
from latchkey_server.storage.usage.repository import PostgresUsage
from tests.conftest import TEMPLATE
from tests.support.plans import Explained, indexes_used, nodes, read_whole, rows_seen, undone

WORKSPACE, OTHER = UUID(int=1), UUID(int=2)
KEYS, OTHER_KEYS = 500, 5_000
RETAGGED = 5
DAYS = 32
EVENT_DAYS = 12
EVENTS = 1_000
PAGE = 51
TODAY = utc_now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
MONTH = TODAY - timedelta(days=30), TODAY + timedelta(days=1)
KOLKATA = ZoneInfo("Asia/Kolkata")

# Each workspace's keys are numbered on from its own number times a million.
_KEY_OF = "lpad(to_hex(w.number * 1000000 + k), 32, '0')::uuid"
_SUMS = "1, 100, 0, 1, 10, 5, 0"
_RUNNING = "'{8,40,80}', '{1,2,3}', '{30,60,100}', '{0,0,0}', '{1,2,3}', '{3,6,10}', '{1,3,5}', '{0,0,0}'"
_EACH_KEY = f"(VALUES (1, {KEYS}), (2, {OTHER_KEYS})) AS w(number, keys), generate_series(0, w.keys - 1) k"
_WORKSPACE_OF = "lpad(w.number::text, 32, '0')::uuid"
_TODAY = f"timestamptz '{TODAY:%Y-%m-%d} 00:00+00'"
_DAY = f"date '{TODAY:%Y-%m-%d}'"

SEED = f"""
    INSERT INTO workspace SELECT {_WORKSPACE_OF}, '', true, false, {_WORKSPACE_OF}, '', '1 minute', now(), now(), 1
    FROM generate_series(1, 2) AS w(number);
    INSERT INTO api SELECT workspace_id, workspace_id, '', true, now(), now(), 1 FROM workspace;
    INSERT INTO key (workspace_id, key_id, api_id, prefix, name, environment, attributed_environment, enabled,
        allow_ips, scopes, ratelimits, guardrail_id, firewall_policy_id, member, metadata, create_time, update_time,
        revision)
    SELECT {_WORKSPACE_OF}, {_KEY_OF}, {_WORKSPACE_OF}, 'sk', '', 'env ' || k % 4,
        CASE WHEN k < {RETAGGED} THEN 'env 5' ELSE 'env ' || k % 4 END, true,
        '{{}}', '{{}}', '[]', '', '', 'member ' || k % 20, '{{}}', now(), now(), 1
    FROM {_EACH_KEY};
    INSERT INTO usage_key_day
    SELECT {_WORKSPACE_OF}, {_KEY_OF}, {_DAY} - d, 'member ' || k % 20, 'small', '', false, {_SUMS}
    FROM {_EACH_KEY}, generate_series(1, {DAYS}) d;
    INSERT INTO usage_key_day_running
    SELECT {_WORKSPACE_OF}, {_KEY_OF}, {_DAY} - d, 'member ' || k % 20, 'small', '', false, {_RUNNING}
    FROM {_EACH_KEY}, generate_series(1, {DAYS}) d;
    INSERT INTO usage_key_total
    SELECT {_WORKSPACE_OF}, {_KEY_OF}, {_SUMS} FROM {_EACH_KEY};
    INSERT INTO usage_key_quarter
    SELECT {_WORKSPACE_OF}, {_KEY_OF}, {_TODAY} + q * interval '15 minutes', 'member ' || k % 20, 'small', '', false,
        {_SUMS}
    FROM {_EACH_KEY}, generate_series(0, 7) q;
    -- What came late, of one key in ten.
    INSERT INTO usage_key_quarter
    SELECT {_WORKSPACE_OF}, {_KEY_OF}, {_TODAY} - interval '3 days', 'member ' || k % 20, 'small', '', false, {_SUMS}
    FROM {_EACH_KEY} WHERE k % 10 = 0;
    INSERT INTO usage_label_quarter
    SELECT {_WORKSPACE_OF}, {_TODAY} + q * interval '15 minutes', 'env ' || e, {_WORKSPACE_OF}, 'small', '', false,
        {_SUMS}
    FROM generate_series(1, 2) AS w(number), generate_series(-96 * {DAYS}, 20) q,
        generate_series(1, CASE w.number WHEN 1 THEN 5 ELSE 60 END) e;
    INSERT INTO usage_event
    SELECT {_WORKSPACE_OF}, {_TODAY} - d * interval '1 day' + n * interval '12 seconds',
        decode(md5(w.number || ' ' || d || ' ' || n), 'hex'),
        lpad(to_hex(w.number * 1000000 + n % w.keys), 32, '0')::uuid, 1, 's', n::text, '', 'small', '',
        1, 10, 5, 0, 100, '', NULL, now()
    FROM (VALUES (1, {KEYS}, {EVENTS}), (2, {OTHER_KEYS}, 7 * {EVENTS})) AS w(number, keys, events),
        generate_series(1, {EVENT_DAYS}) d, generate_series(0, w.events - 1) n;
    INSERT INTO usage_event_id
    SELECT workspace_id, id_hash, id_hash, occurred_time FROM usage_event;
    INSERT INTO verification_key_quarter
    SELECT {_WORKSPACE_OF}, {_TODAY} - q * interval '1 hour', {_KEY_OF}, 1, {_WORKSPACE_OF}, '', '', false, '', false, 3
    FROM (VALUES (1, 20), (2, 300)) AS w(number, keys), generate_series(0, w.keys - 1) k,
        generate_series(0, 24 * {DAYS}) q;
    INSERT INTO verification_label_quarter
    SELECT workspace_id, quarter, attributed_environment, api_id, code, management_key_id, model, tag, tagged, v.prefix,
        other, sum(verifications)
    FROM verification_key_quarter v JOIN key k USING (workspace_id, key_id) GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11;
    INSERT INTO verification_label_quarter
    SELECT {_WORKSPACE_OF}, {_TODAY} - q * interval '1 hour', 'env ' || e, {_WORKSPACE_OF}, 1, {_WORKSPACE_OF}, '', '',
        false, '', false, 3
    FROM (VALUES (2)) AS w(number), generate_series(6, 60) e, generate_series(0, 24 * {DAYS}) q;
"""
SMALL = {"workspace", "api", "identity"}
"""Tables that may be read whole: here they hold next to nothing."""

IN_A_MONTH = {
    "usage_label_quarter": 5 * (30 * 96 + 21),
    "usage_key_day": 30 * KEYS,
    "usage_key_day_running": 30 * KEYS,
    "usage_key_quarter": 9 * KEYS,
    "key": KEYS,
}
"""How many rows the smaller workspace has there."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def seeded(postgres: EmbeddedServer) -> AsyncIterator[str]:
    """A database with two workspaces, the other one several times as large."""
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute(f"CREATE DATABASE usage_plans TEMPLATE {TEMPLATE} STRATEGY file_copy")
    dsn = postgres.dsn("usage_plans")
    seeding = await asyncpg.connect(dsn)
    await seeding.execute(SEED)
    await seeding.execute("VACUUM ANALYZE")
    await seeding.close()
    yield dsn
    await connection.execute("DROP DATABASE usage_plans WITH (FORCE)")
    await connection.close()


@pytest_asyncio.fixture
async def explained(seeded: str) -> AsyncIterator[Explained]:
    """A connection to that database, on which nothing is kept."""
    connection = await asyncpg.connect(seeded)
    async with undone(connection):
        yield Explained(connection)
    await connection.close()


def key(number: int, workspace: int = 1) -> UUID:
    return UUID(int=workspace * 1_000_000 + number)


def question(
    *group_by: UsageDimension, width: Width = Width.NONE, zone: str = "UTC", wanted: UsageFilter | None = None
) -> UsageQuery:
    """Return a question about the last month."""
    found = buckets(*MONTH, width, ZoneInfo(zone))
    return ReportQuery(found, group_by, wanted or UsageFilter(), 0, 0, 1_000)


def check(explained: Explained, most: Mapping[str, int]) -> None:
    """Fail for a table that is read whole, and for more rows of one than these; of others none may be looked at."""
    assert explained.plans
    for plan in explained.plans:
        assert read_whole(plan) - SMALL == set()
        seen = {table: rows for table, rows in rows_seen(plan).items() if table not in SMALL}
        assert {table: rows for table, rows in seen.items() if rows > most.get(table, 0)} == {}


def only(*tables: str, rows: Mapping[str, int] = IN_A_MONTH) -> dict[str, int]:
    return {table: rows[table] for table in tables}


async def ask(explained: Explained, asked: UsageQuery) -> None:
    await PostgresUsage(explained).report(WORKSPACE, asked, Measure.SPEND)  # type: ignore[arg-type]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
async def test_a_report_by_label_reads_the_roll_up_by_label_and_of_keys_the_retagged_ones(
    explained: Explained, zone: str
) -> None:
    await ask(explained, question(UsageDimension.ENVIRONMENT, width=Width.DAY, zone=zone))

    moved = {"usage_key_day": 31 * RETAGGED, "usage_key_day_running": 31 * RETAGGED}
    moved |= {"usage_key_quarter": 9 * RETAGGED, "key": RETAGGED}
    check(explained, only("usage_label_quarter") | moved)


async def test_a_report_by_label_without_retagged_keys_reads_nothing_of_keys(explained: Explained) -> None:
    await explained.execute(
        "UPDATE key SET attributed_environment = environment WHERE environment <> attributed_environment"
    )
    await ask(explained, question(UsageDimension.ENVIRONMENT, width=Width.DAY, zone="Asia/Kolkata"))

    check(explained, only("usage_label_quarter") | {"key": 2 * RETAGGED})


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
async def test_a_report_by_label_is_planned_for_as_many_retagged_keys_as_there_are(
    explained: Explained, zone: str
) -> None:
    """However many keys other tenants have: for a few it would sort all that they used, only to sum it up."""
    await ask(explained, question(UsageDimension.ENVIRONMENT, width=Width.DAY, zone=zone))
    await ask_verifications(explained, asked(By.ENVIRONMENT))

    moved = [node for plan in explained.plans for node in nodes(plan) if node.get("CTE Name") == "moved"]
    assert {node["Plan Rows"] for node in moved} == {RETAGGED}


async def test_a_report_that_asks_about_no_label_reads_nothing_of_retagged_keys(explained: Explained) -> None:
    await ask(explained, question(UsageDimension.MODEL, width=Width.DAY, zone="Asia/Kolkata"))

    check(explained, only("usage_label_quarter"))


async def test_a_report_by_key_over_whole_days_reads_a_row_a_key_and_day(explained: Explained) -> None:
    await ask(explained, question(UsageDimension.KEY))

    # The keys once for their labels and once for their names.
    check(explained, only("usage_key_day", "usage_key_quarter", "key"))


async def test_a_report_by_key_over_days_that_a_zone_cuts_reads_each_of_them_twice(explained: Explained) -> None:
    await ask(explained, question(UsageDimension.KEY, width=Width.DAY, zone="Asia/Kolkata"))

    twice = {"usage_key_day_running": 2 * IN_A_MONTH["usage_key_day_running"]}
    check(explained, only("usage_key_quarter", "key") | twice)


@pytest.mark.parametrize(("zone", "table"), [("UTC", "usage_key_day"), ("Asia/Kolkata", "usage_key_day_running")])
async def test_a_report_on_one_key_reads_that_key(explained: Explained, zone: str, table: str) -> None:
    wanted = UsageFilter(key_ids=(key(7),))
    await ask(explained, question(UsageDimension.MODEL, width=Width.DAY, zone=zone, wanted=wanted))

    check(explained, {table: 62, "usage_key_quarter": 9, "key": 71})


async def test_a_report_on_a_day_by_label_reads_nothing_of_other_days(explained: Explained) -> None:
    day = (TODAY - timedelta(days=2), TODAY - timedelta(days=1))
    await ask(explained, replace(question(UsageDimension.ENVIRONMENT), buckets=[day]))

    # All keys' rows of one day lie together, and may be read for the sake of the retagged ones.
    check(explained, {"usage_label_quarter": 5 * 96, "usage_key_day": KEYS, "key": 2 * RETAGGED})


def page(days: int = 2, wanted: UsageFilter | None = None, before: datetime | None = None) -> EventPage:
    start, end = TODAY - timedelta(days=10), TODAY - timedelta(days=10 - days)
    return EventPage(start, end, wanted or UsageFilter(), (), PAGE, (before, b"") if before else None)


def partitions(days: int) -> set[str]:
    return {f"usage_event_{TODAY - timedelta(days=10 - at):%Y%m%d}" for at in range(days)}


@pytest.mark.parametrize("before", [None, TODAY - timedelta(days=9, hours=-1)])
async def test_a_list_of_events_reads_about_a_page_of_its_days(explained: Explained, before: datetime | None) -> None:
    await PostgresUsage(explained).events(WORKSPACE, page(before=before))  # type: ignore[arg-type]

    check(explained, dict.fromkeys(partitions(2), PAGE + 1))
    for plan in explained.plans:
        assert all("_pkey" in name for name in indexes_used(plan))


async def test_a_list_of_the_events_of_a_label_reads_no_other_days(explained: Explained) -> None:
    wanted = UsageFilter(labels=("env 1",))
    await PostgresUsage(explained).events(WORKSPACE, page(wanted=wanted))  # type: ignore[arg-type]

    check(explained, dict.fromkeys(partitions(2), EVENTS) | {"key": KEYS})


async def test_a_list_of_the_events_of_a_key_reads_those_of_the_key(explained: Explained) -> None:
    wanted = UsageFilter(key_ids=(key(7),))
    await PostgresUsage(explained).events(WORKSPACE, page(8, wanted))  # type: ignore[arg-type]

    check(explained, dict.fromkeys(partitions(8), EVENTS // KEYS))
    for plan in explained.plans:
        assert any(name.endswith("_key_id_occurred_time_idx") for name in indexes_used(plan))


async def test_known_identities_are_looked_up_one_by_one(explained: Explained) -> None:
    hashes = [hashlib.md5(f"1 {day} {number}".encode()).digest() for day in range(1, 5) for number in range(25)]
    known = await PostgresUsage(explained).known(WORKSPACE, hashes)  # type: ignore[arg-type]

    assert len(known) == 100
    check(explained, {"usage_event_id": 100})


async def test_combinations_are_looked_up_by_key_and_day(explained: Explained) -> None:
    places = [(key(number), TODAY.date() - timedelta(days=number % 3)) for number in range(30)]
    await PostgresUsage(explained).combinations(WORKSPACE, places)  # type: ignore[arg-type]

    check(explained, {"usage_key_day": 30, "usage_key_quarter": 30 * 8})


async def test_spend_in_the_window_reads_the_days_of_the_window(explained: Explained) -> None:
    since: dict[UUID, date | None] = {key(number): TODAY.date() - timedelta(days=number % 10) for number in range(40)}
    since |= {key(number): None for number in range(40, 50)}
    await PostgresKeys(explained).net_spend(WORKSPACE, since)  # type: ignore[arg-type]

    check(explained, {"usage_key_day": 40 * 9, "usage_key_quarter": 50 * 9, "usage_key_total": 10})


async def test_packing_reads_the_days_that_it_packs(explained: Explained) -> None:
    last = await pack_some(explained, WORKSPACE, UUID(int=0), TODAY)  # type: ignore[arg-type]

    assert last == key(KEYS - 10)
    check(explained, only("usage_key_quarter") | {"usage_key_day_running": KEYS // 10})


async def test_combinations_of_verifications_are_looked_up_by_key_and_day(explained: Explained) -> None:
    places = [(key(number), TODAY.date() - timedelta(days=1 + number % 3)) for number in range(20)]
    await PostgresVerifications(explained).combinations(WORKSPACE, places)  # type: ignore[arg-type]

    check(explained, {"verification_key_quarter": 20 * 24})


def asked(*group_by: By, wanted: VerificationFilter | None = None) -> VerificationQuery:
    found = buckets(TODAY - timedelta(days=7), TODAY, Width.DAY, KOLKATA)
    return ReportQuery(found, group_by, wanted or VerificationFilter(), 0, 0, 1_000)


async def ask_verifications(explained: Explained, question: VerificationQuery) -> None:
    await PostgresVerifications(explained).report(WORKSPACE, question)  # type: ignore[arg-type]


async def test_a_report_on_verifications_by_label_reads_the_sums_by_label_and_of_keys_the_retagged_ones(
    explained: Explained,
) -> None:
    await ask_verifications(explained, asked(By.ENVIRONMENT))

    moved = {"verification_key_quarter": RETAGGED * 24 * 7, "key": RETAGGED}
    check(explained, {"verification_label_quarter": 5 * 24 * 7} | moved)


@pytest.mark.parametrize("labels", [(), ("env 1",)])
async def test_a_report_on_verifications_without_retagged_keys_reads_nothing_by_key(
    explained: Explained, labels: tuple[str, ...]
) -> None:
    await explained.execute(
        "UPDATE key SET attributed_environment = environment WHERE environment <> attributed_environment"
    )
    await ask_verifications(explained, asked(By.ENVIRONMENT, By.TAG, wanted=VerificationFilter(labels=labels)))
    await ask_verifications(explained, asked(By.CODE, wanted=VerificationFilter(labels=labels)))

    check(explained, {"verification_label_quarter": 5 * 24 * 7, "key": 2 * RETAGGED})


async def test_a_report_on_verifications_that_asks_for_no_label_reads_nothing_of_retagged_keys(
    explained: Explained,
) -> None:
    await ask_verifications(explained, asked(By.CODE, By.API, By.CALLING_SERVICE))

    check(explained, {"verification_label_quarter": 5 * 24 * 7})


async def test_a_report_on_verifications_by_key_reads_its_range(explained: Explained) -> None:
    await ask_verifications(explained, asked(By.KEY, By.ENVIRONMENT))

    # The keys once for their labels and once for their names.
    check(explained, {"verification_key_quarter": 20 * 24 * 7, "key": KEYS})


async def test_a_report_on_the_verifications_of_a_key_reads_those_of_the_key(explained: Explained) -> None:
    await ask_verifications(explained, asked(By.CODE, wanted=VerificationFilter(key_ids=(key(7),))))

    check(explained, {"verification_key_quarter": 24 * 7, "key": 24 * 7})


async def test_a_report_on_unknown_secrets_reads_those(explained: Explained) -> None:
    await ask_verifications(explained, asked(By.PREFIX, wanted=VerificationFilter(unknown_secrets=True)))

    check(explained, {})


async def test_reattributing_verifications_reads_those_of_the_moved_keys_and_the_labels_that_they_move_between(
    explained: Explained,
) -> None:
    way = ("env 5", "env 1", WORKSPACE)
    await move_verifications(explained, WORKSPACE, [key(1)], way)  # type: ignore[arg-type]

    hours = 24 * DAYS + 1
    check(explained, {"verification_key_quarter": hours, "verification_label_quarter": hours, "key": 0})
