"""For a tick a caller's credential is checked once, and used no longer than it is good."""

from typing import Any

import pytest

from latchkey.v1 import verify_service_pb2 as pb
from latchkey_server.domain.access.credentials import Credential
from latchkey_server.domain.freshness import HARD_BOUND, Instant
from latchkey_server.domain.model import Change, ChangeKind, Revision
from latchkey_server.observability import Metrics
from latchkey_server.storage.verify.cache import KeyCache
from latchkey_server.transport.admission import UnknownCredentials
from latchkey_server.transport.authentication import Authentication
from latchkey_server.transport.grpc.fast_handlers import FastMethod
from tests.unit.builders import MANAGEMENT_KEY_ID, NOW, WORKSPACE_ID, make_management_key

METHOD = "/latchkey.v1.VerifyService/Verify"
TICK, START = 1.0, 100.0
SHA256 = b"c" * 32
CACHED, SLOW = b"cached", b"by the slow path"


class Readiness:
    ready = True


class World:
    """A method over a cache, and how often a credential was looked up in it."""

    def __init__(self) -> None:
        self.cache = KeyCache(1_000, 1_000_000)
        self.history = self.cache.history(WORKSPACE_ID, 7, START)
        credential = Credential(make_management_key(), False, None, False, 7, START, self.history)
        self.cache.add_credentials([SHA256], {SHA256: credential}, self.cache.loading(START))
        self.at = START
        self.looks = 0
        source: Any = self
        authentication = Authentication(source, lambda: NOW, Readiness(), UnknownCredentials(1))
        stack: Any = self
        self.method = FastMethod(
            "Verify", lambda raw, caller, at: CACHED, authentication, Metrics(), self.instant, stack, TICK
        )
        self.handler = self.method._handler(SHA256, None).unary_unary

    def instant(self) -> Instant:
        return self.at

    def cached(self, sha256: bytes) -> None:
        return None

    def cached_credential(self, sha256: bytes) -> Credential | None:
        self.looks += 1
        return self.cache.credentials.get(sha256)

    async def answer(self, method: str, request: bytes, context: Any) -> bytes:
        return SLOW

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Take a call's trailer, as its context."""

    async def call(self) -> bytes:
        context: Any = self
        return bytes(await self.handler(pb.VerifyRequest(key="sk_secret").SerializeToString(), context))


@pytest.fixture
def world() -> World:
    return World()


async def test_for_a_tick_a_credential_is_looked_up_once(world: World) -> None:
    assert [await world.call() for _ in range(3)] == [CACHED] * 3
    assert world.looks == 1

    world.at += TICK

    assert await world.call() == CACHED
    assert world.looks == 2


async def test_what_a_change_takes_away_is_not_good_for_the_rest_of_a_tick(world: World) -> None:
    assert await world.call() == CACHED

    change = Change(ChangeKind.MANAGEMENT_KEY_CHANGED, MANAGEMENT_KEY_ID)
    world.cache.committed(Revision(WORKSPACE_ID, 8), [change])

    assert await world.call() == SLOW


async def test_nor_is_what_is_no_longer_followed(world: World) -> None:
    assert await world.call() == CACHED

    world.cache.drop_workspace(WORKSPACE_ID)

    assert await world.call() == SLOW


async def test_nor_what_was_not_confirmed_within_the_hard_bound(world: World) -> None:
    world.at = START + HARD_BOUND - TICK / 2
    assert await world.call() == CACHED

    world.at = START + HARD_BOUND + TICK / 4

    assert await world.call() == SLOW
