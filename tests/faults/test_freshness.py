"""Freshness through faults (spec §4): two server processes on one PostgreSQL that stalls, dies or stops notifying."""

import asyncio
import os
import secrets
import signal
from collections.abc import Sequence
from functools import partial

import asyncpg
import grpc
from google.protobuf.duration_pb2 import Duration
from google.type.money_pb2 import Money
from tests.integration.keys.test_keys import update
from tests.support.postgres import UNSYNCED, own_postgres, prepare, stalled, until_somebody_listens
from tests.support.service import Client, rejection
from tests.support.trial import (
    NOT_FOUND,
    NOT_REACHED,
    REVOKED,
    STALE,
    UNAVAILABLE,
    VALID,
    Ask,
    Server,
    Trial,
    ask,
    clock,
    eventually,
    servers,
    trials,
)

from latchkey.v1 import key_pb2, key_service_pb2, revision_pb2
from latchkey_server.domain.freshness import HARD_BOUND
from latchkey_server.storage.embedded.data_directory import temporary_data_dir
from latchkey_server.storage.embedded.server import EmbeddedServer, embedded_postgres

STALE_IF_ERROR = 3.0
STALL = 10.0
"""Seconds for which PostgreSQL stands still: longer than any time-out of ours."""

VERIFYING, MANAGING = ("", "latchkey.v1.VerifyService"), ("latchkey.v1.KeyService", "latchkey.v1.AdminService")
REFUSED = {REVOKED, "REVOKED STALE_RECORD", UNAVAILABLE}
"""What may be said of a revoked key, on a machine that is too busy to look at its database in time too."""

NOW = Ask(max_staleness=Duration())
UNTOLD = "postgres"
"""A database in which no change is ever told of."""


async def revoke(client: Client, made: key_service_pb2.CreateKeyResponse) -> revision_pb2.Revision:
    """Revoke a key and return the revision."""
    request = key_service_pb2.RevokeKeyRequest(key_id=made.key.key_id, reason=key_pb2.REVOKE_REASON_COMPROMISED)
    return (await client.keys.RevokeKey(request, timeout=5)).revision


async def ask_unknown(client: Client) -> str:
    return await ask(client, f"sk_{secrets.token_hex(16)}")


def capped() -> list[key_pb2.Key]:
    """Return a key with credits and one with a spend cap."""
    with_cap = key_pb2.Key(spend_limit=key_pb2.SpendLimit(amount=Money(currency_code="USD", units=10)))
    return [key_pb2.Key(credits=key_pb2.Credits(amount=5)), with_cap]


async def all_healthy(server: Server, services: Sequence[str], *, wanted: bool = True) -> bool:
    return {await server.health(service) for service in services} == {wanted}


async def until_healthy(server: Server, services: Sequence[str], *, wanted: bool = True) -> None:
    async with asyncio.timeout(40):
        while True:
            if await all_healthy(server, services, wanted=wanted):
                return
            await asyncio.sleep(0.02)


def never_hung(trial: Trial) -> bool:
    """Tell whether every question was answered before its deadline, by the server."""
    return not any("DEADLINE" in sample.said or "CANCELLED" in sample.said for sample in trial.samples)


