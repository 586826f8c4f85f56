"""SHA-256 of a few bytes.

hashlib uses OpenSSL's, which looks up the algorithm, allocates a context and frees it at each use: for a secret that
costs more than the hash, most of all with cold processor caches. Python's own does none of this.
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
    # It has no public name; where its name differs, or the build left it out, hashlib's does the same.
    for module in ("_sha2", "_sha256"):
        try:
            return importlib.import_module(module).sha256
        except (ImportError, AttributeError):
            continue
    return hashlib.sha256


sha256: Final[Callable[[bytes], Hash]] = _built_in()
"""Return the hash object of some bytes."""
