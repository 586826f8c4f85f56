"""What a server process writes where its lines are read by a machine."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from latchkey_server.storage.embedded.data_directory import temporary_data_dir
from tests.support.process import DEADLINE, Serving, run, server_process

NO_CERTIFICATE = {"LATCHKEY_TLS_CERTIFICATE": "none.pem", "LATCHKEY_TLS_PRIVATE_KEY": "none.key"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path


def tls_in(folder: Path) -> dict[str, str]:
    """Return the settings of a server that speaks TLS."""
    issued = trustme.CA().issue_cert("127.0.0.1")
    chain, key = folder / "server.pem", folder / "server.key"
    issued.cert_chain_pems[0].write_to_path(chain)
    issued.private_key_pem.write_to_path(key)
    return {"LATCHKEY_TLS_CERTIFICATE": str(chain), "LATCHKEY_TLS_PRIVATE_KEY": str(key)}


async def fail_a_handshake(address: str) -> None:
    """Say what is no TLS, and wait until the server hangs up."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(DEADLINE):
        await reader.read()
    writer.close()


async def rest_of(serving: Serving) -> list[str]:
    """Stop a server and return the lines that it had yet to write, of both streams."""
    assert await serving.stop() == 0
    out, err = await serving.process.communicate()
    return [*out.decode().splitlines(), *err.decode().splitlines()]


async def test_every_line_of_a_server_that_logs_json_is_json(folder: Path) -> None:
    async with server_process(LATCHKEY_DATA_DIR=str(folder / "data"), **tls_in(folder)) as serving:
        await fail_a_handshake(serving.address)
        rest = await rest_of(serving)

    assert [json.loads(line)["event"] for line in rest] == ["stopping"]
    (started,) = map(json.loads, serving.printed)
    assert (started["event"], started["address"]) == ("started", serving.address)
    assert started["owner_secret"].startswith("lkm_")


async def test_grpcs_own_lines_are_there_for_whoever_asks_for_them(folder: Path) -> None:
    common = {"LATCHKEY_DATA_DIR": str(folder), "LATCHKEY_LISTEN": "127.0.0.1:0"}
    ended = await run("serve", **common, **NO_CERTIFICATE, GRPC_VERBOSITY="INFO")

    assert any("Log level INFO" in line for line in ended.err.splitlines())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"LATCHKEY_POOLSIZE": "7"}, "unknown setting LATCHKEY_POOLSIZE"),
        (NO_CERTIFICATE, "none.pem"),
    ],
)
async def test_why_a_server_that_logs_json_does_not_start_is_json(
    folder: Path, settings: dict[str, str], told: str
) -> None:
    common = {"LATCHKEY_DATA_DIR": str(folder), "LATCHKEY_LISTEN": "127.0.0.1:0", "LATCHKEY_LOG_FORMAT": "json"}
    ended = await run("serve", **common, **settings)

    assert (ended.status, ended.out) == (1, "")
    (line,) = ended.err.splitlines()
    assert (json.loads(line)["event"], told in json.loads(line)["reason"]) == ("failed", True)
