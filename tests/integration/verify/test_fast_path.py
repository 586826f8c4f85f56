"""A verification on the fast path, past the layers, gets all that any other call gets."""

import asyncio
import re
import urllib.request

import grpc
import pytest

from latchkey.v1 import verify_service_pb2
from latchkey_server.app import build_workspaces, running_server
from latchkey_server.opening import utc_now
from tests.support.matrix_calls import REQUEST_ID, call
from tests.support.service import Bearer, Client, Service, settings_for

TIMES = 4
"""The first call is looked up, the next makes the caller known, the others find everything cached."""


@pytest.mark.parametrize(
    ("asked", "given"), [("trace-4bf92f3577b34da6", "trace-4bf92f3577b34da6"), ("two words", None), (None, None)]
)
async def test_a_verification_from_memory_carries_its_request_id(
    service: Service, owner: Client, asked: str | None, given: str | None
) -> None:
    request = verify_service_pb2.VerifyRequest(key=(await owner.create_key()).secret)
    channel = (await service.anonymous()).channel
    metadata = [] if asked is None else [("x-request-id", asked)]

    answers = [await call(channel, request, secret=owner.secret, metadata=metadata) for _ in range(TIMES)]

    ids = [str(answer.trailer[REQUEST_ID]) for answer in answers]
    assert all(re.fullmatch(r"[!-~]{1,64}", request_id) for request_id in ids)
    assert set(ids) == {given} if given else len(set(ids)) == TIMES and asked not in ids


async def test_nobody_is_answered_from_memory_who_has_no_good_credential(service: Service, owner: Client) -> None:
    request = verify_service_pb2.VerifyRequest(key=(await owner.create_key()).secret)
    channel = (await service.anonymous()).channel
    for _ in range(TIMES):
        await call(channel, request, secret=owner.secret)

    strangers = [await call(channel, request, secret=secret) for secret in (None, "junk", f"{owner.secret}x")]

    assert {answer.code for answer in strangers} == {grpc.StatusCode.UNAUTHENTICATED}
    assert all(answer.trailer[REQUEST_ID] for answer in strangers)


async def test_verifications_from_memory_are_counted_and_timed(dsn: str) -> None:
    settings = settings_for(dsn).model_copy(update={"metrics_listen": "127.0.0.1:0"})

    async with running_server(settings) as running:
        secret = await build_workspaces(running.storage, utc_now).bootstrap()
        assert secret
        async with (
            grpc.aio.insecure_channel(running.address, interceptors=[Bearer(secret)]) as owner,
            grpc.aio.insecure_channel(running.address) as stranger,
        ):
            request = verify_service_pb2.VerifyRequest(key=(await Client(owner).create_key()).secret)
            for _ in range(TIMES):
                await call(owner, request)
            await call(stranger, request)
        text = await asyncio.to_thread(_read, f"http://127.0.0.1:{running.metrics_port}/metrics")

    method = 'method="/latchkey.v1.VerifyService/Verify"'
    assert f'latchkey_calls_total{{code="OK",{method}}} {TIMES}.0' in text
    assert f'latchkey_calls_total{{code="UNAUTHENTICATED",{method}}} 1.0' in text
    assert f"latchkey_call_seconds_count{{{method}}} {TIMES + 1}.0" in text
    assert f'latchkey_verifications_total{{code="VALID"}} {TIMES}.0' in text


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return str(response.read().decode())
