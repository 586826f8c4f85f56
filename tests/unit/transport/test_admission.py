"""Admission: what each caller, each address and all together may have under way."""

import asyncio
from contextlib import ExitStack
from uuid import UUID

import pytest

from latchkey_server.domain import errors
from latchkey_server.transport.admission import (
    CALLS,
    STREAMS,
    Admission,
    FrameRoom,
    Limits,
    UnknownCredentials,
    address_of,
)
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


def look_up(unknown: UnknownCredentials, peer: str, at: float, *, known: bool = False) -> None:
    with unknown.looking_up(peer, at) as made:
        made.known = known


def test_an_address_has_so_many_unknown_credentials_a_second_and_twice_as_many_at_once() -> None:
    unknown = UnknownCredentials(10)
    with ExitStack() as under_way:
        for port in range(20):
            under_way.enter_context(unknown.looking_up(f"ipv4:10.0.0.1:{port}", 100.0)).known = False
        # One at a time goes on, so that who has a known one is not kept out for good.
        under_way.enter_context(unknown.looking_up("ipv4:10.0.0.1:20", 100.0)).known = False
        with pytest.raises(errors.ShareExceeded):
            look_up(unknown, "ipv4:10.0.0.1:21", 100.0)
        look_up(unknown, "ipv4:10.0.0.2:9", 100.0)
        look_up(unknown, "ipv4:10.0.0.1:22", 100.11)

    assert unknown.refused == 1


def test_known_credentials_take_nothing_out() -> None:
    unknown = UnknownCredentials(1)
    for port in range(100):
        look_up(unknown, f"ipv4:10.0.0.1:{port}", 100.0, known=True)
    with unknown.looking_up("ipv4:10.0.0.1:1", 100.0), unknown.looking_up("ipv4:10.0.0.1:2", 100.0):
        pass

    assert unknown.refused == 0


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:80", "ipv4:10.0.0.1"),
        ("ipv6:%5B2001:db8::1%5D:80", "2001:db8::/64"),
        ("ipv6:[2001:db8::2]:81", "2001:db8::/64"),
        ("unix:", "unix"),
        ("ipv6:[junk]:1", "ipv6:[junk]"),
    ],
)
def test_an_address_is_a_peer_without_its_port_and_of_ipv6_the_network(peer: str, address: str) -> None:
    assert address_of(peer) == address


def test_a_caller_has_so_many_bytes_of_requests_but_always_one_request() -> None:
    admission, mine = Admission(Limits(request_bytes=100)), make_caller()
    with admission.admit(mine, CALLS, 500):
        with pytest.raises(errors.ShareExceeded) as refused, admission.admit(mine, CALLS, 1):
            pass
        with admission.admit(make_caller(management_key_id=B), CALLS, 90):
            pass
    with admission.admit(mine, CALLS, 60), admission.admit(mine, CALLS, 40):
        pass

    assert refused.value.details["what"] == "request bytes"


async def test_frames_of_one_caller_come_in_order_and_none_overtakes() -> None:
    room = FrameRoom(10, 100)
    await room.enter(A, 6)
    large = asyncio.create_task(room.enter(A, 8))
    small = asyncio.create_task(room.enter(A, 1))
    await asyncio.sleep(0)
    assert not small.done()
    room.leave(A, 6)
    async with asyncio.timeout(5):
        await large
        await small
    assert room.bytes == 9
