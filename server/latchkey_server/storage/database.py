"""The pool of connections, and the only code that turns a driver's errors into the domain's."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import asyncpg

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.turns import in_slices, turn
from latchkey_server.storage.outages import DRIVERS, NO_CONNECTION, OUTAGES, Unreachable, cause_of
from latchkey_server.storage.timelines import Timeline, Timelines

T = TypeVar("T")

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    _Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
    Row = asyncpg.Record
else:
    Connection = Pool = Row = Any
    _Connection = asyncpg.Connection

CONFLICTS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""What a retry of the whole transaction resolves."""

ROWS_AT_ONCE: Final = 50
"""Rows that are decoded without a look at the loop: in less than a millisecond."""


class Database:
    """A pool of connections to one PostgreSQL; it need not be reachable when this is made.

    A statement that exceeds the pool's statement time-out raises DatabaseUnavailable. Only look-ups, which are never
    slow, have a short one; for everything else the call's own deadline has to come first.
    """

    def __init__(self, pool: Pool, timelines: Timelines) -> None:
        self._pool = pool
        self.timelines = timelines

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection; raises DatabaseUnavailable for an outage while it is acquired or used.

        A connection whose use was cut short is closed: releasing it would wait for the query.
        """
        try:
            connection = await self._pool.acquire()
        except NO_CONNECTION as error:
            raise Unreachable(cause_of(error)) from None
        reusable = False
        try:
            with outages(connection):
                yield connection
            reusable = True
        except Unreachable:
            raise
        except Exception:
            reusable = True
            raise
        finally:
            if not reusable:
                # The pool may already have taken back one that the server has ended.
                with suppress(asyncpg.InterfaceError):
                    connection.terminate()
            await self._pool.release(connection)

    @asynccontextmanager
    async def transaction(self, *, snapshot: bool = False, readonly: bool = True) -> AsyncIterator[Connection]:
        """Lend a connection inside a transaction: read committed, or one ``snapshot`` that can't write if ``readonly``.

        One that is cut short gets no ROLLBACK: a stalled server would keep the caller waiting for the answer. Its
        connection is closed instead, and the server rolls back by itself.
        """
        async with self.connection() as connection:
            transaction = (
                connection.transaction(isolation="repeatable_read", readonly=readonly)
                if snapshot
                else connection.transaction()
            )
            await transaction.start()
            try:
                yield connection
            except OUTAGES:
                raise
            except Exception:
                await transaction.rollback()
                raise
            await transaction.commit()

    async def timeline(self, connection: Connection) -> Timeline:
        """Return what a connection reaches now; raises DatabaseUnavailable if that is not the database.

        Behind a pooler it may be another server than the one that the connection was made to.
        """
        try:
            return await _met(connection, self.timelines)
        except DatabaseUnavailable:
            await self.timelines.renew()
            raise


@contextmanager
def outages(connection: "Connection | asyncpg.Connection[asyncpg.Record]") -> Iterator[None]:
    """Raise DatabaseUnavailable for an outage while a connection is used."""
    try:
        yield
    except OUTAGES as error:
        raise Unreachable(cause_of(error)) from None
    except DRIVERS as error:
        if not _is_closed(connection):
            # A wrong call: to tell it as an outage would have everybody wait for what never ends.
            raise
        raise Unreachable(cause_of(error)) from None


def _is_closed(connection: "Connection | asyncpg.Connection[asyncpg.Record]") -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        # The pool has taken it back, since the server has ended it.
        return True


@asynccontextmanager
async def open_database(
    dsn: str,
    *,
    pool_size: int,
    timeout: float,
    statement_timeout: float | None = None,
    statement_cache_size: int = 1024,
    timelines: Timelines | None = None,
) -> AsyncIterator[Database]:
    """Open a pool of up to ``pool_size`` connections.

    ``timeout`` seconds bound acquiring a connection, and each statement unless ``statement_timeout`` is given. Pools
    that share ``timelines`` lend no connection to a former primary once one of them has met its successor.
    """
    timelines = timelines or Timelines()
    settings = {"application_name": "latchkey", "timezone": "UTC"}
    if statement_cache_size:
        # PostgreSQL itself ends a statement whose caller has given up. Not behind a transaction pooler, which does not
        # pass this setting on.
        settings["statement_timeout"] = f"{(statement_timeout or timeout) + 1:.0f}s"
    pool = asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=pool_size,
        timeout=timeout,
        command_timeout=statement_timeout or timeout,
        statement_cache_size=statement_cache_size,
        connection_class=asyncpg.Connection if statement_cache_size else _Pooled,
        init=partial(_prepare, timelines=timelines, timeout=timeout),
        reset=_no_reset,
        server_settings=settings,
    )
    # min_size=0: this sets the pool up without a connection, so that a server can start before its database.
    await pool
    try:
        with timelines.shared_by(pool.expire_connections):
            yield Database(pool, timelines)
    finally:
        await _close(pool, timeout)


class _Pooled(_Connection):
    """A connection behind a transaction pooler, where a named statement may be another server's: a cursor has one."""

    named_statements = False


async def read_rows(connection: Connection, convert: Callable[[Row], T], statement: str, *arguments: object) -> list[T]:
    """Return what ``convert`` makes of each row of a transaction's statement, read a portion at a time.

    A thousand rows at once would be decoded in one go; so others have their turn meanwhile.
    """
    if not getattr(connection, "named_statements", True):
        return await in_slices(convert, await connection.fetch(statement, *arguments))
    made = []
    async for row in connection.cursor(statement, *arguments, prefetch=ROWS_AT_ONCE):
        await turn()
        made.append(convert(row))
    return made


async def _close(pool: Pool, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def _prepare(connection: "asyncpg.Connection[asyncpg.Record]", *, timelines: Timelines, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await _met(connection, timelines)
            # In binary, since COPY takes nothing else.
            await connection.set_type_codec(
                "jsonb", encoder=_jsonb, decoder=lambda data: json.loads(data[1:]), schema="pg_catalog", format="binary"
            )
    except BaseException:
        # The pool would close it with a farewell, for which a stalled server keeps it waiting.
        connection.terminate()
        raise


async def _met(connection: "Connection | asyncpg.Connection[asyncpg.Record]", timelines: Timelines) -> Timeline:
    """Return the timeline that is written on now, which any role may ask for; raises DatabaseUnavailable.

    pg_control_checkpoint() would tell that of the last checkpoint, which a promotion does not wait for.
    """
    try:
        rows = await connection.fetch(
            "SELECT system_identifier, substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) AS timeline "
            "FROM pg_control_system()"
        )
    except asyncpg.ObjectNotInPrerequisiteStateError as error:
        # A standby: what it has applied says nothing about what was committed.
        raise Unreachable(cause_of(error)) from None
    timeline = Timeline(rows[0]["system_identifier"], int(rows[0]["timeline"], 16))
    await timelines.meet(timeline)
    return timeline


def _jsonb(value: object) -> bytes:
    return b"\x01" + json.dumps(value).encode()


async def _no_reset(_connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Reset nothing, since nothing is ever set for a session: a reset would be a round trip a call."""
