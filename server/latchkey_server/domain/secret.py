"""Secrets: how they are made, shown and stored.

``<prefix>_<random><checksum>``: 32 random base62 characters (190 bits) and 6 of the CRC-32 of all before them. At rest
only HMAC-SHA-256(pepper, SHA-256(secret)) is stored (spec §3).
"""

import hmac
import secrets
import string
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from latchkey_server.domain.ids import new_id
from latchkey_server.domain.model import Holder, Secret

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_LENGTH = 32
_CHECKSUM_LENGTH = 6
_HIDDEN = "•" * 8
_CHECK_MESSAGE = b"latchkey pepper check"

MANAGEMENT_PREFIX = "lkm"
"""What a management key's secret begins with."""


def checksum(text: str) -> str:
    """Return the 6 base62 characters of the CRC-32 of ``text``."""
    value = zlib.crc32(text.encode())
    letters = []
    for _ in range(_CHECKSUM_LENGTH):
        value, digit = divmod(value, len(_ALPHABET))
        letters.append(_ALPHABET[digit])
    return "".join(reversed(letters))


def new_secret(prefix: str) -> str:
    """Return a fresh secret that begins with ``prefix`` and an underscore."""
    body = f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return body + checksum(body)


def well_formed(secret: str) -> bool:
    """Tell whether ``secret`` could be one of ours: its shape and its checksum are right."""
    prefix, _, rest = secret.rpartition("_")
    if not prefix or len(rest) != _RANDOM_LENGTH + _CHECKSUM_LENGTH:
        return False
    return hmac.compare_digest(secret[-_CHECKSUM_LENGTH:].encode(), checksum(secret[:-_CHECKSUM_LENGTH]).encode())


def mask(secret: str) -> str:
    """Return what may be shown of a secret of ours: prefix, 4 leading characters, a constant run, the last 4."""
    prefix, _, rest = secret.rpartition("_")
    return f"{prefix}_{rest[:4]}{_HIDDEN}{rest[-4:]}"


def blank_mask(prefix: str) -> str:
    """Return the mask of a secret of which nothing but its prefix is known."""
    return f"{prefix}_{_HIDDEN}"


@dataclass(frozen=True, slots=True)
class Peppers:
    """The peppers of this server: id → key; the current one makes new hashes, all of them are looked up."""

    keys: Mapping[str, bytes]
    current: str

    def hash(self, sha256: bytes) -> bytes:
        """Return the hash under which a new secret is stored."""
        return _hmac(self.keys[self.current], sha256)

    def candidates(self, sha256: bytes) -> list[bytes]:
        """Return every hash under which the secret may be stored, one for each pepper."""
        return [_hmac(key, sha256) for key in self.keys.values()]

    def check_value(self, pepper_id: str) -> bytes:
        """Return what is stored to recognise a pepper without storing it."""
        return _hmac(self.keys[pepper_id], _CHECK_MESSAGE)


def stored_secret(
    workspace_id: UUID, holder: Holder, holder_id: UUID, sha256: bytes, shown: str, peppers: Peppers, now: datetime
) -> Secret:
    """Return what is stored of a new secret, ``shown`` as its mask; it lasts as long as its holder."""
    return Secret(
        workspace_id=workspace_id,
        holder_id=holder_id,
        secret_id=new_id(),
        holder=holder,
        hash=peppers.hash(sha256),
        pepper_id=peppers.current,
        mask=shown,
        create_time=now,
        end_time=None,
        ended=False,
    )


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")
