"""Group commits: what callers of one workspace submit at the same time is written together, in one transaction.

While a workspace's group is being written the next one fills, so that groups grow with the load; after a group of
several the next one waits a moment for as many. A lone submission does not wait, and workspaces don't wait for each
other. When much is waiting, a second group of the workspace is prepared while the first one is written.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, NamedTuple, TypeVar, cast
from uuid import UUID

from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError

GROUP_MAX = 8_000
"""Events written by one transaction, more only when one submission alone holds more."""

WRITERS, ENOUGH = 2, 1_000
"""Groups of a workspace under way at once, and the events that must be waiting for a further one to begin."""

WRITING_MAX = 8
"""Groups of all workspaces that are written at once: each has a database connection meanwhile."""

PENDING_MAX = 200_000
"""Events that a process holds, waiting to be written; beyond them it refuses rather than grow."""

PATIENCE = 0.005
"""Seconds for which a group waits for as many submissions as the one before it had."""

Submitted = TypeVar("Submitted")
Result = TypeVar("Result")


class _Waiting(NamedTuple, Generic[Submitted, Result]):
    submitted: Submitted
    size: int
    result: "asyncio.Future[Result]"


class _Queue(Generic[Submitted, Result]):
    """The waiting submissions of one workspace, and the tasks that write them."""

    __slots__ = ("pending", "size", "waiting", "writers")

    def __init__(self) -> None:
        self.waiting: list[_Waiting[Submitted, Result]] = []
        self.size = 0
        """The waiting events."""
        self.pending = 0
        """The events that wait or are being written."""
        self.writers: set[asyncio.Task[None]] = set()

    def put(self, item: _Waiting[Submitted, Result]) -> None:
        """Add a submission."""
        self.waiting.append(item)
        self.size += item.size
        self.pending += item.size

    def take(self, most: int) -> list[_Waiting[Submitted, Result]]:
        """Remove and return the first submissions: up to ``most`` events, or the first alone."""
        size = taken = 0
        for item in self.waiting:
            if taken and size + item.size > most:
                break
            size += item.size
            taken += 1
        group, self.waiting = self.waiting[:taken], self.waiting[taken:]
        self.size -= size
        return group


class GroupCommit(Generic[Submitted, Result]):
    """Groups submissions by workspace and has them written; ``write`` gives a result for each, in order."""

    def __init__(
        self,
        write: Callable[[UUID, Sequence[Submitted]], Awaitable[Sequence[Result]]],
        group_max: int = GROUP_MAX,
        pending_max: int = PENDING_MAX,
    ) -> None:
        self._write = write
        self._group_max = group_max
        self._pending_max = pending_max
        self._queues: dict[UUID, _Queue[Submitted, Result]] = {}
        self._writing = asyncio.Semaphore(WRITING_MAX)
        self.pending = 0

    async def submit(self, workspace_id: UUID, submitted: Submitted, size: int) -> Result:
        """Return the result of a submission of ``size`` events once it is committed.

        Raises Overloaded when too much is waiting, and what the writing raises.
        """
        self.require_room(workspace_id, size)
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.pending += size
        queue = self._queues.setdefault(workspace_id, _Queue())
        queue.put(_Waiting(submitted, size, result))
        if not queue.writers or (queue.size >= ENOUGH and len(queue.writers) < WRITERS):
            queue.writers.add(asyncio.create_task(self._write_all(workspace_id, queue)))
        return await result

    def require_room(self, workspace_id: UUID, size: int) -> None:
        """Raise Overloaded if ``size`` more events may not wait: one workspace may fill at most half of the queue.

        A workspace with nothing pending is never refused.
        """
        queue = self._queues.get(workspace_id)
        if queue is not None and queue.pending:
            full = self.pending + size > self._pending_max
            if full or queue.pending + size > self._pending_max // 2:
                raise errors.Overloaded

    async def drain(self) -> None:
        """Wait until nothing is being written."""
        while writers := [writer for queue in self._queues.values() for writer in queue.writers]:
            await asyncio.wait(writers)

    async def _write_all(self, workspace_id: UUID, queue: _Queue[Submitted, Result]) -> None:
        """Write group after group until nothing waits."""
        try:
            while group := queue.take(self._group_max):
                await self._write_waited_for(workspace_id, queue, group)
                if len(queue.writers) == 1 and len(queue.waiting) < len(group) > 1:
                    # Callers that came together are likely to come again: one transaction for all of them is cheaper.
                    await asyncio.sleep(PATIENCE)
        finally:
            self._leave(workspace_id, queue)

    def _leave(self, workspace_id: UUID, queue: _Queue[Submitted, Result]) -> None:
        queue.writers.remove(cast("asyncio.Task[None]", asyncio.current_task()))
        if not queue.writers:
            del self._queues[workspace_id]
            # Only a cancelled writer leaves anything.
            for item in queue.take(sys.maxsize):
                self.pending -= item.size
                item.result.cancel()

    async def _write_waited_for(
        self, workspace_id: UUID, queue: _Queue[Submitted, Result], group: Sequence[_Waiting[Submitted, Result]]
    ) -> None:
        """Write a group without the submissions whose callers have given up: nobody would see their results."""
        try:
            waited_for = [item for item in group if not item.result.done()]
            if waited_for:
                await self._write_group(workspace_id, waited_for)
        finally:
            size = sum(item.size for item in group)
            self.pending -= size
            queue.pending -= size

    async def _write_group(self, workspace_id: UUID, group: Sequence[_Waiting[Submitted, Result]]) -> None:
        try:
            async with self._writing:
                results = await self._write(workspace_id, [item.submitted for item in group])
        except LatchkeyError as error:
            _fail(group, error)
        except Exception as error:
            # One of them can't be written: only its caller should see the error.
            if len(group) == 1:
                _fail(group, error)
            else:
                for item in group:
                    await self._write_group(workspace_id, [item])
        else:
            for item, result in zip(group, results, strict=True):
                if not item.result.done():
                    item.result.set_result(result)


def _fail(group: Sequence[_Waiting[Submitted, Result]], error: Exception) -> None:
    for item in group:
        if not item.result.done():
            item.result.set_exception(error)
