"""Notifications: they make the change feed poll sooner; losing them does no harm but delay."""

import asyncio
from typing import Final

import asyncpg
import structlog

from latchkey_server.backoff import Backoff
from latchkey_server.storage.channel import CHANNEL, read_payload
from latchkey_server.storage.database import OUTAGES
from latchkey_server.storage.verify.cache import KeyCache
from latchkey_server.storage.verify.change_feed import ChangeFeed

TIMEOUT: Final = 5.0
CHECK_SECONDS: Final = 5.0
BACKOFF_MIN, BACKOFF_MAX = 0.1, 5.0

log = structlog.get_logger("latchkey")


class Notifications:
    """Listens on a connection of its own: LISTEN works neither through a transaction pooler nor on a standby."""

    def __init__(self, dsn: str, feed: ChangeFeed, cache: KeyCache) -> None:
        self._dsn = dsn
        self._feed = feed
        self._cache = cache

    async def run(self) -> None:
        """Listen until cancelled, and reconnect when the connection is lost."""
        backoff = Backoff(BACKOFF_MIN, BACKOFF_MAX)
        while True:
            if await self._listened():
                backoff.reset()
            await asyncio.sleep(backoff.pause())

    async def _listened(self) -> bool:
        """Listen until the connection is lost, and tell whether listening had begun."""
        try:
            connection = await asyncpg.connect(self._dsn, timeout=TIMEOUT, command_timeout=TIMEOUT)
        except OUTAGES:
            return False
        try:
            return await self._listen(connection)
        finally:
            connection.terminate()

    async def _listen(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        lost = asyncio.Event()
        listened = False
        connection.add_termination_listener(lambda _connection: lost.set())
        try:
            await connection.add_listener(CHANNEL, self._take)
            listened = True
            # What was notified while nobody listened is not repeated.
            self._feed.hint_all()
            while not await _happened(lost, CHECK_SECONDS):
                await connection.execute("SELECT 1")
        except OUTAGES:
            pass
        log.warning("the notification connection was lost; changes are found by polling until it is back")
        return listened

    def _take(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        try:
            workspace_id, secret_added = read_payload(str(payload))
        except ValueError:
            self._feed.hint_all()
            return
        if secret_added:
            self._cache.forget_unknown()
        self._feed.hint(workspace_id)


async def _happened(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
