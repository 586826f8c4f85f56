"""Background load at a steady rate, a process of its own: a plan on standard input, then until that ends."""

import asyncio
import itertools
import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypedDict

import grpc
import uvloop

from latchkey.v1 import verify_service_pb2 as pb
from tests.bench.load import CALL_SECONDS, CHANNELS, IN_FLIGHT, SERVICE, channels
from tests.bench.seed import Metadata

TICK_SECONDS = 0.005


class Plan(TypedDict):
    """Whom to ask for which secrets, and how many of them a second in all."""

    addresses: list[str]
    secrets: list[str]
    credential: list[list[str]]
    rate: float


class UpkeepResult(TypedDict):
    """What became of it: calls answered and failed, and the seconds it took."""

    answered: int
    failed: int
    seconds: float


class Pace:
    """Asks at a steady rate; what can't be asked because too much is under way is left out."""

    def __init__(self, calls: Sequence[Any], requests: Iterator[bytes], metadata: Metadata) -> None:
        self._calls = itertools.cycle(calls)
        self._requests = requests
        self._metadata = metadata
        self._under_way: set[asyncio.Task[None]] = set()
        self.answered = self.failed = 0

    async def run(self, rate: float) -> None:
        """Ask until cancelled, and return when all is answered."""
        try:
            await self._ask_on(rate)
        finally:
            await asyncio.gather(*self._under_way)

    async def _ask_on(self, rate: float) -> None:
        loop = asyncio.get_running_loop()
        due, last = 0.0, loop.time()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = loop.time()
            due, last = min(due + (now - last) * rate, IN_FLIGHT), now
            while due >= 1 and len(self._under_way) < 4 * IN_FLIGHT:
                due -= 1
                task = asyncio.create_task(self._ask())
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

    async def _ask(self) -> None:
        try:
            await next(self._calls)(next(self._requests), metadata=self._metadata, timeout=CALL_SECONDS)
            self.answered += 1
        except grpc.aio.AioRpcError:
            self.failed += 1


async def main() -> None:
    """Read the plan, ask until standard input ends, print what became of it."""
    plan: Plan = json.loads(sys.stdin.readline())
    requests = [pb.VerifyRequest(key=secret).SerializeToString() for secret in plan["secrets"]]
    metadata = tuple((name, value) for name, value in plan["credential"])
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        over = [await stack.enter_async_context(channels(address, 2 * CHANNELS)) for address in plan["addresses"]]
        calls: list[Any] = [opened[at].unary_unary(SERVICE + "Verify") for at in range(2 * CHANNELS) for opened in over]
        pace, begun = Pace(calls, itertools.cycle(requests), metadata), loop.time()
        asking = asyncio.create_task(pace.run(plan["rate"]))
        await asyncio.to_thread(sys.stdin.read)
        asking.cancel()
        await asyncio.wait([asking])
    print(json.dumps(UpkeepResult(answered=pace.answered, failed=pace.failed, seconds=loop.time() - begun)))


@asynccontextmanager
async def paced(plan: Plan, done: list[UpkeepResult]) -> AsyncIterator[None]:
    """Run a plan in a process of its own until the context is left; ``done`` then holds what became of it."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.pace"), stdin=pipe, stdout=pipe, limit=2**20
    )
    assert process.stdin
    try:
        process.stdin.write(json.dumps(plan).encode() + b"\n")
        await process.stdin.drain()
        yield
    finally:
        process.stdin.close()
        out, _ = await process.communicate()
    done.append(json.loads(out))


if __name__ == "__main__":
    uvloop.run(main())
