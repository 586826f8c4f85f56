"""`latchkey-server maintain` and `rebuild-usage`, as real processes."""

import asyncpg
import pytest

from latchkey_server.opening import utc_now
from latchkey_server.storage.embedded.server import EmbeddedServer
from latchkey_server.storage.usage.partitions import partition_of
from tests.integration.usage.test_usage import event, report
from tests.scenarios.test_commands import empty_database
from tests.support.process import Ended, run
from tests.support.service import PEPPERS, Client


async def command(*arguments: str, dsn: str) -> Ended:
    return await run(*arguments, LATCHKEY_DATABASE_URL=dsn, LATCHKEY_PEPPERS=PEPPERS)


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(statement)
    await connection.close()


async def test_maintain_does_all_upkeep_and_tells_how_much_there_was(dsn: str) -> None:
    await execute(dsn, f"DROP TABLE {partition_of(utc_now().date())}")

    ended = await command("maintain", dsn=dsn)

    told = dict(line.split(": ") for line in ended.out.splitlines())
    assert (ended.status, ended.err) == (0, "")
    assert int(told["partitions made"]) >= 1
    assert (told["keys reattributed"], told["failures"]) == ("0", "0")


@pytest.mark.parametrize("name", ["maintain", "rebuild-usage"])
async def test_upkeep_of_a_database_without_its_schema_says_in_one_line_what_to_run(
    postgres: EmbeddedServer, name: str
) -> None:
    dsn = await empty_database(postgres, f"bare_{name.partition('-')[0]}")

    ended = await command(name, dsn=dsn)

    assert (ended.status, ended.out) == (1, "")
    assert len(ended.err.splitlines()) == 1
    assert "latchkey-server migrate" in ended.err


async def test_rebuild_usage_tells_each_difference_and_mends_it_when_it_is_to(owner: Client, dsn: str) -> None:
    key = (await owner.create_key()).key
    await report(owner, [event(key.key_id, "1")])
    right = await command("rebuild-usage", dsn=dsn)
    await execute(dsn, "UPDATE usage_key_quarter SET requests = requests + 1")

    wrong, mended = await command("rebuild-usage", dsn=dsn), await command("rebuild-usage", "--write", dsn=dsn)
    again = await command("rebuild-usage", dsn=dsn)

    assert [ended.status for ended in (right, wrong, mended, again)] == [0, 1, 1, 0]
    assert right.out.endswith("days of workspaces computed anew, 0 with differences.\n")
    assert again.out == right.out
    assert wrong.out.startswith(f"{key.workspace_id} ")
    assert wrong.out.endswith("computed anew, 1 with differences.\n")
    assert mended.out.endswith("1 with differences (written).\n")
