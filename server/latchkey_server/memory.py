"""Memory that is free again is given back to the system: glibc by itself keeps most of what a burst took."""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Final

LOOK_SECONDS: Final = 5.0
FREE_MAX: Final = 64 * 1024 * 1024
"""Bytes that may lie free in the process before they are given back."""


class _Mallinfo(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def _free_bytes(libc: ctypes.CDLL) -> Callable[[], int] | None:
    """Return what tells how much is free, or None where the C library is not glibc 2.33 or newer."""
    try:
        mallinfo, _ = libc.mallinfo2, libc.malloc_trim
    except AttributeError:
        return None
    mallinfo.restype = _Mallinfo
    return lambda: int(mallinfo().fordblks)


async def give_memory_back() -> None:
    """Look for free memory until cancelled, and give it back, in another thread."""
    libc = ctypes.CDLL(None)
    free_bytes = _free_bytes(libc)
    while free_bytes is not None:
        await asyncio.sleep(LOOK_SECONDS)
        if free_bytes() > FREE_MAX:
            await asyncio.to_thread(libc.malloc_trim, 0)
