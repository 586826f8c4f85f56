"""VerifyStream: frames answered as they complete, items in order, the credential checked again for each (spec §4)."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from latchkey.v1 import (
    admin_service_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    verification_pb2,
    verify_service_pb2,
)
from tests.support.service import Client, Rejection, Service

Ask = verify_service_pb2.VerifyRequest
Frame = verify_service_pb2.VerifyStreamRequest
Answer = verify_service_pb2.VerifyStreamResponse
VALID = verification_pb2.VERIFY_CODE_VALID
NOT_FOUND = verification_pb2.VERIFY_CODE_NOT_FOUND


@pytest.fixture
def credentials(service: Service) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {service.root_secret}"),)


async def each(frames: list[Frame]) -> AsyncIterator[Frame]:
    for frame in frames:
        yield frame


async def answers(client: Client, frames: list[Frame], metadata: tuple[tuple[str, str], ...]) -> dict[int, Answer]:
    stream = client.verifier.VerifyStream(each(frames), metadata=metadata)
    return {answer.frame_id: answer async for answer in stream}


async def test_every_frame_is_answered_once_with_its_items_in_order(
    root: Client, credentials: tuple[tuple[str, str], ...]
) -> None:
    secret = (await root.create_key()).secret
    frames = [
        Frame(frame_id=number, items=[Ask(key=secret), Ask(key="sk_nobody"), Ask(), Ask(key=secret)])
        for number in range(200)
    ]

    told = await answers(root, frames, credentials)

    assert sorted(told) == list(range(200))
    for answer in told.values():
        codes = [result.verification.code or -result.error.code for result in answer.results]
        assert codes == [VALID, NOT_FOUND, -grpc.StatusCode.INVALID_ARGUMENT.value[0], VALID]


async def test_a_frame_with_too_many_items_or_a_wrong_timeout_fails_alone(
    root: Client, credentials: tuple[tuple[str, str], ...]
) -> None:
    secret = (await root.create_key()).secret
    frames = [
        Frame(frame_id=1, items=[Ask(key=secret)] * 1001),
        Frame(frame_id=2, items=[Ask(key=secret)], timeout=Duration(seconds=31)),
        Frame(frame_id=3, items=[Ask(key=secret)]),
        Frame(frame_id=4),
    ]

    told = await answers(root, frames, credentials)

    invalid = grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert {result.error.code for number in (1, 2) for result in told[number].results} == {invalid}
    assert (len(told[1].results), len(told[4].results)) == (1001, 0)
    assert told[3].results[0].verification.code == VALID


async def test_a_frame_that_is_not_decided_in_its_time_is_deadline_exceeded(
    root: Client, credentials: tuple[tuple[str, str], ...]
) -> None:
    secret = (await root.create_key()).secret
    frames = [Frame(frame_id=1, items=[Ask(key=secret)], timeout=Duration(nanos=1_000)), Frame(frame_id=2)]

    told = await answers(root, frames, credentials)

    assert told[1].results[0].error.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_the_stream_ends_with_its_credential(owner: Client, service: Service) -> None:
    verifier = await owner.create_management_key(management_key_pb2.ROLE_VERIFIER)
    secret = (await owner.create_key()).secret
    channel = (await service.anonymous()).channel
    stream = Client(channel).verifier.VerifyStream(metadata=(("authorization", f"Bearer {verifier.secret}"),))
    await stream.write(Frame(frame_id=1, items=[Ask(key=secret)]))
    first = await stream.read()

    await owner.admin.RevokeManagementKey(
        admin_service_pb2.RevokeManagementKeyRequest(
            management_key_id=verifier.management_key.management_key_id, reason=key_pb2.REVOKE_REASON_COMPROMISED
        )
    )
    await stream.write(Frame(frame_id=2, items=[Ask(key=secret)]))
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stream.read()

    assert isinstance(first, Answer)
    assert first.results[0].verification.code == VALID
    assert Rejection(failed.value).reason == "CREDENTIAL_INVALID"


async def test_a_revoked_key_is_refused_in_the_next_frame(
    root: Client, credentials: tuple[tuple[str, str], ...]
) -> None:
    made = await root.create_key()
    stream = root.verifier.VerifyStream(metadata=credentials)

    async def code() -> int:
        await stream.write(Frame(frame_id=1, items=[Ask(key=made.secret)]))
        answer = await stream.read()
        assert isinstance(answer, Answer)
        return int(answer.results[0].verification.code)

    before = await code()
    await root.keys.RevokeKey(
        key_service_pb2.RevokeKeyRequest(key_id=made.key.key_id, reason=key_pb2.REVOKE_REASON_OTHER)
    )
    after = await code()
    await stream.done_writing()
    ended = await stream.read()

    assert (before, after) == (VALID, verification_pb2.VERIFY_CODE_REVOKED)
    assert ended is grpc.aio.EOF


async def test_a_cancelled_stream_leaves_the_server_answering(
    root: Client, credentials: tuple[tuple[str, str], ...]
) -> None:
    secret = (await root.create_key()).secret
    for _ in range(20):
        stream = root.verifier.VerifyStream(metadata=credentials)
        await stream.write(Frame(frame_id=1, items=[Ask(key=secret)] * 50))
        stream.cancel()

    results = await asyncio.gather(*(root.verify(secret) for _ in range(20)))

    assert {result.code for result in results} == {VALID}