async def test_a_stall_of_the_database_never_makes_an_answer_old_or_wrong() -> None:
    async with own_postgres() as (postgres, _):
        late = {"LATCHKEY_LISTEN_DSN": postgres.dsn(UNTOLD), "LATCHKEY_STALE_IF_ERROR": str(STALE_IF_ERROR)}
        async with servers(postgres.dsn(), {}, late) as (a, b):
            known, revokee = [await a.owner.create_key() for _ in range(2)]
            metered = [await a.owner.create_key(key) for key in capped()]
            for made in (known, revokee):
                assert await ask(b.owner, made.secret) == VALID
            async with trials(
                known=partial(ask, b.owner, known.secret),
                revokee=partial(ask, b.owner, revokee.secret),
                unknown=partial(ask_unknown, b.owner),
                junk=partial(ask, b.owner, "sk_junk"),
                credits=partial(ask, b.owner, metered[0].secret),
                spend=partial(ask, b.owner, metered[1].secret),
            ) as asked:
                await asked["junk"].until(NOT_FOUND)
                revision = await revoke(a.owner, revokee)
                revoked = clock()
                with stalled(postgres):
                    stalled_at = clock()
                    on_a = await ask(a.owner, revokee.secret)
                    await asked["unknown"].until(UNAVAILABLE)
                    lost = clock()
                    await until_healthy(b, MANAGING, wanted=False)
                    demanding = [
                        await ask(b.owner, known.secret, NOW),
                        await ask(b.owner, revokee.secret, Ask(min_revision=revision)),
                    ]
                    await asked["known"].until(UNAVAILABLE)
                    await until_healthy(b, VERIFYING, wanted=False)
                    refused = await rejection(a.owner.keys.CreateKey(key_service_pb2.CreateKeyRequest(), timeout=1))
                    await asyncio.sleep(max(0.0, stalled_at + STALL - clock()))
                    ended = clock()
                for name, normal in (("known", VALID), ("revokee", REVOKED), ("unknown", NOT_FOUND)):
                    await asked[name].until(normal)
                await until_healthy(b, (*VERIFYING, *MANAGING))
                again = await a.owner.create_key()
                assert await ask(b.owner, again.secret) == VALID

    assert asked["known"].said(revoked, stalled_at + 1.0) <= {VALID, STALE}
    assert STALE in asked["known"].said(stalled_at, ended)
    assert asked["known"].said(stalled_at + HARD_BOUND, ended) <= {STALE, UNAVAILABLE}
    assert asked["known"].said(stalled_at + STALE_IF_ERROR, ended) == {UNAVAILABLE}
    assert NOT_FOUND not in asked["known"].said(0) | asked["revokee"].said(0)
    assert asked["revokee"].said(revoked + HARD_BOUND, ended) <= {STALE, *REFUSED}
    assert asked["revokee"].said(max(ended, revoked + HARD_BOUND)) <= REFUSED
    for name in ("unknown", "junk", "credits", "spend"):
        assert asked[name].said(lost, ended) == {UNAVAILABLE}
    assert on_a in (REVOKED, UNAVAILABLE)
    assert set(demanding) <= {UNAVAILABLE, NOT_REACHED}
    assert refused.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert all(map(never_hung, asked.values()))


async def test_a_database_that_dies_is_outlived_and_what_changes_after_it_is_seen() -> None:
    with temporary_data_dir() as folder:
        async with embedded_postgres(folder, settings=UNSYNCED) as postgres:
            dsn = postgres.dsn()
            await prepare(dsn)
            starting = servers(dsn, {}, {})
            a, b = await starting.__aenter__()
            try:
                known, revokee = [await a.owner.create_key() for _ in range(2)]
                metered = [await a.owner.create_key(key) for key in capped()]
                for made in (known, revokee):
                    assert await ask(b.owner, made.secret) == VALID
            except BaseException:
                await starting.__aexit__(None, None, None)
                raise
            os.kill(postgres.pid, signal.SIGQUIT)
            await postgres.wait_closed()
        try:
            async with trials(
                known=partial(ask, b.owner, known.secret),
                revokee=partial(ask, b.owner, revokee.secret),
                unknown=partial(ask_unknown, b.owner),
                credits=partial(ask, b.owner, metered[0].secret),
                spend=partial(ask, b.owner, metered[1].secret),
            ) as asked:
                died = clock()
                await asked["known"].until(STALE)
                await until_healthy(b, MANAGING, wanted=False)
                lasting = await all_healthy(b, VERIFYING)
                demanding = [await ask(server.owner, known.secret, NOW) for server in (a, b)]
                refused = await rejection(a.owner.create_key())
                ended = clock()
                async with embedded_postgres(folder, settings=UNSYNCED):
                    await until_healthy(a, MANAGING)
                    revision = await revoke(a.owner, revokee)
                    revoked = clock()
                    on_a = await ask(a.owner, revokee.secret)
                    on_b = await ask(b.owner, revokee.secret, Ask(min_revision=revision))
                    await asked["revokee"].until(REVOKED)
                    await eventually(lambda: clock() > revoked + HARD_BOUND)
                    await asked["known"].until(VALID)
                    await asked["unknown"].until(NOT_FOUND)
                    await until_healthy(b, (*VERIFYING, *MANAGING))
                    over = clock()
        finally:
            await starting.__aexit__(None, None, None)

    assert lasting
    assert asked["known"].said(died + HARD_BOUND, ended) <= {STALE}
    assert asked["known"].said(died, over) == {VALID, STALE}
    for name in ("unknown", "credits", "spend"):
        assert asked[name].said(died, ended) == {UNAVAILABLE}
    assert demanding == [UNAVAILABLE] * 2
    assert refused.code is grpc.StatusCode.UNAVAILABLE
    assert on_a == REVOKED
    assert on_b in (REVOKED, UNAVAILABLE, NOT_REACHED)
    assert asked["revokee"].said(revoked + HARD_BOUND, over) <= {STALE, *REFUSED}
    assert NOT_FOUND not in asked["known"].said(0, over) | asked["revokee"].said(0, over)
    assert all(map(never_hung, asked.values()))


