"""Servers are replaced one after another: a client that is set up as proto/README.md says notices nothing."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
from tests.support.process import DEADLINE, Serving, drained, server_process
from tests.support.service import PEPPERS, Bearer, Client

from latchkey.v1 import verification_pb2, verify_service_pb2, verify_service_pb2_grpc
from latchkey_server.settings import Settings

CALLERS = 8
ROLLOUT_SECONDS = 3.0
"""How long we tell everybody to wait, once a server serves, before the next is stopped."""

CONFIG = Path(__file__).parents[2] / "proto" / "service_config.json"
README = CONFIG.with_name("README.md")
OPTIONS = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000))
"""The channel arguments that we tell everybody to use."""


def channel_over(addresses: Sequence[str], secret: str) -> grpc.aio.Channel:
    """Return a channel to all of some servers, set up as we tell everybody and not otherwise."""
    options = (*OPTIONS, ("grpc.service_config", CONFIG.read_text(encoding="utf-8")))
    return grpc.aio.insecure_channel(f"ipv4:{','.join(addresses)}", options, interceptors=[Bearer(secret)])


class Callers:
    """Verify one secret over and over, and keep what became of it."""

    def __init__(self, channel: grpc.aio.Channel, secret: str) -> None:
        self._stub = verify_service_pb2_grpc.VerifyServiceStub(channel)
        self._request = verify_service_pb2.VerifyRequest(key=secret)
        self._more = asyncio.Event()
        self._over = False
        self.outcomes: Counter[str] = Counter()

    async def run(self) -> None:
        """Call until all is over."""
        while not self._over:
            try:
                answer = await self._stub.Verify(self._request)
                self.outcomes[verification_pb2.VerifyCode.Name(answer.verification.code)] += 1
            except grpc.aio.AioRpcError as error:
                self.outcomes[f"{error.code().name}: {error.details()}"] += 1
            self._more.set()

    async def until(self, more: int) -> None:
        """Wait until so many more calls have ended."""
        wanted = self.outcomes.total() + more
        async with asyncio.timeout(DEADLINE):
            while self.outcomes.total() < wanted:
                self._more.clear()
                await self._more.wait()

    def end(self) -> None:
        """Let the calls that are under way be the last."""
        self._over = True


@asynccontextmanager
async def serving_on(dsn: str, listen: str = "127.0.0.1:0") -> AsyncIterator[Serving]:
    delay = str(Settings.model_fields["stop_delay"].default)
    settings = {"LATCHKEY_DATABASE_URL": dsn, "LATCHKEY_PEPPERS": PEPPERS, "LATCHKEY_LISTEN": listen}
    settings["LATCHKEY_STOP_DELAY"] = delay
    async with server_process(**settings) as serving, drained(serving):
        yield serving


async def test_servers_that_are_replaced_in_turn_cost_no_caller_an_answer(owner: Client, dsn: str) -> None:
    secret = (await owner.create_key()).secret
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving_on(dsn)) for _ in range(2)]
        addresses = [server.address for server in servers]
        callers = Callers(await stack.enter_async_context(channel_over(addresses, owner.secret)), secret)
        running = [asyncio.create_task(callers.run()) for _ in range(CALLERS)]
        await callers.until(CALLERS)
        for number in (0, 1, 0):
            assert await servers[number].stop() == 0
            servers[number] = await stack.enter_async_context(serving_on(dsn, addresses[number]))
            await asyncio.sleep(ROLLOUT_SECONDS)
        await callers.until(CALLERS)
        callers.end()
        await asyncio.gather(*running)

    assert callers.outcomes.keys() == {"VERIFY_CODE_VALID"}, callers.outcomes


def test_what_the_clients_of_this_test_use_is_what_the_documentation_says() -> None:
    told = README.read_text(encoding="utf-8")

    assert f"wait {ROLLOUT_SECONDS:.0f} s" in told
    for name, value in OPTIONS:
        assert f'("{name}", {value})' in told
