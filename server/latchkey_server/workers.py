"""Several worker processes on one port, for more than one core: their parent starts, restarts and stops them.

The parent serves no call. It holds the port, runs the embedded PostgreSQL, migrates and bootstraps. Each worker is a
server of its own otherwise: they share the database only, as servers on several machines do.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Final, cast

import structlog
from pydantic import SecretStr

from latchkey_server.app import DATABASE_ENDED, address_taken, build_workspaces, until_closed, with_port
from latchkey_server.background import background
from latchkey_server.backoff import Backoff
from latchkey_server.opening import StartError, Storage, open_storage, prepare_embedded, utc_now
from latchkey_server.settings import PREFIX, Settings, write_peppers
from latchkey_server.transport.grpc.port import held_port
from latchkey_server.worker import SERVES, Orders, ignore_signals, stop_on_signals

PAUSE_MIN: Final = 0.1
PAUSE_MAX: Final = 5.0
SERVED_SECONDS: Final = 10.0
"""A worker that served for so long is restarted as if it had never failed."""

STOP_SECONDS: Final = 30.0
"""Seconds that a worker may take to stop, beside the grace of its open calls."""

# A fresh interpreter that looks for no module in the current folder; never a fork, which gRPC does not survive.
_COMMAND: Final = (sys.executable, "-P", "-m", "latchkey_server", "worker")

log = structlog.get_logger("latchkey")


async def serve_with_workers(settings: Settings, begun: Callable[[str, str | None], None]) -> None:
    """Serve with several workers until a signal asks to stop; raises StartError.

    ``begun`` is called once all of them serve, with the address and the first owner's secret if this start made it.
    """
    stopped, asked = asyncio.Event(), list[signal.Signals]()
    async with AsyncExitStack() as stack:
        address = _held_address(settings, stack)
        storage = await stack.enter_async_context(open_storage(settings))
        if storage.embedded:
            await prepare_embedded(storage, settings, utc_now)
        worker_settings = _worker_settings(settings, address, storage)
        slots = [WorkerSlot(number, worker_settings) for number in range(settings.workers)]
        stack.push_async_callback(_stop, slots, asked, settings.stop_delay + settings.stop_grace + STOP_SECONDS)
        await _start(slots)
        for slot in slots:
            await background(stack, slot.run)
        if storage.embedded:
            await background(stack, lambda: until_closed(storage.embedded, stopped))
        # Last of all: a start that fails after it would have shown the first owner's secret to nobody.
        owner_secret = await build_workspaces(storage, utc_now).bootstrap() if storage.embedded else None
        stop_on_signals(partial(_ask_to_stop, slots, asked, stopped))
        begun(address, owner_secret)
        await stopped.wait()
        log.info("stopping")
    ignore_signals()
    if not asked:
        raise StartError(DATABASE_ENDED)


def _ask_to_stop(
    slots: Sequence["WorkerSlot"], asked: list[signal.Signals], stopped: asyncio.Event, number: signal.Signals
) -> None:
    """Begin the stop; a further signal is the workers' too, for it ends their delay."""
    if asked:
        for slot in slots:
            slot.send(number)
    asked.append(number)
    stopped.set()


def _held_address(settings: Settings, stack: AsyncExitStack) -> str:
    """Return the address with its port, held until the stack is unwound."""
    try:
        return with_port(settings.listen, stack.enter_context(held_port(settings.listen)))
    except OSError:
        raise address_taken(settings) from None


def _worker_settings(settings: Settings, address: str, storage: Storage) -> Settings:
    """Return the settings of every worker: the parent's, with its port, its database and its peppers."""
    peppers = write_peppers(storage.peppers.current, storage.peppers.keys)
    found = {"listen": address, "database_url": SecretStr(storage.dsn), "peppers": SecretStr(peppers)}
    return settings.model_copy(update=found)


async def _start(slots: Sequence["WorkerSlot"]) -> None:
    """Fill every slot; raises StartError for the first that can't be filled."""
    try:
        async with asyncio.TaskGroup() as group:
            for slot in slots:
                group.create_task(slot.fill())
    except* StartError as failed:
        # One line is enough: what fails one worker mostly fails all.
        raise failed.exceptions[0] from None


async def _stop(slots: Sequence["WorkerSlot"], asked: Sequence[signal.Signals], seconds: float) -> None:
    number = asked[0] if asked else signal.SIGTERM
    await asyncio.gather(*(slot.leave(number, seconds) for slot in slots))


class WorkerSlot:
    """One slot among the workers, and the process that fills it."""

    def __init__(self, number: int, settings: Settings) -> None:
        self._number = number
        self._orders = Orders(number, os.getpid(), settings).encode()
        self._process: asyncio.subprocess.Process | None = None
        self._serving_since: float | None = None

    async def fill(self) -> None:
        """Start a process and return once it serves; raises StartError with its line if it can't."""
        self._process = self._serving_since = None
        try:
            self._process = process = await _spawn()
        except OSError as error:
            raise StartError(f"worker {self._number} can't be started: {error.strerror}") from None
        answer = await _answer(process, self._orders)
        if answer != SERVES:
            line = answer.decode().strip() or f"worker {self._number} {_ending(await process.wait())} before it served"
            raise StartError(line)
        self._serving_since = asyncio.get_running_loop().time()
        log.info("worker serves", worker=self._number, pid=process.pid)

    async def run(self) -> None:
        """Fill the slot again whenever its process has ended, until cancelled."""
        backoff = Backoff(PAUSE_MIN, PAUSE_MAX)
        while True:
            if await self._served() >= SERVED_SECONDS:
                backoff.reset()
            await asyncio.sleep(backoff.pause())
            try:
                await self.fill()
            except StartError as error:
                log.error("worker can't serve", worker=self._number, reason=str(error))

    async def _served(self) -> float:
        """Wait for the end of the process and return for how many seconds it served."""
        if self._process is None:
            return 0.0
        status = await self._process.wait()
        log.error("worker ended", worker=self._number, pid=self._process.pid, how=_ending(status))
        began, now = self._serving_since, asyncio.get_running_loop().time()
        return 0.0 if began is None else now - began

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal, if there is one."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def leave(self, number: signal.Signals, seconds: float) -> None:
        """Have the process drain its calls and end, by force if it takes too long."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.send(number)
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            log.error("worker does not stop and is killed", worker=self._number, pid=process.pid)
            process.kill()
            await process.wait()


async def _spawn() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *_COMMAND,
        # Its settings come as orders: secrets stand in the parent's environment only.
        env={name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # A terminal's Ctrl-C goes to the parent, which passes it on.
        start_new_session=True,
    )


async def _answer(process: asyncio.subprocess.Process, orders: bytes) -> bytes:
    """Give a process its orders and return its answer, empty if it ended without one."""
    stdin, stdout = cast(asyncio.StreamWriter, process.stdin), cast(asyncio.StreamReader, process.stdout)
    stdin.write(orders)
    stdin.close()
    with suppress(ConnectionError):
        await stdin.wait_closed()
    return await stdout.readline()


def _ending(status: int) -> str:
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
