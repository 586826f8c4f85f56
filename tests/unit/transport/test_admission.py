"""Admission: what each caller, each address and all together may have under way."""

import asyncio
from contextlib import ExitStack
from uuid import UUID

import pytest

from latchkey_server.domain import errors
from latchkey_server.transport.admission import CALLS, STREAMS, Admission, FrameRoom, Limits, UnknownCredentials
from tests.unit.builders import make_caller

A, B = UUID(int=1), UUID(int=2)


def test_a_caller_has_its_calls_and_its_streams_and_no_more_of_either() -> None:
    admission, mine, other = Admission(Limits(calls=2, streams=1)), make_caller(), make_caller(management_key_id=B)
    with ExitStack() as under_way:
        for what in (CALLS, CALLS, STREAMS):
            under_way.enter_context(admission.admit(mine, what))
        for what, most in ((CALLS, "2"), (STREAMS, "1")):
            with pytest.raises(errors.ShareExceeded) as refused:
                under_way.enter_context(admission.admit(mine, what))
            assert refused.value.details == {"what": what, "most": most}
        under_way.enter_context(admission.admit(other, CALLS))

    assert admission.refused == {CALLS: 1, STREAMS: 1}
    with admission.admit(mine, STREAMS):
        pass


async def test_a_frame_waits_until_there_is_room_for_it_among_its_callers_own() -> None:
    room = FrameRoom(10, 100)
    await room.enter(A, 6)
    await room.enter(B, 6)
    waiting = asyncio.create_task(room.enter(A, 6))
    await asyncio.sleep(0)

    assert not waiting.done()
    room.leave(A, 6)
    async with asyncio.timeout(5):
        await waiting
    assert room.bytes == 12


async def test_all_callers_together_have_room_for_so_much_but_each_for_one_frame() -> None:
    room = FrameRoom(10, 12)
    await room.enter(A, 6)
    await room.enter(B, 6)
    waiting = asyncio.create_task(room.enter(A, 1))
    third = asyncio.create_task(room.enter(UUID(int=3), 10))
    async with asyncio.timeout(5):
        await third

    assert not waiting.done()
    for caller_id, size in ((B, 6), (UUID(int=3), 10)):
        room.leave(caller_id, size)
    async with asyncio.timeout(5):
        await waiting
    assert room.bytes == 7


async def test_who_gives_up_waiting_takes_no_room() -> None:
    room = FrameRoom(10, 100)
    await room.enter(A, 10)
    waiting = asyncio.create_task(room.enter(A, 1))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    room.leave(A, 10)

    assert room.bytes == 0


def test_an_address_has_so_many_unknown_credentials_a_second_and_twice_as_many_at_once() -> None:
    unknown = UnknownCredentials(10)
    for port in range(20):
        unknown.require(f"ipv4:10.0.0.1:{port}", 100.0)
        unknown.spend(f"ipv4:10.0.0.1:{port}", 100.0)

    with pytest.raises(errors.ShareExceeded):
        unknown.require("ipv4:10.0.0.1:9", 100.05)
    unknown.require("ipv4:10.0.0.2:9", 100.05)
    unknown.require("ipv4:10.0.0.1:9", 100.11)
    assert unknown.refused == 1
