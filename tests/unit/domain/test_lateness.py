"""The event loop's own lateness counts against nobody else, and is told."""

import asyncio
import socket
import threading
import time

import pytest
import structlog

from latchkey_server.background import LoopLag
from latchkey_server.domain.lateness import own_time
from tests.support.trial import eventually


async def test_what_takes_too_long_is_cut_short() -> None:
    with pytest.raises(TimeoutError):
        async with own_time(0.05):
            await asyncio.Event().wait()


async def test_what_is_done_in_time_is_not() -> None:
    async with own_time(30.0):
        await asyncio.sleep(0)
    # No time-out is left that could end what comes after it.
    await asyncio.sleep(0)


async def test_an_answer_that_came_while_the_loop_was_held_up_is_in_time() -> None:
    """It is read only after the time-out would be over."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    answering = threading.Timer(0.3, theirs.send, [b"!"])
    async with own_time(0.2):
        answering.start()
        # The loop is held up for longer than the time-out, and the answer comes meanwhile.
        time.sleep(0.6)  # noqa: ASYNC251
        assert await reader.readexactly(1) == b"!"
    writer.close()
    await writer.wait_closed()
    theirs.close()


async def test_lateness_is_measured_and_told() -> None:
    seen: list[float] = []
    with structlog.testing.capture_logs() as lines:
        lag = asyncio.create_task(LoopLag(seen.append).run())
        await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251
        await eventually(lambda: len(seen) > 1)
        lag.cancel()

    assert max(seen) >= 0.3
    assert [line["event"] for line in lines if line["seconds"] >= 0.3] == ["the event loop was late"]
