"""When keys were last used: remembered in memory to a minute, written in batches, never in a verification's way."""

import asyncio
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.storage.database import Connection, Database

KEYS_MAX = 100_000
"""Keys remembered between two flushes; further ones are dropped rather than held without bound."""

PORTION = 1_000
"""Keys written by one statement."""


class LastUsedWriter:
    """Gathers uses and writes them every ``interval`` seconds while ``run`` is running."""

    def __init__(self, database: Database, interval: float) -> None:
        self._database = database
        self._interval = interval
        self._pending: dict[tuple[UUID, UUID], datetime] = {}

    def touch(self, workspace_id: UUID, key_id: UUID, used_time: datetime) -> None:
        """Remember a use, to the minute; never fails and never waits."""
        at = (workspace_id, key_id)
        if at in self._pending or len(self._pending) < KEYS_MAX:
            minute = used_time.replace(second=0, microsecond=0)
            self._pending[at] = max(minute, self._pending.get(at, minute))

    async def run(self) -> None:
        """Write what is pending, again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            await self.flush()

    async def flush(self) -> None:
        """Write what is pending now; in an outage it stays pending."""
        pending, self._pending = self._pending, {}
        if not pending:
            return
        written = False
        try:
            with suppress(DatabaseUnavailable):
                await self._write(pending)
                written = True
        finally:
            # Cut short by an outage or by a stop: the next flush takes it up again.
            if not written:
                for (workspace_id, key_id), used_time in pending.items():
                    self.touch(workspace_id, key_id, used_time)

    async def _write(self, pending: dict[tuple[UUID, UUID], datetime]) -> None:
        """Write in portions: sorting and sending all of a hundred thousand would keep every call waiting."""
        workspaces: dict[UUID, list[tuple[UUID, datetime]]] = {}
        for (workspace_id, key_id), used_time in pending.items():
            workspaces.setdefault(workspace_id, []).append((key_id, used_time))
        async with self._database.connection() as connection:
            for workspace_id, uses in workspaces.items():
                for begin in range(0, len(uses), PORTION):
                    await _write_portion(connection, workspace_id, sorted(uses[begin : begin + PORTION]))


async def _write_portion(connection: Connection, workspace_id: UUID, uses: list[tuple[UUID, datetime]]) -> None:
    """Write uses in the order of their keys, so that two servers can't wait for each other."""
    await connection.execute(
        "INSERT INTO key_last_used AS u (workspace_id, key_id, last_used_time) "
        "SELECT $1, * FROM unnest($2::uuid[], $3::timestamptz[]) "
        "ON CONFLICT (workspace_id, key_id) DO UPDATE SET last_used_time = excluded.last_used_time "
        "WHERE u.last_used_time < excluded.last_used_time",
        workspace_id,
        [key_id for key_id, _ in uses],
        [used for _, used in uses],
    )
