"""A clock that stands where a test sets it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.support.service import Client, serving

TICK = timedelta(microseconds=1)


@dataclass
class Hands:
    """Gives the instant that it was set to."""

    now: datetime

    def __call__(self) -> datetime:
        return self.now


def instant(text: str) -> datetime:
    """Return the UTC instant that ISO text names."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@asynccontextmanager
async def owner_by(dsn: str, clock: Hands) -> AsyncIterator[Client]:
    """Serve by a clock and give a client of the first OWNER of an ordinary workspace."""
    async with serving(dsn, clock) as service:
        yield await service.workspace()
