"""ReportConcurrency: how much of something goes on at once, in all and for one workspace, so that none takes it all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

REPORTS_MAX, REPORTS_EACH = 8, 4
"""Reports that a process reads at once, and of one workspace; further ones wait."""


class ReportConcurrency:
    """Lets so many go on; the others wait in the order in which they came."""

    def __init__(self, most: int = REPORTS_MAX, each: int = REPORTS_EACH) -> None:
        self._all = asyncio.Semaphore(most)
        self._each_most = each
        self._each: dict[UUID, asyncio.Semaphore] = {}
        self._users: dict[UUID, int] = {}

    @asynccontextmanager
    async def one(self, workspace_id: UUID) -> AsyncIterator[None]:
        """Take a share for as long as the context is open."""
        share = self._each.setdefault(workspace_id, asyncio.Semaphore(self._each_most))
        self._users[workspace_id] = self._users.get(workspace_id, 0) + 1
        try:
            # Its own first: who waits for others of its workspace keeps no other workspace waiting.
            async with share, self._all:
                yield
        finally:
            self._users[workspace_id] -= 1
            if not self._users[workspace_id]:
                del self._users[workspace_id], self._each[workspace_id]
