"""The rules that the server and every client cache decide alike: pure functions, standard library only."""

import hashlib
import ipaddress
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from functools import lru_cache

ENVIRONMENT_MAX = 32
"""Code points of an environment label that are stored (spec §2)."""

NANOS = 1_000_000_000
"""Nano-dollars in a dollar: every amount of money is a whole number of them."""

_LABEL_READ_MAX = 256
# To put combining marks in order takes the square of their number, so that a text is cut before it is normalised.
# This is eight times what a label has, and more than any language's 32 characters take apart.

_NETWORK_MAX = 64
"""Characters of an address or CIDR: more than any has."""

WILDCARD = "*"
"""The granted segment that stands for exactly one segment of a scope."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def has_control_characters(text: str) -> bool:
    """Tell whether ``text`` holds a control character (Unicode category Cc, U+0000 included)."""
    # What is printable holds none, and nearly all text is.
    return not text.isprintable() and any(unicodedata.category(character) == "Cc" for character in text)


def normalize_environment(text: str) -> str:
    """Return the label as it is stored and compared: NFC, stripped, its first 32 code points, stripped again.

    Idempotent, and never an error for length: of a longer text the first 256 code points are read. Raises ValueError
    for control characters in them.
    """
    label = unicodedata.normalize("NFC", text.strip()[:_LABEL_READ_MAX]).strip()
    if has_control_characters(label):
        raise ValueError("must not contain control characters")
    return label[:ENVIRONMENT_MAX].strip()


def scope_matches(granted: str, required: str) -> bool:
    """Tell whether one granted scope covers one required scope; ``*`` stands for exactly one segment."""
    if WILDCARD not in granted:
        return granted == required
    ours, theirs = granted.split("."), required.split(".")
    return len(ours) == len(theirs) and all(a in (WILDCARD, b) for a, b in zip(ours, theirs, strict=True))


def missing_scopes(granted: Iterable[str], required: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    """Return the any-of groups of ``required`` that nothing in ``granted`` covers; empty means allowed."""
    grants = tuple(granted)
    return [
        group for group in required if not any(scope_matches(grant, wanted) for wanted in group for grant in grants)
    ]


@lru_cache(maxsize=65_536)
def parse_network(text: str) -> Network:
    """Return the network that ``text`` (an address or CIDR, host bits accepted) names.

    An IPv4-mapped IPv6 network of /96 or longer becomes the IPv4 one. Raises ValueError for anything else.
    """
    if len(text) > _NETWORK_MAX:
        raise ValueError("is too long for an address or CIDR range")
    if "%" in text:
        raise ValueError("must not carry an IPv6 zone")
    _, slash, length = text.strip().partition("/")
    if slash and not (length.isascii() and length.isdigit()):
        raise ValueError("must have a prefix length behind the slash, not a mask")
    network = ipaddress.ip_network(text.strip(), strict=False)
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def parse_address(text: str) -> Address | None:
    """Return the address that ``text`` names, IPv4-mapped ones as IPv4, or None when it names none."""
    if len(text) > _NETWORK_MAX:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def ip_allowed(allow_ips: Collection[str], client_ip: str | None) -> bool:
    """Tell whether a client at ``client_ip`` may use a key with these entries; no entries allow anyone."""
    if not allow_ips:
        return True
    address = parse_address(client_ip) if client_ip else None
    if address is None:
        return False
    return any(address in parse_network(entry) for entry in allow_ips)


def model_allowed(enabled: bool, models: Collection[str], model: str | None) -> bool:
    """Tell whether ``model`` may be used; a disabled list and a model not sent allow anything."""
    return not enabled or model is None or model in models


def begun(not_before_time: datetime | None, now: datetime) -> bool:
    """Tell whether a key's time has come: from ``not_before_time`` on."""
    return not_before_time is None or not_before_time <= now


def unexpired(end_time: datetime | None, now: datetime) -> bool:
    """Tell whether a key's or secret's time has not run out: while now < ``end_time``."""
    return end_time is None or now < end_time


def secret_sha256(secret: str) -> bytes:
    """Return the 32-byte digest by which a secret is identified everywhere."""
    return hashlib.sha256(secret.encode()).digest()
