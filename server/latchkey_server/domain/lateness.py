"""The event loop's own lateness: it is told by itself, and is never taken for somebody else's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

LOOKS: Final = 20
"""How many times a time-out looks at the clock: of the time between two looks at most twice the usual counts."""

LOOK_SECONDS: Final = 0.1
TOLD_FROM: Final = 0.25
"""Seconds of lateness that get a line in the log."""

log = structlog.get_logger("latchkey")


@asynccontextmanager
async def own_time(seconds: float) -> AsyncIterator[None]:
    """Raise TimeoutError as ``asyncio.timeout`` does, but not for time in which this loop did not come round.

    A loop that was held up (by its own work, a stopped process, a machine that slept) finds its time-outs over before
    it has read what came meanwhile.
    """
    loop, step = asyncio.get_running_loop(), seconds / LOOKS
    waited, last = 0.0, loop.time()

    async with asyncio.timeout(None) as bound:
        handle: asyncio.TimerHandle

        def look() -> None:
            nonlocal waited, last, handle
            now = loop.time()
            waited += min(now - last, 2 * step)
            last = now
            if waited >= seconds:
                bound.reschedule(now)
            else:
                handle = loop.call_later(step, look)

        handle = loop.call_later(step, look)
        try:
            yield
        finally:
            handle.cancel()


class LoopLag:
    """Measures how late the loop comes round; ``observe`` receives seconds."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            await asyncio.sleep(LOOK_SECONDS)
            late = max(0.0, loop.time() - begun - LOOK_SECONDS)
            self._observe(late)
            if late >= TOLD_FROM:
                log.warning("the event loop was late", seconds=round(late, 3))
