"""A server's own lateness is no outage of its database (spec §4)."""

import asyncio
import os
import secrets
import signal
from functools import partial

from tests.support.postgres import own_postgres
from tests.support.trial import NOT_FOUND, VALID, ask, servers, trials

STOPPED_SECONDS = 3.5
"""Longer than a poll waits, and than a record is good for; shorter than a question waits."""


async def test_a_process_that_stood_still_finds_its_database_where_it_was() -> None:
    async with own_postgres() as (postgres, _), servers(postgres.dsn(), {}) as (server,):
        known = (await server.owner.create_key()).secret
        async with trials(
            known=partial(ask, server.owner, known),
            unknown=lambda: ask(server.owner, f"sk_{secrets.token_hex(16)}"),
        ) as asked:
            await asked["known"].until(VALID)
            os.kill(server.pid, signal.SIGSTOP)
            await asyncio.sleep(STOPPED_SECONDS)
            os.kill(server.pid, signal.SIGCONT)
            await asked["known"].until(VALID)
            await asked["unknown"].until(NOT_FOUND)
        healthy = await server.health("latchkey.v1.KeyService")

    assert asked["known"].said(0) == {VALID}
    assert asked["unknown"].said(0) == {NOT_FOUND}
    assert healthy
