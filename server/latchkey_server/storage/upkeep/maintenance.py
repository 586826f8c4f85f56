"""Upkeep of the database: creates partitions ahead, applies retention, packs days that are over, reattributes labels.

Every step works in portions, each a short transaction, and may be cut short anywhere: the next run goes on from there.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID

import structlog

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.storage.database import CONFLICTS, Database
from latchkey_server.storage.outcomes.retention import forget_counts
from latchkey_server.storage.upkeep.pruning import prune_some
from latchkey_server.storage.upkeep.reattribution import reattribute_some, retagged_workspaces
from latchkey_server.storage.usage.packing import over_before, pack_some
from latchkey_server.storage.usage.partitions import ensure_partitions
from latchkey_server.storage.usage.retention import (
    BATCH,
    days_to_drop,
    drop_day,
    drop_stranded,
    first_retained_day,
    forget_identities,
)

ATTEMPTS = 10
SHORT_LIVED = timedelta(days=1)
"""How long changes, answered requests and reports of clients are retained."""

T = TypeVar("T")

log = structlog.get_logger("latchkey")


@dataclass(frozen=True, slots=True)
class Retention:
    """How long data is retained; None means for ever."""

    accepted: timedelta
    """How far back events are accepted; days that far back need their partitions."""
    events: timedelta | None
    identities: timedelta | None
    counts: timedelta
    """Verification counts."""


@dataclass(slots=True)
class UpkeepResult:
    """What a run of upkeep did."""

    partitions_made: int = 0
    partitions_dropped: int = 0
    identities_forgotten: int = 0
    counts_forgotten: int = 0
    rows_pruned: int = 0
    portions_packed: int = 0
    keys_reattributed: int = 0
    failures: int = 0


class LeaseLost(Exception):
    """Another server has taken the work over."""


class Maintenance:
    """Runs upkeep; ``still_ours`` decides before each portion whether to go on."""

    def __init__(
        self, database: Database, retention: Retention, still_ours: Callable[[], Awaitable[bool]], now: datetime
    ) -> None:
        self._database = database
        self._retention = retention
        self._still_ours = still_ours
        self._now = now
        self.done = UpkeepResult()

    async def run(self) -> UpkeepResult:
        """Do all of it; raises DatabaseUnavailable and LeaseLost.

        What fails for one workspace is logged and left for the next run; the other workspaces are not affected.
        """
        async with self._database.connection() as connection:
            self.done.partitions_made += await ensure_partitions(connection, self._now, self._retention.accepted)
            rows = await connection.fetch("SELECT workspace_id FROM workspace ORDER BY workspace_id")
        await self._drop_days()
        for row in rows:
            for step in (self._prune, self._drop_stranded, self._forget, self._forget_counts, self._pack):
                await self._attempt(step, row["workspace_id"])
        await self.reattribute()
        return self.done

    async def reattribute(self) -> None:
        """Reattribute the usage and the verifications of retagged keys."""
        for workspace_id in await retagged_workspaces(self._database):
            await self._attempt(self._reattribute, workspace_id)

    async def _attempt(self, step: Callable[[UUID], Awaitable[None]], workspace_id: UUID) -> None:
        try:
            await step(workspace_id)
        except LeaseLost:
            raise
        except Exception as error:
            self.done.failures += 1
            log.error("upkeep failed", step=step.__name__, workspace=str(workspace_id), error=type(error).__qualname__)

    async def _reattribute(self, workspace_id: UUID) -> None:
        while True:
            begun = time.monotonic()
            moved = await self._portion(reattribute_some, workspace_id)
            self.done.keys_reattributed += moved
            if not moved:
                return
            # Recording gets as much time as this took.
            await asyncio.sleep(time.monotonic() - begun)

    async def _prune(self, workspace_id: UUID) -> None:
        while (pruned := await self._portion(prune_some, workspace_id, self._now - SHORT_LIVED)) > 0:
            self.done.rows_pruned += pruned

    async def _pack(self, workspace_id: UUID) -> None:
        before = over_before(self._now)
        last: UUID | None = UUID(int=0)
        while (last := await self._portion(pack_some, workspace_id, last, before)) is not None:
            self.done.portions_packed += 1

    async def _drop_days(self) -> None:
        if self._retention.events is None:
            return
        for day in await days_to_drop(self._database, first_retained_day(self._now, self._retention.events)):
            self.done.partitions_dropped += await self._portion(drop_day, day)

    async def _drop_stranded(self, workspace_id: UUID) -> None:
        if self._retention.events is not None:
            before = first_retained_day(self._now, self._retention.events)
            while await self._portion(drop_stranded, workspace_id, before) == BATCH:
                pass

    async def _forget(self, workspace_id: UUID) -> None:
        if self._retention.identities is not None:
            before = first_retained_day(self._now, self._retention.identities)
            while (forgotten := await self._portion(forget_identities, workspace_id, before)) > 0:
                self.done.identities_forgotten += forgotten

    async def _forget_counts(self, workspace_id: UUID) -> None:
        before = first_retained_day(self._now, self._retention.counts)
        while (forgotten := await self._portion(forget_counts, workspace_id, before)) > 0:
            self.done.counts_forgotten += forgotten

    async def _portion(self, step: Callable[..., Awaitable[T]], *arguments: object) -> T:
        """Do one portion; a conflict with others who record the same keys makes it begin again."""
        for _ in range(ATTEMPTS):
            if not await self._still_ours():
                raise LeaseLost
            try:
                return await step(self._database, *arguments)
            except CONFLICTS:
                continue
        raise DatabaseUnavailable
