"""`latchkey-server` as a real process, as an operator runs it."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

COMMAND = Path(sys.executable).with_name("latchkey-server")
DEADLINE = 60.0


@dataclass(slots=True)
class Ended:
    """What a command printed and how it ended."""

    status: int
    out: str
    err: str


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this environment with these LATCHKEY_ settings and no others, but that a stop has no delay."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LATCHKEY_")}
    return {**inherited, "LATCHKEY_STOP_DELAY": "0", **settings}


async def run(*arguments: str, **settings: str) -> Ended:
    """Run a command to its end."""
    process = await _start((str(COMMAND), *arguments), settings)
    async with asyncio.timeout(DEADLINE):
        out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


@dataclass(slots=True)
class Serving:
    """A server process that has said that it serves."""

    process: asyncio.subprocess.Process
    log: list[dict[str, Any]] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)
    """What it wrote to standard output: where it listens, and the first owner's secret if this start made it."""

    @property
    def address(self) -> str:
        """Where it listens."""
        return str(next(entry["address"] for entry in self.log if entry["event"] == "listening"))

    @property
    def secret(self) -> str | None:
        """The first owner's secret, if this start showed one."""
        return next((json.loads(line).get("owner_secret") for line in self.printed), None)

    async def until_logged(self, event: str) -> dict[str, Any]:
        """Return the next log line with this event."""
        stream = self.process.stderr
        async with asyncio.timeout(DEADLINE):
            while stream is not None and (line := await stream.readline()):
                entry = json.loads(line)
                self.log.append(entry)
                if entry["event"] == event:
                    return dict(entry)
        raise AssertionError(f"the server ended without logging {event!r}: {self.log}")

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()


async def until_nobody_listens(address: str) -> None:
    """Wait until connections to an address are refused."""
    host, _, port = address.rpartition(":")
    async for attempt in AsyncRetrying(stop=stop_after_delay(DEADLINE), wait=wait_fixed(0.02), reraise=True):
        with attempt, socket.socket() as probe:
            assert probe.connect_ex((host, int(port)))


@asynccontextmanager
async def server_process(until: str = "serving", program: str | None = None, **settings: str) -> AsyncIterator[Serving]:
    """Run `latchkey-server serve` on a free port until the context is left, killed if need be.

    ``program`` is Python that calls its ``main``, if something is to happen around it.
    """
    command = (str(COMMAND),) if program is None else (sys.executable, "-c", program)
    settings = {"LATCHKEY_LISTEN": "127.0.0.1:0", "LATCHKEY_LOG_FORMAT": "json", **settings}
    process = await _start((*command, "serve"), settings)
    serving = Serving(process)
    try:
        await serving.until_logged(until)
        async with asyncio.timeout(DEADLINE):
            if process.stdout:
                serving.printed.append((await process.stdout.readline()).decode())
        yield serving
    finally:
        await _end(process)


@asynccontextmanager
async def drained(serving: Serving) -> AsyncIterator[None]:
    """Read what a server logs, lest the pipe fill up, and collect its errors."""

    async def drain() -> None:
        stream = serving.process.stderr
        while stream is not None and (line := await stream.readline()):
            if b'"level": "error"' in line:
                serving.log.append(json.loads(line))

    task = asyncio.create_task(drain())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a process that still runs and wait until its PostgreSQL is gone too, for its folder is removed next."""
    descendants = []
    if process.returncode is None:
        descendants = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    async with asyncio.timeout(DEADLINE):
        await process.communicate()
        await asyncio.to_thread(psutil.wait_procs, descendants, DEADLINE)


async def _start(command: tuple[str, ...], settings: Mapping[str, str]) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, env=environment(settings), stdout=pipe, stderr=pipe)
