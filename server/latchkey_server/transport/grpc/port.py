"""One port for several processes: their parent holds it, so that it stays theirs while any of them is away."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

# A name may have two addresses, as localhost has, and a machine lack one: gRPC does without it too.
_LACKED = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@contextmanager
def held_port(address: str) -> Iterator[int]:
    """Hold an address until the context is left, and yield its port, a free one for port 0.

    Meanwhile only processes of this user that set SO_REUSEPORT can listen there. Raises OSError for a wrong address
    or one that is taken.
    """
    host, _, number = address.rpartition(":")
    port = int(number)
    with ExitStack() as stack:
        held = False
        for family, where in _addresses(host.strip("[]")):
            with suppress(_Lacked):
                port = stack.enter_context(_hold(family, (where[0], port, *where[2:]))).getsockname()[1]
                held = True
        if not held:
            raise OSError(errno.EADDRNOTAVAIL, "no such address on this machine")
        yield port


class _Lacked(OSError):
    """An address that this machine does not have."""


def _addresses(host: str) -> list[tuple[int, tuple[Any, ...]]]:
    found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, where) for family, _, _, _, where in found))


def _hold(family: int, where: tuple[Any, ...]) -> socket.socket:
    """Return a socket that is bound and never listens, so that it never gets a connection.

    Binding without SO_REUSEPORT fails if anybody listens on the address; setting it afterwards lets the workers join.
    Without SO_REUSEADDR no second parent can bind it before they listen. But connections of an earlier server that
    have just ended then make binding fail too: only if it does is SO_REUSEADDR set.
    """
    try:
        return _bound(family, where, reuse=False)
    except OSError as error:
        if error.errno in _LACKED:
            raise _Lacked from None
        if error.errno != errno.EADDRINUSE:
            raise
    return _bound(family, where, reuse=True)


def _bound(family: int, where: tuple[Any, ...], *, reuse: bool) -> socket.socket:
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        held.bind(where)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
    except OSError:
        held.close()
        raise
    return held
