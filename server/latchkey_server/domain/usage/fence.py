"""Waiting while somebody has a workspace's usage to themselves."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.usage.ports import UsageFenced

T = TypeVar("T")

PAUSE, ATTEMPTS = 0.02, 1_000
"""Seconds between two tries, and how many there are: a fence falls by itself after a few seconds."""


async def unfenced(work: Callable[[], Awaitable[T]]) -> T:
    """Return what ``work`` gives once no fence keeps it out; raises DatabaseUnavailable."""
    for _ in range(ATTEMPTS):
        try:
            return await work()
        except UsageFenced:
            await asyncio.sleep(PAUSE)
    raise DatabaseUnavailable