async def test_lost_notifications_delay_a_change_by_less_than_2_seconds(postgres: EmbeddedServer, dsn: str) -> None:
    """One server listens, and its connection is ended before each change; another one never hears anything."""
    connection = await asyncpg.connect(dsn)
    untold = {"LATCHKEY_LISTEN_DSN": postgres.dsn(UNTOLD)}
    async with servers(dsn, {}, {}, untold) as (a, b, c):
        made = [await a.owner.create_key(key_pb2.Key(name=str(at))) for at in range(4)]
        for key in made:
            assert [await ask(server.owner, key.secret) for server in (a, b, c)] == [VALID] * 3
        for key in made:
            async with trials(
                b=partial(ask, b.owner, key.secret),
                c=partial(ask, c.owner, key.secret),
                a=partial(ask, a.owner, key.secret),
            ) as asked:
                await until_somebody_listens(dsn)
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
                )
                revision = await revoke(a.owner, key)
                revoked = clock()
                demanding = await asyncio.gather(
                    *(ask(server.owner, key.secret, Ask(min_revision=revision)) for server in (a, b, c)),
                    *(ask(server.owner, key.secret, NOW) for server in (a, b, c)),
                )
                for trial in asked.values():
                    await trial.until(REVOKED)
                seen = clock()

            assert set(demanding) <= REFUSED
            assert asked["a"].said(revoked) <= REFUSED
            for trial in asked.values():
                assert NOT_FOUND not in trial.said(0)
                assert trial.said(min(seen, revoked + HARD_BOUND)) <= REFUSED
    await connection.close()


async def test_a_change_is_visible_at_once_on_the_server_that_made_it(dsn: str) -> None:
    async with servers(dsn, {}) as (a,):
        made = await a.owner.create_key()
        assert await ask(a.owner, made.secret) == VALID
        for enabled in (False, True) * 10:
            changed = key_pb2.Key(key_id=made.key.key_id, enabled=enabled)
            await update(a.owner, changed, "enabled")
            assert await ask(a.owner, made.secret) == (VALID if enabled else "DISABLED")
        await revoke(a.owner, made)
        assert await ask(a.owner, made.secret) == REVOKED


async def test_a_replayed_change_is_visible_at_once_on_the_server_that_replayed_it(
    postgres: EmbeddedServer, dsn: str
) -> None:
    """As after an answer that was lost: whoever is told that the key is revoked is not told that it is valid."""
    async with servers(dsn, {}, {"LATCHKEY_LISTEN_DSN": postgres.dsn(UNTOLD)}) as (a, b):
        for at in range(5):
            made = await a.owner.create_key()
            assert await ask(b.owner, made.secret) == VALID
            request = key_service_pb2.RevokeKeyRequest(
                key_id=made.key.key_id, reason=key_pb2.REVOKE_REASON_COMPROMISED, request_id=f"revoke-{at}"
            )
            first, second = await a.owner.keys.RevokeKey(request), await b.owner.keys.RevokeKey(request)
            assert await ask(b.owner, made.secret) == REVOKED
            assert second.revision == first.revision


async def test_a_server_that_stood_still_answers_nothing_from_before(dsn: str) -> None:
    """As in a suspended machine or a starved container: what it keeps is old before anybody tells it so."""
    async with servers(dsn, {}, {}) as (a, b):
        made = [await a.owner.create_key() for _ in range(3)]
        for key in made:
            assert await ask(b.owner, key.secret) == VALID
        os.kill(b.pid, signal.SIGSTOP)
        try:
            for key in made:
                await revoke(a.owner, key)
            revoked = clock()
            await eventually(lambda: clock() > revoked + HARD_BOUND)
            asking = [asyncio.create_task(ask(b.owner, key.secret)) for key in made for _ in range(10)]
            # Sent before the server goes on, as far as that can be told from here.
            await asyncio.sleep(0.1)
        finally:
            os.kill(b.pid, signal.SIGCONT)
        said = set(await asyncio.gather(*asking))

    assert VALID not in said
    assert said <= {REVOKED, STALE, UNAVAILABLE}
