"""A port that several processes share, and that their parent holds."""

import errno
import socket

import pytest

from latchkey_server.transport.grpc.port import held_port


def listening(port: int, *, shared: bool) -> socket.socket:
    """Listen as gRPC does."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, True)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def test_several_workers_listen_on_a_held_port_and_no_other_server_does() -> None:
    with held_port("127.0.0.1:0") as port:
        with pytest.raises(OSError, match="in use"):
            listening(port, shared=False)
        with listening(port, shared=True), listening(port, shared=True):
            pass


def test_a_port_is_held_by_one_parent_only_before_anybody_listens_too() -> None:
    with held_port("127.0.0.1:0") as port, pytest.raises(OSError, match="in use"), held_port(f"127.0.0.1:{port}"):
        pass


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_somebody_listens_on_is_not_held(shared: bool) -> None:
    with listening(0, shared=shared) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"), held_port(f"127.0.0.1:{port}"):
            pass


def test_a_port_whose_last_connections_have_just_ended_is_held() -> None:
    with listening(0, shared=False) as earlier:
        port = earlier.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            # The server's end is closed first, and remembered by the kernel for a minute.
            earlier.accept()[0].close()

    with held_port(f"127.0.0.1:{port}") as held:
        assert held == port


def test_every_address_of_a_name_gets_the_same_port() -> None:
    with held_port("localhost:0") as port, listening(port, shared=True):
        assert port


def test_an_address_of_another_machine_is_not_held() -> None:
    with pytest.raises(OSError, match="no such address") as refused, held_port("192.0.2.1:0"):
        pass

    assert refused.value.errno == errno.EADDRNOTAVAIL
