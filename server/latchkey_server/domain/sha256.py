"""SHA-256 of a few bytes.

hashlib gives OpenSSL's, which finds its algorithm, allocates a context and frees it at each use: for a secret that
costs more than the hash, most of all where the processor's caches have just been emptied. Python's own goes straight
to it.
"""

import hashlib
import importlib
from collections.abc import Callable
from typing import Any, Final, Protocol


class Hash(Protocol):
    """What has hashed some bytes."""

    def digest(self) -> bytes:
        """Return the 32 bytes."""
        ...


def _built_in() -> Any:
    # It has no public name; where it is named otherwise, or was left out of the build, hashlib's does the same.
    for module in ("_sha2", "_sha256"):
        try:
            return importlib.import_module(module).sha256
        except (ImportError, AttributeError):
            continue
    return hashlib.sha256


sha256: Final[Callable[[bytes], Hash]] = _built_in()
"""Return the hash object of some bytes."""
