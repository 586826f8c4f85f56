"""Money as whole nano-dollars, and as a message; never a float."""

from typing import Final

from google.type.money_pb2 import Money

from latchkey.rules import NANOS

USD: Final = "USD"


def money_of(nanos: int) -> Money:
    """Return nano-dollars as a Money, both of whose parts carry the sign; raises ValueError beyond int64 dollars."""
    sign = -1 if nanos < 0 else 1
    units, rest = divmod(abs(nanos), NANOS)
    return Money(currency_code=USD, units=sign * units, nanos=sign * rest)


def nanos_of(amount: Money) -> int:
    """Return a Money's nano-dollars."""
    return amount.units * NANOS + amount.nanos
