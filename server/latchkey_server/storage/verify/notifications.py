"""Notifications: they make the change feed poll sooner; losing them does no harm but delay.

A connection that hears nothing looks like one to which nothing is told: through a transaction pooler, to another
database or to a former primary. So a notification of its own is sent to it now and then, over another connection.
"""

import asyncio
import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import asyncpg
import structlog

from latchkey_server.backoff import Backoff
from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.storage.channel import CHANNEL, read_payload
from latchkey_server.storage.database import Database, outages
from latchkey_server.storage.outages import NO_CONNECTION, cause_of
from latchkey_server.storage.verify.cache import KeyCache
from latchkey_server.storage.verify.change_feed import ChangeFeed

TIMEOUT: Final = 5.0
CHECK_SECONDS: Final = 5.0
BACKOFF_MIN, BACKOFF_MAX = 0.1, 5.0
_DEAF: Final = {"hint": "LATCHKEY_LISTEN_DSN has to lead to the same database and past a transaction pooler"}

log = structlog.get_logger("latchkey")


class Notifications:
    """Listens on a connection of its own: LISTEN works neither through a transaction pooler nor on a standby."""

    def __init__(self, dsn: str, database: Database, feed: ChangeFeed, cache: KeyCache) -> None:
        self._dsn = dsn
        self._database = database
        self._feed = feed
        self._cache = cache
        self._warned: set[str] = set()

    async def run(self) -> None:
        """Listen until cancelled, and reconnect when the connection is lost or hears nothing."""
        backoff = Backoff(BACKOFF_MIN, BACKOFF_MAX)
        while True:
            if await self._listened():
                backoff.reset()
            await asyncio.sleep(backoff.pause())

    async def _listened(self) -> bool:
        """Listen until the connection is lost or hears nothing, and tell whether it has heard anything."""
        try:
            connection = await asyncpg.connect(self._dsn, timeout=TIMEOUT, command_timeout=TIMEOUT)
        except NO_CONNECTION as error:
            self._warn("notifications can't be listened to", cause_of(error).shown)
            return False
        try:
            with outages(connection):
                return await self._listen(connection)
        except (DatabaseUnavailable, asyncpg.PostgresError) as error:
            # A pooler may refuse LISTEN as such.
            self._warn("notifications can't be listened to", cause_of(error).shown)
            return False
        finally:
            connection.terminate()

    async def _listen(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        ear = _Ear()
        connection.add_termination_listener(lambda _connection: ear.lose())
        await connection.add_listener(CHANNEL, self._take)
        await connection.add_listener(ear.channel, lambda *_told: ear.heard.set())
        # What was notified while nobody listened is not repeated.
        self._feed.hint_all()
        heard = False
        while await self._hears(ear):
            heard = True
            if self._warned:
                log.info("notifications are heard again")
            self._warned.clear()
            await _happened(ear.lost, CHECK_SECONDS)
        if ear.lost.is_set():
            self._warn("the notification connection was lost")
        else:
            self._warn("no notification is heard", _DEAF)
        return heard

    async def _hears(self, ear: "_Ear") -> bool:
        """Tell whether the connection hears what is told now; while nothing can be told, it is believed to."""
        ear.heard.clear()
        try:
            async with self._database.connection() as teller:
                await teller.execute("SELECT pg_notify($1, '')", ear.channel)
        except DatabaseUnavailable:
            return not ear.lost.is_set()
        return await _happened(ear.heard, TIMEOUT) and not ear.lost.is_set()

    def _warn(self, event: str, shown: Mapping[str, str] = MappingProxyType({})) -> None:
        """Log each event once, until notifications are heard again."""
        if event not in self._warned:
            log.warning(f"{event}; changes are found by polling", **shown)
        self._warned.add(event)

    def _take(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        try:
            workspace_id, secret_added = read_payload(str(payload))
        except ValueError:
            self._feed.hint_all()
            return
        if secret_added:
            self._cache.forget_unknown()
        self._feed.hint(workspace_id)


class _Ear:
    """What one connection hears of itself."""

    def __init__(self) -> None:
        self.channel = f"{CHANNEL}_{secrets.token_hex(8)}"
        self.heard, self.lost = asyncio.Event(), asyncio.Event()

    def lose(self) -> None:
        """Note the end of the connection: whoever waits for a notification has waited long enough."""
        self.lost.set()
        self.heard.set()


async def _happened(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
