"""Waiting while a fence keeps others from recording for a workspace."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.usage.ports import UsageFenced

T = TypeVar("T")

PAUSE, ATTEMPTS = 0.02, 1_000
"""Seconds between two attempts, and how many there are: a fence expires after a few seconds."""


async def unfenced(work: Callable[[], Awaitable[T]]) -> T:
    """Return what ``work`` gives once no fence keeps it out; raises DatabaseUnavailable."""
    for _ in range(ATTEMPTS):
        try:
            return await work()
        except UsageFenced:
            await asyncio.sleep(PAUSE)
    raise DatabaseUnavailable
