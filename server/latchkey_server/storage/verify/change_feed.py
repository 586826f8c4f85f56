"""The change feed: follows the revisions of the workspaces that matter here, and applies each change in order.

The poll is the truth; a notification only makes it come sooner (``notifications``). What is confirmed is confirmed at
an instant before the query was sent. After a revision that went back, pruned changes, or another timeline of the
database (a failover, a restore) what is cached may belong to another history: it is dropped. An earlier timeline is a
former primary and not the database (``timelines``).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from latchkey_server.backoff import Backoff
from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.freshness import NEVER, Instant
from latchkey_server.domain.lateness import own_time
from latchkey_server.domain.model import Change, ChangeKind, Revision
from latchkey_server.domain.verify.model import AppliedChange
from latchkey_server.domain.verify.watching import Watchers
from latchkey_server.storage.database import Connection, Database, Row
from latchkey_server.storage.outages import cause_of
from latchkey_server.storage.timelines import Timeline
from latchkey_server.storage.verify.availability import Availability
from latchkey_server.storage.verify.cache import KeyCache

POLL_SECONDS: Final = 0.5
"""How often everything is polled: with POLL_TIMEOUT well within the hard bound of 2 s."""

POLL_TIMEOUT: Final = 1.0
BACKOFF_MIN, BACKOFF_MAX = 0.1, 1.0
CHANGES_MAX: Final = 10_000
"""Changes of one workspace that are read at once; a workspace further behind is dropped instead."""

log = structlog.get_logger("latchkey")


class ChangeFeed:
    """Keeps a cache and watchers up to date with the database."""

    def __init__(
        self,
        database: Database,
        cache: KeyCache,
        watchers: Watchers,
        availability: Availability,
        instant: Callable[[], Instant],
    ) -> None:
        self._database = database
        self._cache = cache
        self._watchers = watchers
        self._availability = availability
        self._instant = instant
        self._woken = asyncio.Event()
        self._hints: set[UUID] = set()
        self._all_due_at = instant()
        self._waiting: list[asyncio.Future[None]] = []
        self._failures = 0
        self._backoff = Backoff(BACKOFF_MIN, BACKOFF_MAX)
        self._unanswered = False
        self._timeline: Timeline | None = None
        self._follows_everything = False
        self._everything_at = NEVER

    def hint(self, workspace_id: UUID) -> None:
        """Have a workspace polled right away."""
        self._hints.add(workspace_id)
        self._woken.set()

    def hint_all(self) -> None:
        """Have everything polled right away."""
        self._all_due_at = self._instant()
        self._woken.set()

    async def caught_up(self) -> None:
        """Wait for a poll of everything that begins after this call; raises DatabaseUnavailable if it fails."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self.hint_all()
        await future

    @property
    def epoch(self) -> str:
        """The timeline of the database: it changes with a failover and with a restore."""
        return "" if self._timeline is None else str(self._timeline)

    def confirmed_at(self, workspace_id: UUID | None) -> Instant:
        """Return when a workspace, or everything, was last confirmed."""
        if workspace_id is None:
            return self._everything_at
        history = self._cache.histories.get(workspace_id)
        return history.confirmed_at if history else NEVER

    def revision(self, workspace_id: UUID) -> int:
        """Return the last change of a workspace that was applied."""
        history = self._cache.histories.get(workspace_id)
        return history.revision if history else 0

    async def since(self, workspace_id: UUID, after: int, until: int) -> list[AppliedChange] | None:
        """Return the changes behind ``after`` up to ``until``, or None if some are no longer stored."""
        if not 0 <= until - after <= CHANGES_MAX:
            return None
        async with self._database.connection() as connection:
            changes = await read_changes(connection, after, Revision(workspace_id, until))
        return changes if len(changes) == until - after else None

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.look(await self._due())

    async def look(self, only: Collection[UUID] | None = None) -> None:
        """Poll some workspaces, or everything, once."""
        waiting: list[asyncio.Future[None]] = []
        if only is None:
            waiting, self._waiting = self._waiting, []
            self._all_due_at = self._instant() + POLL_SECONDS
        begun, self._unanswered = self._instant(), False
        try:
            await self._poll(only)
        except (DatabaseUnavailable, TimeoutError) as error:
            self._fail(error)
            _settle(waiting, DatabaseUnavailable())
        except asyncpg.UndefinedTableError:
            # Not migrated yet: nothing can be followed, and the check of the schema reports why.
            self._succeed(begun)
            _settle(waiting, DatabaseUnavailable())
        except BaseException:
            _settle(waiting, DatabaseUnavailable())
            raise
        else:
            self._succeed(begun)
            _settle(waiting, None)

    async def _due(self) -> Collection[UUID] | None:
        """Wait until a poll is due, and return the workspaces to poll, None for everything."""
        if self._failures:
            # The first failure is retried at once: the server may have ended just this connection.
            await asyncio.sleep(self._backoff.pause() if self._failures > 1 else 0.0)
            return None
        remaining = self._all_due_at - self._instant()
        if remaining > 0:
            try:
                async with asyncio.timeout(remaining):
                    await self._woken.wait()
            except TimeoutError:
                return None
        self._woken.clear()
        hints, self._hints = self._hints, set()
        return hints if self._instant() < self._all_due_at else None

    def _succeed(self, begun: Instant) -> None:
        self._failures = 0
        self._backoff.reset()
        self._reached(begun)

    def _reached(self, begun: Instant) -> None:
        """End an outage: before anything is dropped that was answered all through it."""
        if self._availability.lost:
            log.info("the database is reachable again")
        self._availability.answered(begun)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Bound one step of a poll, and remember if it was not answered."""
        try:
            async with own_time(POLL_TIMEOUT):
                yield
        except TimeoutError:
            self._unanswered = True
            raise

    def _fail(self, error: Exception) -> None:
        """Count a failure: an unanswered poll, or a second failure, is an outage."""
        self._failures += 1
        if self._unanswered or self._failures > 1:
            if not self._availability.lost:
                log.warning("the database is not reachable", **cause_of(error).shown)
            self._availability.failed()

    async def _poll(self, only: Collection[UUID] | None) -> None:
        at = self._instant()
        everything = self._watchers.everything
        followed = self._cache.followed(self._watchers.workspaces, at, everything=everything)
        if only is not None and not everything:
            followed = {workspace_id: highest for workspace_id, highest in followed.items() if workspace_id in only}
            if not followed:
                return
        async with self._connection() as connection:
            at = self._instant()
            async with self._in_time():
                await self._check_timeline(connection, at)
                revisions = await self._revisions(connection, followed, only)
            self._reached(at)
            for workspace_id, current in revisions.items():
                # A time-out for each: many changed workspaces take their time and are no outage.
                async with self._in_time():
                    await self._follow(connection, Revision(workspace_id, current), followed.get(workspace_id, 0), at)
        if only is None:
            self._follows_everything = everything
            self._everything_at = at if everything else NEVER

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Lend a connection, acquired within the time-out of a step."""
        async with AsyncExitStack() as stack:
            async with self._in_time():
                connection = await stack.enter_async_context(self._database.connection())
            yield connection

    async def _check_timeline(self, connection: Connection, at: Instant) -> None:
        timeline = await self._database.timeline(connection)
        if self._timeline not in (None, timeline):
            log.warning("the database has begun a new timeline: everything cached is dropped")
            self._reached(at)
            for workspace_id in list(self._cache.histories):
                self._watchers.reset(workspace_id, 0)
            self._cache.drop_all()
        self._timeline = timeline

    async def _revisions(
        self, connection: Connection, followed: Collection[UUID], only: Collection[UUID] | None
    ) -> dict[UUID, int]:
        if self._watchers.everything:
            rows = await connection.fetch(
                "SELECT workspace_id, revision FROM workspace_revision WHERE $1::uuid[] IS NULL "
                "OR workspace_id = ANY($1)",
                None if only is None else list(only),
            )
        else:
            rows = await connection.fetch(
                "SELECT workspace_id, revision FROM workspace_revision WHERE workspace_id = ANY($1::uuid[])",
                list(followed),
            )
        found = {row["workspace_id"]: row["revision"] for row in rows}
        gone = {} if only is not None else dict.fromkeys(followed, 0)
        return gone | found

    async def _follow(self, connection: Connection, current: Revision, highest: int, at: Instant) -> None:
        """Bring one workspace up to its current revision; ``highest`` is the highest seen of it before the query."""
        workspace_id = current.workspace_id
        history = self._cache.histories.get(workspace_id)
        if history is None:
            # While all workspaces are watched, a new one begins with its first change.
            begun = 0 if self._follows_everything else current.number
            history = self._cache.history(workspace_id, begun, at)
        if current.number < highest:
            self._drop(current, "its revision went back", at)
            return
        if current.number > history.revision:
            changes = await self._changes(connection, history.revision, current)
            if changes is None:
                self._drop(current, "its changes are no longer stored", at)
                return
            self._cache.apply(current, [(applied.revision, applied.change) for applied in changes])
            self._watchers.publish(changes)
        self._cache.histories[workspace_id].confirmed_at = at

    async def _changes(self, connection: Connection, after: int, current: Revision) -> list[AppliedChange] | None:
        """Return the changes behind ``after`` up to the current revision, or None if too many or not all stored."""
        missing = current.number - after
        if missing > CHANGES_MAX:
            return None
        changes = await read_changes(connection, after, current)
        return changes if len(changes) == missing else None

    def _drop(self, current: Revision, why: str, at: Instant) -> None:
        log.warning("what is cached of a workspace is dropped", workspace=str(current.workspace_id), why=why)
        self._cache.drop_workspace(current.workspace_id)
        self._cache.history(current.workspace_id, current.number, at)
        self._watchers.reset(current.workspace_id, current.number)


async def read_changes(connection: Connection, after: int, current: Revision) -> list[AppliedChange]:
    """Return the changes of a workspace behind ``after``, up to a revision, in order."""
    rows = await connection.fetch(
        "SELECT c.workspace_id, c.revision, c.kind, c.target_id, k.api_id FROM change c "
        "LEFT JOIN key k ON k.workspace_id = c.workspace_id AND k.key_id = c.target_id "
        "WHERE c.workspace_id = $1 AND c.revision > $2 AND c.revision <= $3 ORDER BY c.revision",
        current.workspace_id,
        after,
        current.number,
    )
    return [_applied_of(row) for row in rows]


def _applied_of(row: Row) -> AppliedChange:
    change = Change(ChangeKind(row["kind"]), row["target_id"])
    return AppliedChange(row["workspace_id"], row["revision"], change, row["api_id"])


def _settle(waiting: Collection[asyncio.Future[None]], error: Exception | None) -> None:
    for future in waiting:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
