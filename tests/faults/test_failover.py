"""A failover (spec §4): the former primary goes on and is reached again, but what it says was not committed since."""

from functools import partial

import grpc
from tests.faults.test_freshness import NOW, revoke
from tests.support.postgres import answer, until_answered, with_standby
from tests.support.service import rejection
from tests.support.trial import REVOKED, STALE, UNAVAILABLE, VALID, ask, clock, servers, trials

FOLLOWED = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT workspace_id, revision FROM%')"
WRITTEN = "SELECT sum(revision) FROM workspace_revision"


async def test_a_former_primary_neither_vouches_for_a_revoked_key_nor_takes_a_change() -> None:
    async with with_standby() as failover, servers(failover.dsn, {}) as (server,):
        made, kept = await server.owner.create_key(), await server.owner.create_key()
        async with trials(
            cached=partial(ask, server.owner, made.secret),
            now=partial(ask, server.owner, made.secret, NOW),
            kept=partial(ask, server.owner, kept.secret),
        ) as asking:
            await asking["kept"].until(VALID)
            await failover.promote()
            written = await answer(failover.primary, WRITTEN)
            async with failover.moving_to(failover.standby):
                await until_answered(failover.standby, FOLLOWED)
            await asking["now"].until(VALID)
            await revoke(server.owner, made)
            revoked_at = clock()

            async with failover.moving_to(failover.primary):
                await asking["now"].until(UNAVAILABLE)
                await asking["kept"].until(STALE)
            refused = await rejection(server.owner.create_key())

            failover.lead_to(failover.standby)
            await asking["kept"].until(VALID)
            await asking["now"].until(REVOKED)
            said = asking["cached"].said(revoked_at) | asking["now"].said(revoked_at)

        assert {verdict.partition(" ")[0] for verdict in said} == {"REVOKED", "UNAVAILABLE"}
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert await answer(failover.primary, WRITTEN) == written


async def test_a_known_key_is_answered_all_through_a_failover() -> None:
    async with with_standby() as failover, servers(failover.dsn, {}) as (server,):
        made = await server.owner.create_key()
        questions = {str(number): partial(ask, server.owner, made.secret) for number in range(4)}
        async with trials(**questions) as asking:
            await asking["0"].until(VALID)
            async with failover.moving_to(failover.standby):
                await asking["0"].until(STALE)
            await failover.promote()
            await asking["0"].until(VALID)
            await asking["1"].until(VALID)

    assert {sample.said for trial in asking.values() for sample in trial.samples} == {VALID, STALE}
