"""Asking the same question repeatedly during a fault, and what was answered when."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2

from latchkey.v1 import verification_pb2, verify_service_pb2
from latchkey_server.app import build_workspaces
from latchkey_server.opening import open_storage, utc_now
from tests.support.process import drained, server_process
from tests.support.service import PEPPERS, Bearer, Client, Rejection, settings_for

CALL_SECONDS = 5.0
"""The deadline of each question: longer than any bound under test, shorter than a hang."""
PATIENCE = 40.0

VALID, STALE, NOT_FOUND, REVOKED = "VALID", "VALID STALE_RECORD", "NOT_FOUND", "REVOKED"
UNAVAILABLE, NOT_REACHED = "UNAVAILABLE DATABASE_UNAVAILABLE", "UNAVAILABLE REVISION_NOT_REACHED"

Ask = verify_service_pb2.VerifyRequest
clock = time.monotonic


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer, or the status of the failed call."""

    sent: float
    received: float
    said: str


def in_words(answer: verification_pb2.Verification) -> str:
    """Return a verdict with its degradations."""
    code = verification_pb2.VerifyCode.Name(answer.code).removeprefix("VERIFY_CODE_")
    degraded = [verification_pb2.Degradation.Name(kind).removeprefix("DEGRADATION_") for kind in answer.degraded]
    return " ".join([code, *degraded])


async def ask(client: Client, secret: str, asked: Ask | None = None) -> str:
    """Verify a secret and return what was said, be it a verdict or a status with its reason."""
    request = Ask(key=secret)
    if asked is not None:
        request.MergeFrom(asked)
    try:
        response = await client.verifier.Verify(request, timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        refused = Rejection(error)
        return f"{refused.code.name} {refused.reason}"
    return in_words(response.verification)


@dataclass(slots=True)
class Trial:
    """Answers to one question, asked again and again."""

    question: Callable[[], Awaitable[str]]
    samples: list[Sample] = field(default_factory=list)

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            sent = clock()
            said = await self.question()
            self.samples.append(Sample(sent, clock(), said))
            await asyncio.sleep(0.02)

    def said(self, begin: float, end: float = float("inf")) -> set[str]:
        """Return what was said to questions sent and answered between two moments."""
        return {sample.said for sample in self.samples if begin < sample.sent and sample.received < end}

    async def until(self, wanted: str) -> None:
        """Wait until a question that is sent from now on is answered like this."""
        begin = clock()
        await eventually(lambda: wanted in self.said(begin))


@asynccontextmanager
async def trials(**questions: Callable[[], Awaitable[str]]) -> AsyncIterator[dict[str, Trial]]:
    """Ask all of these questions until the context is left."""
    running = {name: Trial(question) for name, question in questions.items()}
    tasks = [asyncio.create_task(trial.run()) for trial in running.values()]
    try:
        yield running
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


@dataclass(slots=True)
class Server:
    """A server process, and its root OWNER as a client of it."""

    pid: int
    address: str
    channel: grpc.aio.Channel
    owner: Client

    async def health(self, service: str) -> bool:
        """Tell whether a service says that it is serving."""
        check = self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_SECONDS)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@asynccontextmanager
async def servers(dsn: str, *each: dict[str, str]) -> AsyncIterator[list[Server]]:
    """Run a server process for each of these settings, on one migrated database that no server has seen yet."""
    async with open_storage(settings_for(dsn)) as storage:
        secret = await build_workspaces(storage, utc_now).bootstrap()
    async with AsyncExitStack() as stack:
        common = {"LATCHKEY_DATABASE_URL": dsn, "LATCHKEY_PEPPERS": PEPPERS, "LATCHKEY_STOP_GRACE": "0.1"}
        starting = [stack.enter_async_context(server_process(**{**common, **settings})) for settings in each]
        running = await asyncio.gather(*starting)
        made = []
        for serving in running:
            await stack.enter_async_context(drained(serving))
            channel = await stack.enter_async_context(
                grpc.aio.insecure_channel(serving.address, interceptors=[Bearer(secret or "")])
            )
            made.append(Server(serving.process.pid, serving.address, channel, Client(channel, secret or "")))
        yield made
