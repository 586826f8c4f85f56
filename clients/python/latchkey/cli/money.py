"""Money as whole nano-dollars: read, added and printed without a float."""

from decimal import Decimal, InvalidOperation

from google.type.money_pb2 import Money

from latchkey.money import money_of
from latchkey.rules import NANOS

_PLACES = 9
_CENTS = 2
_TEXT_MAX = 40
_DOLLARS_DIGITS_MAX = 15


def parse_usd(text: str) -> int:
    """Return the nano-dollars of a decimal amount; raises ValueError for what is none, or finer than a nano-dollar."""
    text = text.strip()
    try:
        amount = Decimal(text) if text.isascii() and "_" not in text else Decimal("nan")
    except InvalidOperation:
        amount = Decimal("nan")
    if not amount.is_finite() or len(text) > _TEXT_MAX:
        raise ValueError(f"{text[:_TEXT_MAX]!r} is not an amount of dollars such as 0.0825")
    if not amount:
        return 0
    if amount.adjusted() >= _DOLLARS_DIGITS_MAX:
        raise ValueError(f"{text!r} is too many dollars")
    return _whole_nanos(amount, text)


def _whole_nanos(amount: Decimal, text: str) -> int:
    digits, exponent = "".join(map(str, amount.as_tuple().digits)), int(amount.as_tuple().exponent)
    significant = digits.rstrip("0")
    exponent += len(digits) - len(significant) + _PLACES
    if exponent < 0:
        raise ValueError(f"{text!r} is finer than a nano-dollar; round it first")
    nanos = int(significant + "0" * exponent)
    return -nanos if amount.is_signed() else nanos


def usd(nanos: int, places: int = _CENTS) -> str:
    """Return the amount as an exact decimal, with cents at least and as many places as asked for or needed."""
    places = max(places, places_needed(nanos))
    whole, rest = divmod(abs(nanos), NANOS)
    return f"{'-' if nanos < 0 else ''}{whole}.{rest:09}"[: len(str(whole)) + (nanos < 0) + 1 + places]


def dollars(nanos: int, places: int = _CENTS) -> str:
    """Return the amount as people read it: `-$1,234.50`."""
    sign, _, rest = usd(abs(nanos), places).partition(".")
    return f"{'-' if nanos < 0 else ''}${int(sign):,}.{rest}"


def places_needed(nanos: int) -> int:
    """Return how many decimal places show the amount exactly, from 2 for cents to 9."""
    digits = f"{abs(nanos) % NANOS:09}".rstrip("0")
    return max(_CENTS, len(digits))


def checked_money(nanos: int) -> Money:
    """Return nano-dollars as a Money; raises ValueError for too many dollars."""
    if abs(nanos) >= 10**_DOLLARS_DIGITS_MAX * NANOS:
        raise ValueError(f"{dollars(nanos)} is too many dollars")
    return money_of(nanos)
