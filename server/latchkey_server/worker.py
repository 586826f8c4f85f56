"""A process that serves: the only one of its server, or one of several workers that a parent started.

A worker reads its orders from standard input, where neither a list of processes nor a log shows them, and answers on
standard output, in one line, that it serves or why it can't. Both are used once, and for nothing else.
"""

import asyncio
import ctypes
import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Final, NoReturn

import structlog

from latchkey_server.app import DATABASE_ENDED, Running, running_server
from latchkey_server.opening import StartError
from latchkey_server.settings import Settings, revealed
from latchkey_server.storage.embedded.launcher import tie_to_parent

SERVES: Final = b"serves\n"
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# The garbage collector examines objects that may be parts of a cycle: new ones often, all of them seldom, for walking a
# cache of 100,000 records takes hundreds of milliseconds in which calls wait. gRPC leaves a cycle of six objects at
# each call (the function inside its _find_method_handler refers to itself): collecting 500 at a time delays calls by a
# tenth of a millisecond, 10,000 by three.
GC_THRESHOLDS: Final = (500, 20, 1_000)

log = structlog.get_logger("latchkey")


async def serve(settings: Settings, begun: Callable[[Running], None], worker: int | None = None) -> None:
    """Serve until a signal asks to stop, and call ``begun`` at the beginning; raises StartError."""
    async with running_server(settings, worker=worker) as running:
        stop_on_signals(lambda number: running.stop(at_once=number == signal.SIGINT))
        _spare_the_garbage_collector()
        begun(running)
        await running.stopped.wait()
        log.info("stopping")
        failed = not running.asked_to_stop
        if not failed:
            await running.leave(settings.stop_delay)
    ignore_signals()
    # As it ends, the interpreter would walk all that is left several times: seconds, with a large cache, for nobody.
    gc.freeze()
    if failed:
        raise StartError(DATABASE_ENDED)


def _spare_the_garbage_collector() -> None:
    gc.collect()
    # What the start has made stays to the end: modules, classes, descriptors.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def stop_on_signals(stop: Callable[[signal.Signals], None]) -> None:
    """Call ``stop`` with each signal that asks to stop from now on."""
    for number in SIGNALS:
        # Who started us with it ignored, as nohup does, wants us to outlive the terminal.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, stop, number)


def ignore_signals() -> None:
    """Ignore signals for the rest of a stop: the loop would restore their default, which kills."""
    for number in SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True, slots=True)
class Orders:
    """What a parent passes to a worker."""

    number: int
    parent: int
    settings: Settings

    def encode(self) -> bytes:
        """Return what the worker reads."""
        orders = {"number": self.number, "parent": self.parent, "settings": revealed(self.settings)}
        return json.dumps(orders, default=str).encode()


class Worker:
    """This process as a worker: its orders, and its one answer."""

    def __init__(self, orders: Orders, answer: BinaryIO) -> None:
        self.orders = orders
        self._answer = answer

    async def serve(self) -> None:
        """Serve until a signal asks to stop."""
        await serve(self.orders.settings, lambda _: self._say(SERVES), self.orders.number)

    def fail(self, line: str) -> NoReturn:
        """Answer why this worker can't serve, and exit."""
        if self._answer.closed:
            log.error("failed", reason=line)
        else:
            self._say(f"{line}\n".encode())
        sys.exit(1)

    def _say(self, line: bytes) -> None:
        with self._answer:
            self._answer.write(line)


def take_orders() -> Worker:
    """Become the worker that standard input describes; ends with its parent, however that dies."""
    # Only the answer goes to standard output, whatever else may be printed.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    tie_to_parent(signal.SIGTERM, ctypes.CDLL(None, use_errno=True))
    try:
        orders = json.load(sys.stdin.buffer)
    except ValueError:
        sys.exit("latchkey-server: only `latchkey-server serve --workers N` starts a worker")
    if os.getppid() != orders["parent"]:
        sys.exit("latchkey-server: the server that started this worker is gone")
    structlog.contextvars.bind_contextvars(worker=orders["number"])
    return Worker(Orders(orders["number"], orders["parent"], Settings.model_validate(orders["settings"])), answer)
