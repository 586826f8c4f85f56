"""What a server says of its memory is what it takes of the machine's."""

import asyncio
import hashlib
import urllib.request
from collections.abc import Sequence

import grpc
import psutil

from latchkey.v1 import key_pb2, key_service_pb2, verify_service_pb2
from latchkey_server.app import build_workspaces
from latchkey_server.opening import open_storage, utc_now
from tests.support.process import Serving, drained, server_process
from tests.support.service import PEPPERS, Bearer, Client, settings_for

WARM, KEYS = 4_000, 20_000
SCOPES = tuple(f"scope-{number}" for number in range(100))
SETTINGS = {
    "LATCHKEY_CACHE_BYTES": str(1 << 30),
    "LATCHKEY_METRICS_LISTEN": "127.0.0.1:0",
    # What a flush takes for a moment stays with the process: let it be little.
    "LATCHKEY_FLUSH_INTERVAL": "0.05",
}


def item(number: int, secret: str) -> key_service_pb2.ImportKeyItem:
    """Return a key with ten scopes of a hundred and a small metadata, to import."""
    scopes = [SCOPES[(number + 7 * at) % len(SCOPES)] for at in range(10)]
    key = key_pb2.Key(name=f"key {number}", environment="prod", scopes=scopes)
    key.metadata.update({"customer": f"customer-{number}", "seats": number % 50})
    return key_service_pb2.ImportKeyItem(key=key, secret_sha256=hashlib.sha256(secret.encode()).digest())


async def ask(client: Client, secrets: Sequence[str]) -> None:
    """Verify each of these once."""
    for start in range(0, len(secrets), 100):
        asked = [verify_service_pb2.VerifyRequest(key=secret) for secret in secrets[start : start + 100]]
        await client.verifier.BatchVerify(verify_service_pb2.BatchVerifyRequest(items=asked))


async def taken(serving: Serving) -> tuple[int, float]:
    """Return the bytes that a process takes of the machine's memory, and those that it counts for its cache."""
    address = next(entry["address"] for entry in serving.log if entry["event"] == "showing metrics")

    def read() -> str:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    lines = (await asyncio.to_thread(read)).splitlines()
    counted = next(float(line.split()[1]) for line in lines if line.startswith("latchkey_cached_bytes "))
    return psutil.Process(serving.process.pid).memory_info().rss, counted


async def test_a_server_counts_for_its_cache_about_what_it_grows_by(dsn: str) -> None:
    async with open_storage(settings_for(dsn)) as storage:
        owner = await build_workspaces(storage, utc_now).bootstrap() or ""
    settings = {"LATCHKEY_DATABASE_URL": dsn, "LATCHKEY_PEPPERS": PEPPERS, **SETTINGS}
    async with (
        server_process(**settings) as serving,
        drained(serving),
        grpc.aio.insecure_channel(serving.address, interceptors=[Bearer(owner)]) as channel,
    ):
        client = Client(channel, owner)
        secrets = [f"cached_{number}" for number in range(KEYS)]
        for start in range(0, KEYS, 1_000):
            items = [item(number, secrets[number]) for number in range(start, start + 1_000)]
            await client.keys.ImportKeys(key_service_pb2.ImportKeysRequest(items=items))
        # What a server needs besides is there once it has begun to work.
        await ask(client, secrets[:WARM] * 2)
        before = await taken(serving)
        await ask(client, secrets)
        once = await taken(serving)
        await ask(client, secrets)
        again = await taken(serving)

    for grown, counted in [(later[0] - before[0], later[1] - before[1]) for later in (once, again)]:
        assert 0.75 < counted / grown < 1.25
