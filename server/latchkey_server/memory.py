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
    free_bytes, left = _free_bytes(libc), 0
    while free_bytes is not None:
        await asyncio.sleep(LOOK_SECONDS)
        left = await asyncio.to_thread(_give_back, libc, free_bytes, left)


def _give_back(libc: ctypes.CDLL, free_bytes: Callable[[], int], left: int) -> int:
    """Give free memory back if it has grown by FREE_MAX since, and return what is told as free then.

    That is more than nothing: what lies between blocks that are in use is given back too, and goes on being told.
    """
    free = free_bytes()
    if free - left <= FREE_MAX:
        return min(left, free)
    libc.malloc_trim(0)
    return free_bytes()
