"""What is retained for a day only is pruned, workspace by workspace (upkeep)."""

from datetime import timedelta

import asyncpg
from structlog.testing import capture_logs

from latchkey.v1 import key_service_pb2
from latchkey_server.domain.ids import WORKSPACE, parse_id
from latchkey_server.opening import utc_now
from tests.support.postgres import answer
from tests.support.service import Client, Service
from tests.support.upkeep import maintain

TABLES = ("change", "answered_request")
REFUSING = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$;
    CREATE TRIGGER refusing BEFORE DELETE ON change
        FOR EACH ROW WHEN (OLD.workspace_id = '{}') EXECUTE FUNCTION refuse()
"""


async def made_in(client: Client) -> str:
    """Make a key under a request_id and return its workspace."""
    made = await client.keys.CreateKey(key_service_pb2.CreateKeyRequest(request_id="once"))
    return str(parse_id(WORKSPACE, made.key.workspace_id))


async def retained(dsn: str, workspace_id: str) -> tuple[int, int]:
    """Return how many changes and answered requests of a workspace are there."""
    counts = [f"(SELECT count(*) FROM {table} WHERE workspace_id = '{workspace_id}')" for table in TABLES]
    return tuple(await answer(dsn, f"SELECT ARRAY[{', '.join(counts)}]"))


async def test_what_is_older_than_a_day_is_pruned_and_what_is_not_stays(owner: Client, dsn: str) -> None:
    workspace_id = await made_in(owner)
    before = await retained(dsn, workspace_id)

    done = await maintain(dsn, utc_now() + timedelta(hours=23))
    assert (done.rows_pruned, await retained(dsn, workspace_id)) == (0, before)

    done = await maintain(dsn, utc_now() + timedelta(hours=25))
    assert done.rows_pruned >= sum(before)
    assert await retained(dsn, workspace_id) == (0, 0)


async def test_a_workspace_that_cannot_be_pruned_keeps_no_other_from_it(service: Service, dsn: str) -> None:
    first, second = [await made_in(await service.workspace(name)) for name in ("first", "second")]
    before = await retained(dsn, first)
    connection = await asyncpg.connect(dsn)
    await connection.execute(REFUSING.format(first))
    await connection.close()

    with capture_logs() as logs:
        done = await maintain(dsn, utc_now() + timedelta(days=2))

    failed = [line for line in logs if line["event"] == "upkeep failed"]
    assert [(line["workspace"], line["error"]) for line in failed] == [(first, "RaiseError")]
    assert done.failures == 1
    assert await retained(dsn, second) == (0, 0)
    assert (await retained(dsn, first))[0] == before[0]
