"""ReportConcurrency: how many reports run at once, in all and of one workspace, so that none takes all slots."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

REPORTS_MAX, REPORTS_EACH = 8, 4
"""Reports that a process reads at once, and of one workspace; further ones wait."""


class ReportConcurrency:
    """Lets ``most`` reports run, ``each`` of one workspace; the others wait in order of arrival."""

    def __init__(self, most: int = REPORTS_MAX, each: int = REPORTS_EACH) -> None:
        self._all = asyncio.Semaphore(most)
        self._each_most = each
        self._each: dict[UUID, asyncio.Semaphore] = {}
        self._users: dict[UUID, int] = {}

    @asynccontextmanager
    async def one(self, workspace_id: UUID) -> AsyncIterator[None]:
        """Hold a slot while the context is open."""
        own = self._each.setdefault(workspace_id, asyncio.Semaphore(self._each_most))
        self._users[workspace_id] = self._users.get(workspace_id, 0) + 1
        try:
            # The workspace's slot first: who waits for it must not hold one that another workspace could use.
            async with own, self._all:
                yield
        finally:
            self._users[workspace_id] -= 1
            if not self._users[workspace_id]:
                del self._users[workspace_id], self._each[workspace_id]
