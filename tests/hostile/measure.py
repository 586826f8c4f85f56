"""A victim beside each attack: how long its cached Verify takes, without and with it."""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import psutil

from latchkey.v1 import admin_service_pb2, admin_service_pb2_grpc, management_key_pb2
from tests.bench.seed import Metadata, import_keys, seed
from tests.hostile.attacks import ATTACKS, NOBODY, VERIFY

IN_FLIGHT = 8
CALL_SECONDS = 15.0
KEYS_OF_VICTIM = 100
ROLES = (management_key_pb2.ROLE_VERIFIER, management_key_pb2.ROLE_VIEWER, management_key_pb2.ROLE_DEVELOPER)


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long the victim's calls took, in seconds, and how many failed."""

    all: Sequence[float]
    failed: int

    @property
    def p99(self) -> float:
        """What 99 of 100 calls did not exceed."""
        return sorted(self.all)[min(len(self.all) - 1, int(len(self.all) * 0.99))]


@dataclass(frozen=True, slots=True)
class Measured:
    """What an attack did to the victim and to the server."""

    without: Latencies
    during: Latencies
    grown: int
    """Bytes by which the server grew while it lasted, at most."""
    told: Mapping[str, int]
    """How often the attacker was told what: status codes, or frames that were answered."""

    @property
    def ratio(self) -> float:
        """The victim's p99 during the attack over that without it."""
        return self.during.p99 / self.without.p99


@dataclass(slots=True)
class World:
    """A server, a victim whose keys are cached, and an attacker's workspace."""

    pid: int
    address: str
    victim: Metadata
    requests: Sequence[bytes]
    attackers: "dict[management_key_pb2.Role.ValueType, str]"
    key_id: str

    async def measure(self, name: str, seconds: float) -> Measured:
        """Measure the victim without an attack, and with it."""
        async with self._victims() as calls:
            await self._latencies(calls, 0.5)
            without = await self._latencies(calls, seconds)
            before = self._rss()
            async with self._attacked(name) as attack:
                await self._latencies(calls, 1.0)
                during, grown = await self._latencies(calls, seconds), self._rss() - before
            return Measured(without, during, grown, json.loads(attack[0]))

    @asynccontextmanager
    async def _victims(self) -> AsyncIterator[list[Any]]:
        options = (("grpc.use_local_subchannel_pool", 1),)
        channels = [grpc.aio.insecure_channel(self.address, options=options) for _ in range(2)]
        try:
            yield [channel.unary_unary(f"{VERIFY}Verify") for channel in channels]
        finally:
            for channel in channels:
                await channel.close()

    @asynccontextmanager
    async def _attacked(self, name: str) -> AsyncIterator[list[str]]:
        told: list[str] = []
        role = ATTACKS[name].role
        secret = "" if role == NOBODY else self.attackers[role]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.hostile.attacks", name, self.address, secret, self.key_id),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(60):
                assert await process.stdout.readline() == b"under way\n"
            yield told
        finally:
            process.stdin.close()
            async with asyncio.timeout(60):
                told.append((await process.stdout.read()).decode().strip())
                await process.wait()

    async def _latencies(self, calls: Sequence[Any], seconds: float) -> Latencies:
        took: list[float] = []
        failed, end = 0, time.perf_counter() + seconds
        requests = itertools.cycle(self.requests)

        async def one_after_another(call: Any) -> None:
            nonlocal failed
            while (begun := time.perf_counter()) < end:
                try:
                    await call(next(requests), metadata=self.victim, timeout=CALL_SECONDS)
                except grpc.aio.AioRpcError:
                    failed += 1
                took.append(time.perf_counter() - begun)

        await asyncio.gather(*(one_after_another(calls[number % len(calls)]) for number in range(IN_FLIGHT)))
        return Latencies(took, failed)

    def _rss(self) -> int:
        return int(psutil.Process(self.pid).memory_info().rss)


async def make_world(pid: int, address: str, root_secret: str) -> World:
    """Return a world on a server: a victim with keys of its own, and attackers in another workspace with 1,000 keys."""
    victim, attacker = await seed(address, root_secret), await seed(address, root_secret)
    keys = await import_keys(address, victim.owner, KEYS_OF_VICTIM, "victim")
    targets = await import_keys(address, attacker.owner, 1_000, "attacked")
    async with grpc.aio.insecure_channel(address) as channel:
        admin = admin_service_pb2_grpc.AdminServiceStub(channel)

        async def bearer(role: management_key_pb2.Role.ValueType) -> str:
            request = admin_service_pb2.CreateManagementKeyRequest(
                management_key=management_key_pb2.ManagementKey(role=role)
            )
            return (await admin.CreateManagementKey(request, metadata=attacker.owner)).secret

        attackers = {role: await bearer(role) for role in ROLES}
    return World(pid, address, victim.verifier, keys.requests(), attackers, targets.key_ids[0])
