"""The event loop's own lateness, which is never taken for somebody else's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

LOOKS: Final = 20
"""How many times a time-out looks at the clock: of the time between two looks at most twice the usual counts."""


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
