"""A server that is installed without the extra `embedded`, and so without PostgreSQL's programs."""

from pathlib import Path

import pytest

from latchkey_server.storage.embedded import binaries
from tests.support.process import run, server_process
from tests.support.service import PEPPERS

# Python runs this before anything else: the wheel can't be imported or found, and Debian's PostgreSQL is elsewhere.
HIDING = f"""
import pathlib, sys

sys.modules["{binaries.WHEEL_PACKAGE}"] = None
import {binaries.__name__} as binaries

binaries.find_bindir.__kwdefaults__["system_root"] = pathlib.Path("/nowhere")
"""


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds no programs of PostgreSQL."""
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    return {"PYTHONPATH": str(tmp_path), "PG_BINDIR": "", "LATCHKEY_DATA_DIR": str(tmp_path / "data")}


async def test_a_server_without_the_wheel_serves_from_a_database_of_its_own(dsn: str, bare: dict[str, str]) -> None:
    async with server_process(**bare, LATCHKEY_DATABASE_URL=dsn, LATCHKEY_PEPPERS=PEPPERS) as serving:
        assert await serving.stop() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_server_without_the_wheel_and_a_database_says_in_one_line_what_to_install(
    bare: dict[str, str], workers: str
) -> None:
    ended = await run("serve", **bare, LATCHKEY_LISTEN="127.0.0.1:0", LATCHKEY_WORKERS=workers)

    assert (ended.status, ended.out) == (1, "")
    assert ended.err == (
        "latchkey-server: No PostgreSQL programs were found: pip install 'latchkey-server[embedded]', "
        "set LATCHKEY_DATABASE_URL to a server of your own, or set PG_BINDIR to a folder with postgres and initdb.\n"
    )
