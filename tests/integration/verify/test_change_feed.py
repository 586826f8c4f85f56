"""The change feed on a real PostgreSQL: every change is applied, in order, and what can't be followed is dropped."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2
from structlog.testing import capture_logs

from latchkey_server.background import HealthCheck, Readiness
from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.freshness import History, instant
from latchkey_server.domain.model import Api, Change, ChangeKind
from latchkey_server.domain.verify.model import AppliedChange
from latchkey_server.domain.verify.watching import BACKLOG_MAX, Reset, Watchers
from latchkey_server.opening import load_peppers, utc_now
from latchkey_server.storage.database import Connection, Database, open_database
from latchkey_server.storage.embedded.server import EmbeddedServer
from latchkey_server.storage.keys.keys import PostgresKeys
from latchkey_server.storage.tenants.apis import PostgresApis
from latchkey_server.storage.tenants.workspaces import PostgresWorkspaces
from latchkey_server.storage.timelines import Timeline
from latchkey_server.storage.verify import change_feed, notifications
from latchkey_server.storage.verify.availability import Availability
from latchkey_server.storage.verify.cache import KeyCache
from latchkey_server.storage.verify.change_feed import ChangeFeed
from latchkey_server.storage.verify.notifications import Notifications
from latchkey_server.transport.grpc.health import SERVICES, Health
from tests.support.postgres import answer, locked, until_somebody_listens, until_somebody_waits
from tests.support.service import settings_for
from tests.unit.builders import (
    API_ID,
    KEY_ID,
    MANAGEMENT_KEY_ID,
    NOW,
    OTHER_API_ID,
    OTHER_KEY_ID,
    OTHER_WORKSPACE_ID,
    WORKSPACE_ID,
    make_caller,
    make_key,
    make_record,
    make_workspace,
    uuid_of,
)

SECRET, OTHER_SECRET = b"1" * 32, b"2" * 32
KEY, OTHER_KEY = Change(ChangeKind.KEY_CHANGED, KEY_ID), Change(ChangeKind.KEY_CHANGED, OTHER_KEY_ID)
NEVER_POLL = 3_600.0
PATIENCE = 30.0


class Feeding:
    """A change feed with all that it keeps up to date, and a database to change."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.cache, self.watchers, self.availability = KeyCache(1_000, 1_000_000), Watchers(), Availability()
        self.feed = ChangeFeed(database, self.cache, self.watchers, self.availability, instant)

    async def change(self, *changes: Change, workspace_id: UUID = WORKSPACE_ID) -> int:
        """Commit changes and return the revision."""
        async with self.changing(*changes, workspace_id=workspace_id) as revision:
            return revision

    @asynccontextmanager
    async def changing(self, *changes: Change, workspace_id: UUID = WORKSPACE_ID) -> AsyncIterator[int]:
        """Commit changes when the context is left."""
        async with self.database.transaction() as connection:
            workspaces = PostgresWorkspaces(connection)
            current = await workspaces.lock_revision(workspace_id)
            await workspaces.append_changes(workspace_id, current, changes, NOW)
            yield current + len(changes)

    async def execute(self, statement: str, *values: object) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement, *values)

    def keep(self, revision: int, sha256: bytes = SECRET, key_id: UUID = KEY_ID) -> History:
        """Keep a key that was read at a revision, and return its workspace's history."""
        at = instant()
        history = self.cache.history(WORKSPACE_ID, revision, at)
        record = make_record(make_key(key_id=key_id), revision=revision, read_at=at, history=history)
        self.cache.add_records([sha256], {sha256: record}, self.cache.loading(at))
        return history

    def kept(self, sha256: bytes = SECRET) -> bool:
        record = self.cache.records.get(sha256)
        return record is not None and not record.history.dropped

    @property
    def revision(self) -> int:
        """The last revision that was applied."""
        return self.cache.histories[WORKSPACE_ID].revision

    def has_applied(self, revision: int) -> bool:
        return self.revision == revision

    @asynccontextmanager
    async def running(self, dsn: str | None = None) -> AsyncIterator[None]:
        """Run the feed, and with a DSN its notifications, until the context is left."""
        tasks = [asyncio.create_task(self.feed.run())]
        if dsn:
            tasks.append(asyncio.create_task(Notifications(dsn, self.database, self.feed, self.cache).run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


@pytest_asyncio.fixture
async def feeding(dsn: str) -> AsyncIterator[Feeding]:
    """A feed of two workspaces with an api and a key each, at revision 1."""
    async with open_database(dsn, pool_size=4, timeout=30) as database:
        async with database.transaction() as connection:
            await insert_workspace(connection, WORKSPACE_ID, API_ID, KEY_ID)
            await insert_workspace(connection, OTHER_WORKSPACE_ID, OTHER_API_ID, OTHER_KEY_ID)
        yield Feeding(database)


async def insert_workspace(connection: Connection, workspace_id: UUID, api_id: UUID, key_id: UUID) -> None:
    workspaces = PostgresWorkspaces(connection)
    await workspaces.insert(make_workspace(workspace_id=workspace_id, default_api_id=api_id, name=str(workspace_id)))
    await PostgresApis(connection).insert(make_api(workspace_id, api_id))
    await PostgresKeys(connection).insert([make_key(workspace_id=workspace_id, api_id=api_id, key_id=key_id)])
    await workspaces.append_changes(workspace_id, 0, [Change(ChangeKind.WORKSPACE_CHANGED, workspace_id)], NOW)


def make_api(workspace_id: UUID, api_id: UUID, *, is_default: bool = True) -> Api:
    return Api(workspace_id, api_id, str(api_id), is_default, NOW, NOW, 1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


# Following.


async def test_a_look_applies_every_change_once_and_confirms_the_rest(feeding: Feeding) -> None:
    feeding.keep(1)
    feeding.keep(1, OTHER_SECRET, OTHER_KEY_ID)
    await feeding.feed.look()
    assert (feeding.revision, feeding.kept(), feeding.kept(OTHER_SECRET)) == (1, True, True)

    await feeding.change(OTHER_KEY)
    await feeding.change(Change(ChangeKind.API_CHANGED, API_ID))
    await feeding.feed.look()

    assert (feeding.revision, feeding.kept(), feeding.kept(OTHER_SECRET)) == (3, True, False)


async def test_what_is_confirmed_was_so_before_the_look_was_sent(feeding: Feeding, dsn: str) -> None:
    history = feeding.keep(1)
    begun = instant()
    async with locked(dsn, "LOCK TABLE workspace_revision IN ACCESS EXCLUSIVE MODE"):
        looking = asyncio.create_task(feeding.feed.look())
        await until_somebody_waits(dsn)
        sent = instant()
    await looking

    assert begun <= history.confirmed_at < sent
    assert feeding.availability.reached_at is not None
    assert begun <= feeding.availability.reached_at < sent


async def test_a_mutation_that_pauses_before_its_commit_for_several_looks_is_not_missed(feeding: Feeding) -> None:
    feeding.keep(1)
    async with feeding.changing(KEY):
        for _ in range(4):
            await feeding.feed.look()
            await feeding.change(OTHER_KEY, workspace_id=OTHER_WORKSPACE_ID)
        assert (feeding.revision, feeding.kept()) == (1, True)

    await feeding.feed.look()

    assert (feeding.revision, feeding.kept()) == (2, False)


async def test_a_look_at_one_workspace_leaves_the_others_as_they_are(feeding: Feeding) -> None:
    feeding.keep(1)
    await feeding.change(KEY)

    await feeding.feed.look({OTHER_WORKSPACE_ID})
    assert (feeding.revision, feeding.kept()) == (1, True)

    await feeding.feed.look({WORKSPACE_ID})
    assert (feeding.revision, feeding.kept()) == (2, False)


async def test_a_workspace_of_which_nothing_is_kept_or_watched_is_not_followed(feeding: Feeding) -> None:
    await feeding.feed.look()
    await feeding.feed.look({WORKSPACE_ID})

    assert feeding.cache.histories == {}


# What can't be followed.


async def test_changes_that_are_pruned_drop_the_workspace_and_it_is_followed_anew(feeding: Feeding) -> None:
    feeding.keep(1)
    await feeding.change(OTHER_KEY, OTHER_KEY)
    await feeding.execute("DELETE FROM change WHERE workspace_id = $1 AND revision = 2", WORKSPACE_ID)

    with feeding.watchers.watching(make_caller()) as watch:
        await feeding.feed.look()
        assert await watch.events(0) == [Reset(3)]

    assert (feeding.revision, feeding.kept()) == (3, False)
    feeding.keep(3)
    await feeding.feed.look()
    assert feeding.kept()


async def test_a_workspace_that_is_too_far_behind_is_dropped(feeding: Feeding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_feed, "CHANGES_MAX", 3)
    feeding.keep(1)
    await feeding.change(*[OTHER_KEY] * 3)
    await feeding.feed.look()
    assert feeding.kept()

    await feeding.change(*[OTHER_KEY] * 4)
    await feeding.feed.look()

    assert (feeding.revision, feeding.kept()) == (8, False)


async def test_a_revision_that_goes_back_drops_the_workspace_and_no_other(feeding: Feeding) -> None:
    await feeding.change(OTHER_KEY)
    feeding.keep(2)
    other = feeding.cache.history(OTHER_WORKSPACE_ID, 1, instant())
    await feeding.execute("UPDATE workspace_revision SET revision = 1 WHERE workspace_id = $1", WORKSPACE_ID)

    with feeding.watchers.watching(make_caller()) as watch:
        await feeding.feed.look()
        assert await watch.events(0) == [Reset(1)]

    assert (feeding.revision, feeding.kept(), other.dropped) == (1, False, False)


async def test_a_revision_below_one_that_only_a_load_or_a_change_made_here_has_met_drops_too(feeding: Feeding) -> None:
    feeding.keep(1)
    feeding.cache.history(WORKSPACE_ID, 5, instant())

    await feeding.feed.look()

    assert (feeding.revision, feeding.kept()) == (1, False)


async def test_a_workspace_that_is_not_there_any_more_is_dropped(feeding: Feeding) -> None:
    feeding.keep(1)
    await feeding.execute("DELETE FROM workspace_revision WHERE workspace_id = $1", WORKSPACE_ID)

    await feeding.feed.look()

    assert not feeding.kept()


async def test_a_new_timeline_drops_everything(feeding: Feeding) -> None:
    """As a promoted standby or a restored backup begins one: its numbers may mean something else."""
    await feeding.feed.look()
    feeding.keep(1)
    feeding.cache.add_records([OTHER_SECRET], {}, feeding.cache.loading(instant()))
    load = feeding.cache.loading(instant())
    feeding.feed._timeline = Timeline(1, 1)

    with feeding.watchers.watching(make_caller()) as watch:
        await feeding.feed.look()
        assert await watch.events(0) == [Reset()]

    assert not feeding.kept()
    assert not feeding.cache.unknown_key(OTHER_SECRET, instant())
    assert load.resets != feeding.cache.loading(instant()).resets


# Availability.


async def test_one_connection_that_is_ended_is_no_outage(feeding: Feeding, dsn: str) -> None:
    await feeding.feed.look()
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()

    history = feeding.keep(1)
    kept_at = history.confirmed_at
    await feeding.feed.look()
    assert not feeding.availability.lost

    await feeding.feed.look()
    assert not feeding.availability.lost
    assert history.confirmed_at > kept_at


async def test_a_database_that_is_gone_is_lost_at_the_second_look_and_everybody_is_told_once(feeding: Feeding) -> None:
    told: list[str] = []
    async with open_database("postgresql://postgres@127.0.0.1:1/nowhere", pool_size=1, timeout=5) as nowhere:
        feed = ChangeFeed(nowhere, feeding.cache, feeding.watchers, feeding.availability, instant)
        feeding.availability.on_lost(lambda: told.append("lost"))
        history = feeding.keep(1)
        confirmed = history.confirmed_at
        states = []
        with capture_logs() as logs:
            for _ in range(3):
                await feed.look()
                states.append(feeding.availability.lost)

    assert states == [False, True, True]
    assert [(line["event"], line["error"], "host and port" in line["hint"]) for line in logs] == [
        ("the database is not reachable", "ConnectionRefusedError", True)
    ]
    assert told == ["lost"]
    assert history.confirmed_at == confirmed
    await feeding.feed.look()
    assert (feeding.availability.lost, feeding.kept()) == (False, True)


async def test_a_database_that_does_not_answer_is_lost_at_once(
    feeding: Feeding, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "POLL_TIMEOUT", 0.05)
    history = feeding.keep(1)
    async with locked(dsn, "LOCK TABLE workspace_revision IN ACCESS EXCLUSIVE MODE"):
        confirmed = history.confirmed_at
        await feeding.feed.look()
        assert feeding.availability.lost
        with pytest.raises(DatabaseUnavailable):
            feeding.availability.require()
    assert history.confirmed_at == confirmed


async def test_an_outage_is_over_with_the_drop_of_what_is_cached_not_after_it(feeding: Feeding, dsn: str) -> None:
    """Between the two a key could be answered neither stale, for it is dropped, nor by a look-up."""
    await feeding.feed.look()
    feeding.keep(1)
    feeding.availability.failed()
    feeding.feed._timeline = Timeline(1, 1)
    async with locked(dsn, "LOCK TABLE workspace_revision IN ACCESS EXCLUSIVE MODE"):
        looking = asyncio.create_task(feeding.feed.look())
        await until_somebody_waits(dsn)
        assert (feeding.kept(), feeding.availability.lost) == (False, False)
    await looking


async def test_an_outage_is_over_with_the_drop_of_one_workspace_too(feeding: Feeding, dsn: str) -> None:
    await feeding.change(OTHER_KEY)
    feeding.keep(2)
    feeding.cache.history(OTHER_WORKSPACE_ID, 0, instant())
    await feeding.execute("UPDATE workspace_revision SET revision = 1 WHERE workspace_id = $1", WORKSPACE_ID)
    feeding.availability.failed()
    async with locked(dsn, "LOCK TABLE change IN ACCESS EXCLUSIVE MODE"):
        looking = asyncio.create_task(feeding.feed.look())
        await until_somebody_waits(dsn)
        assert (feeding.kept(), feeding.availability.lost) == (False, False)
    await looking


async def test_whoever_waits_to_be_caught_up_waits_for_a_look_begun_since(feeding: Feeding) -> None:
    feeding.keep(1)
    async with feeding.running():
        revision = await feeding.change(KEY)
        await feeding.feed.caught_up()
        assert feeding.revision == revision


async def test_whoever_waits_to_be_caught_up_is_told_of_an_outage(
    feeding: Feeding, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "POLL_TIMEOUT", 0.05)
    feeding.keep(1)
    async with locked(dsn, "LOCK TABLE workspace_revision IN ACCESS EXCLUSIVE MODE"), feeding.running():
        with pytest.raises(DatabaseUnavailable):
            await feeding.feed.caught_up()


async def test_health_is_told_of_an_outage_that_begins_during_a_look_at_the_schema(dsn: str) -> None:
    health, availability, readiness = Health(), Availability(), Readiness()
    readiness.set(None)
    peppers = load_peppers(settings_for(dsn))
    async with open_database(dsn, pool_size=1, timeout=PATIENCE * 2) as database:
        while_lost = timedelta(seconds=60)
        watch = HealthCheck(database, peppers, availability, while_lost, health, readiness, utc_now, instant)
        availability.answered(instant())
        async with locked(dsn, "LOCK TABLE schema_migration IN ACCESS EXCLUSIVE MODE"):
            looking = asyncio.create_task(watch.look())
            await until_somebody_waits(dsn)
            availability.failed()
            async with asyncio.timeout(PATIENCE):
                await looking

    check = health.servicer.Check
    context = cast(Any, None)
    serving = {
        service: (await check(health_pb2.HealthCheckRequest(service=service), context)).status for service in SERVICES
    }
    assert {service for service, status in serving.items() if status == health_pb2.HealthCheckResponse.SERVING} == {
        "",
        "latchkey.v1.VerifyService",
    }


# Being told, or not.


async def test_changes_of_which_no_notification_tells_are_found(feeding: Feeding) -> None:
    feeding.keep(1)
    async with feeding.running():
        for _ in range(3):
            revision = await feeding.change(KEY)
            await until(partial(feeding.has_applied, revision))

    assert not feeding.kept()


async def test_a_notification_wakes_the_feed(feeding: Feeding, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_feed, "POLL_SECONDS", NEVER_POLL)
    feeding.keep(1)
    async with feeding.running(dsn):
        await until_somebody_listens(dsn)
        for _ in range(3):
            revision = await feeding.change(KEY)
            await until(partial(feeding.has_applied, revision))


async def test_a_notification_of_a_new_secret_ends_every_unknown_one(
    feeding: Feeding, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a workspace that is not followed here: the secret may have been asked for before it was made."""
    monkeypatch.setattr(change_feed, "POLL_SECONDS", NEVER_POLL)
    async with feeding.running(dsn):
        await until_somebody_listens(dsn)
        feeding.cache.add_records([SECRET], {}, feeding.cache.loading(instant() + 1_000))
        await feeding.change(Change(ChangeKind.SECRET_ADDED, OTHER_KEY_ID), workspace_id=OTHER_WORKSPACE_ID)
        await until(lambda: not feeding.cache.unknown_key(SECRET, instant()))


async def test_what_was_told_while_nobody_listened_is_found_once_somebody_does(
    feeding: Feeding, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "POLL_SECONDS", NEVER_POLL)
    feeding.keep(1)
    connection = await asyncpg.connect(dsn)
    async with feeding.running(dsn):
        for _ in range(3):
            pid = await until_somebody_listens(dsn)
            await connection.execute("SELECT pg_terminate_backend($1)", pid)
            revision = await feeding.change(KEY)
            await until(partial(feeding.has_applied, revision))
    await connection.close()


async def test_a_notification_that_cannot_be_read_has_everything_looked_at(
    feeding: Feeding, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_feed, "POLL_SECONDS", NEVER_POLL)
    feeding.keep(1)
    async with feeding.running(dsn):
        await until_somebody_listens(dsn)
        await until(lambda: feeding.availability.reached_at is not None)
        async with feeding.database.transaction() as connection:
            await connection.execute("UPDATE workspace_revision SET revision = 9 WHERE workspace_id = $1", WORKSPACE_ID)
            await connection.execute("SELECT pg_notify('latchkey_change', 'of a later version')")
        await until(lambda: not feeding.kept())


@pytest.mark.parametrize(
    "refusal",
    [
        asyncpg.ReadOnlySQLTransactionError("cannot execute LISTEN during recovery"),
        asyncpg.FeatureNotSupportedError("no LISTEN through this pooler"),
    ],
    ids=["a standby", "a pooler"],
)
async def test_a_server_that_refuses_to_be_listened_to_is_not_asked_again_and_again(
    feeding: Feeding, dsn: str, monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    """The connection is made, and LISTEN fails."""
    attempts: list[str] = []

    class Refusing:
        def add_termination_listener(self, _call: object) -> None: ...

        def terminate(self) -> None: ...

        async def add_listener(self, channel: str, _call: object) -> None:
            attempts.append(channel)
            raise refusal

    async def connect(*_arguments: object, **_options: object) -> Refusing:
        return Refusing()

    monkeypatch.setattr(asyncpg, "connect", connect)
    begun = instant()
    async with feeding.running(dsn):
        await until(lambda: instant() > begun + 0.5)

    # After 0, 0.1 and 0.3 seconds.
    assert 1 <= len(attempts) <= 3


async def test_a_connection_that_hears_no_notification_is_told_once_and_changes_are_found_all_the_same(
    feeding: Feeding, postgres: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of another database; through a transaction pooler nothing is heard either."""
    monkeypatch.setattr(notifications, "TIMEOUT", 0.1)
    feeding.keep(1)
    elsewhere = postgres.dsn("postgres")
    with capture_logs() as logs:
        async with feeding.running(elsewhere):
            first = await until_somebody_listens(elsewhere)
            await until(partial(logged, logs, "no notification is heard"))
            second = await until_somebody_listens(elsewhere, besides=first)
            revision = await feeding.change(KEY)
            await until(partial(feeding.has_applied, revision))
            await until_somebody_listens(elsewhere, besides=second)

    assert logged(logs, "no notification is heard")
    assert not feeding.kept()


async def test_a_connection_that_hears_again_is_told_and_warned_of_when_it_is_lost_again(
    feeding: Feeding, dsn: str
) -> None:
    with capture_logs() as logs:
        async with feeding.running(dsn):
            for times in (1, 2):
                pid = await until_somebody_listens(dsn)
                await answer(dsn, f"SELECT pg_terminate_backend({pid})")
                await until(partial(logged, logs, "the notification connection was lost", times))
                await until(partial(logged, logs, "notifications are heard again", times))


async def test_why_notifications_cannot_be_listened_to_is_told_once(feeding: Feeding, postgres: EmbeddedServer) -> None:
    with capture_logs() as logs:
        begun = instant()
        async with feeding.running(postgres.dsn("nowhere")):
            await until(lambda: instant() > begun + 0.5)

    assert [line["sqlstate"] for line in logs if line["event"].startswith("notifications can't")] == ["3D000"]


def logged(logs: Sequence[MutableMapping[str, Any]], event: str, times: int = 1) -> bool:
    """Tell whether an event was logged as many times."""
    return len([line for line in logs if str(line["event"]).startswith(event)]) == times


# Watching.


async def test_watchers_get_the_changes_in_order(feeding: Feeding) -> None:
    with feeding.watchers.watching(make_caller()) as watch:
        await feeding.feed.look()
        await feeding.change(KEY, Change(ChangeKind.SECRET_ADDED, KEY_ID))
        await feeding.change(Change(ChangeKind.WORKSPACE_CHANGED, WORKSPACE_ID))
        await feeding.feed.look()
        await feeding.change(Change(ChangeKind.IDENTITY_CHANGED, uuid_of(31)))
        await feeding.feed.look()

        events = await watch.events(0)

    assert events == [
        AppliedChange(WORKSPACE_ID, 2, KEY, API_ID),
        AppliedChange(WORKSPACE_ID, 3, Change(ChangeKind.SECRET_ADDED, KEY_ID), API_ID),
        AppliedChange(WORKSPACE_ID, 4, Change(ChangeKind.WORKSPACE_CHANGED, WORKSPACE_ID), None),
        AppliedChange(WORKSPACE_ID, 5, Change(ChangeKind.IDENTITY_CHANGED, uuid_of(31)), None),
    ]


async def test_watchers_learn_nothing_of_other_workspaces_nor_of_management_keys(feeding: Feeding) -> None:
    with (
        feeding.watchers.watching(make_caller()) as watch,
        feeding.watchers.watching(make_caller(workspace_id=OTHER_WORKSPACE_ID)) as other,
    ):
        await feeding.feed.look()
        await feeding.change(OTHER_KEY, workspace_id=OTHER_WORKSPACE_ID)
        await feeding.change(Change(ChangeKind.MANAGEMENT_KEY_CHANGED, MANAGEMENT_KEY_ID))
        await feeding.feed.look()

        assert await watch.events(0) == []
        assert await other.events(0) == [AppliedChange(OTHER_WORKSPACE_ID, 2, OTHER_KEY, OTHER_API_ID)]


async def test_watchers_learn_nothing_of_keys_of_apis_that_they_are_not_bound_to(feeding: Feeding) -> None:
    foreign, its_key = uuid_of(13), uuid_of(23)
    async with feeding.database.transaction() as connection:
        await PostgresApis(connection).insert(make_api(WORKSPACE_ID, foreign, is_default=False))
        await PostgresKeys(connection).insert([make_key(api_id=foreign, key_id=its_key)])

    with feeding.watchers.watching(make_caller(api_ids=frozenset({API_ID}))) as watch:
        await feeding.feed.look()
        await feeding.change(
            Change(ChangeKind.KEY_CHANGED, its_key),
            Change(ChangeKind.SECRET_ADDED, its_key),
            Change(ChangeKind.API_CHANGED, foreign),
            KEY,
            Change(ChangeKind.API_CHANGED, API_ID),
        )
        await feeding.feed.look()

        told = [event.change for event in await watch.events(0) if isinstance(event, AppliedChange)]

    assert told == [KEY, Change(ChangeKind.API_CHANGED, API_ID)]


async def test_a_watcher_that_falls_behind_is_told_to_begin_anew_and_gets_what_comes_after(feeding: Feeding) -> None:
    with feeding.watchers.watching(make_caller()) as watch:
        await feeding.feed.look()
        for changes in itertools.repeat([KEY] * (BACKLOG_MAX // 4), 4):
            await feeding.change(*changes)
        await feeding.feed.look()
        assert len(await watch.events(0)) == BACKLOG_MAX

        await feeding.change(*[KEY] * (BACKLOG_MAX + 3))
        await feeding.feed.look()
        events = await watch.events(0)

    assert isinstance(events[0], Reset)
    assert [event.revision for event in events[1:] if isinstance(event, AppliedChange)] == [2_002, 2_003, 2_004]


async def test_somebody_who_watches_all_workspaces_learns_of_each_one_s_first_change(feeding: Feeding) -> None:
    born, key_id = uuid_of(3), uuid_of(24)
    with feeding.watchers.watching(make_caller(all_workspaces=True)) as watch:
        await feeding.feed.look()
        assert await watch.events(0) == []
        async with feeding.database.transaction() as connection:
            await insert_workspace(connection, born, uuid_of(14), key_id)
        await feeding.change(OTHER_KEY, workspace_id=OTHER_WORKSPACE_ID)
        await feeding.feed.look()

        events = await watch.events(0)

    assert {(event.workspace_id, event.revision) for event in events if isinstance(event, AppliedChange)} == {
        (born, 1),
        (OTHER_WORKSPACE_ID, 2),
    }
