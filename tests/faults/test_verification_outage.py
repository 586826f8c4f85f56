"""Verification counts through faults: held through an outage and written once, at most once through kills (spec §5)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

import pytest
from tests.faults.test_outage import eventually
from tests.integration.outcomes.test_counts import asking, codes, counted
from tests.support.crashes import Installation, installation
from tests.support.postgres import stalled
from tests.support.service import Client
from tests.support.trial import NOT_FOUND, STALE, UNAVAILABLE, VALID, ask

from latchkey.v1 import key_pb2

SETTINGS = {"LATCHKEY_FLUSH_INTERVAL": "0.1", "LATCHKEY_DATABASE_TIMEOUT": "0.5"}
"""Many flushes, and such as are given up while PostgreSQL stands still."""

ASKERS = 8
Outage = Callable[[Installation], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def killed(running: Installation) -> AsyncIterator[None]:
    """Do without PostgreSQL until the context is left."""
    await running.kill_postgres()
    yield
    await running.start_postgres()


@asynccontextmanager
async def standing_still(running: Installation) -> AsyncIterator[None]:
    """Have PostgreSQL stand still until the context is left: what was sent to it is done later."""
    with stalled(running.postgres):
        yield


class Asking:
    """Verifications asked of a server, counted by what was answered."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.answered: Counter[str] = Counter()
        self.degraded = 0
        self.over = False

    @property
    def total(self) -> int:
        """How many got a verdict."""
        return self.answered.total()

    async def ask(self, secret: str) -> str:
        """Verify a secret once."""
        said = await ask(self._client, secret)
        code, _, degraded = said.partition(" ")
        if code != "UNAVAILABLE":
            self.answered[code] += 1
            self.degraded += bool(degraded)
        return said

    async def until(self, secret: str, wanted: str) -> None:
        """Ask until this is answered."""
        async with asyncio.timeout(40):
            while True:
                if await self.ask(secret) == wanted:
                    return
                await asyncio.sleep(0.02)

    async def on_and_on(self, *secrets: str) -> None:
        """Ask for these until it is over."""
        while not self.over:
            for secret in secrets:
                await self.ask(secret)
            await asyncio.sleep(0.005)


async def until_counted(running: Installation, owner: Client, least: int) -> None:
    """Wait until so many verifications are counted."""
    told = -1
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            while told < least:
                told = await eventually(partial(total_of, owner))
                await asyncio.sleep(0.05)
    complaints = [entry for entry in running.serving.log if entry["level"] == "error"]
    assert told >= least, f"{told} of {least} are counted; the server says: {complaints}"


async def told_by(running: Installation, owner: Client, asked: Asking, secret: str) -> dict[str, int]:
    """Return what is counted once all that was answered is, and all that was flushed before something newer."""
    await until_counted(running, owner, asked.total)
    await asked.until(secret, VALID)
    await until_counted(running, owner, asked.total)
    return codes(await owner.usage.QueryVerifications(asking("CODE")))


async def total_of(owner: Client) -> int:
    return (await owner.usage.QueryVerifications(asking())).total


@pytest.mark.parametrize("outage", [killed, standing_still])
async def test_what_is_answered_in_an_outage_is_counted_after_it_and_once(outage: Outage) -> None:
    async with installation(**SETTINGS) as running:
        owner = await running.client()
        made, off = await owner.create_key(), await owner.create_key(key_pb2.Key(enabled=False))
        asked = Asking(owner)
        await asked.until(made.secret, VALID)
        await asked.until(off.secret, "DISABLED")
        for _ in range(2):
            async with outage(running):
                await asked.until("sk_unknown", UNAVAILABLE)
                await asked.until(made.secret, STALE)
                for _ in range(20):
                    assert await asked.ask(made.secret) == STALE
                    await asked.ask(off.secret)
                    await asyncio.sleep(0.03)
            await asked.until("sk_unknown", NOT_FOUND)
            await asked.until(made.secret, VALID)
        told = await told_by(running, owner, asked, made.secret)

    assert asked.degraded > 40
    assert told == asked.answered


@pytest.mark.parametrize("outage", [killed, standing_still])
async def test_outages_in_the_midst_of_flushes_neither_lose_nor_double_a_count(outage: Outage) -> None:
    async with installation(**SETTINGS) as running:
        owner = await running.client()
        secrets = [(await owner.create_key()).secret for _ in range(3)]
        asked = Asking(owner)
        for secret in secrets:
            await asked.until(secret, VALID)
        async with asyncio.TaskGroup() as askers:
            for _ in range(ASKERS):
                askers.create_task(asked.on_and_on(*secrets))
            for _ in range(3):
                async with outage(running):
                    await asyncio.sleep(0.7)
                await until_counted(running, owner, asked.total)
            asked.over = True
        told = await told_by(running, owner, asked, secrets[0])

    assert told == asked.answered


@pytest.mark.parametrize("workers", [1, 2], ids=["one process", "two workers"])
async def test_a_killed_server_loses_at_most_what_it_had_not_flushed_and_never_doubles(workers: int) -> None:
    async with installation(**SETTINGS, LATCHKEY_WORKERS=str(workers)) as running:
        owner = await running.client()
        secret = (await owner.create_key()).secret
        answered = before = 0
        for _ in range(2):
            asked = [Asking(await running.client()) for _ in range(ASKERS)]
            async with asyncio.TaskGroup() as askers:
                for one in asked:
                    askers.create_task(one.on_and_on(secret))
                flushed = (await counted(owner, before + 1)).total
                for one in asked:
                    one.over = True
            answered += sum(one.total for one in asked)
            await running.kill_server()
            await running.start_server()

            after = await eventually(lambda: total_of(owner))
            assert before < flushed <= after <= answered
            last = Asking(owner)
            for _ in range(5):
                await last.until(secret, VALID)
            await until_counted(running, owner, after + last.total)
            # What was lost is lost: from here on all is counted again.
            before = answered = after + last.total
            assert await total_of(owner) == before
