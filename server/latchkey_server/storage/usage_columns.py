"""The columns that all roll-ups of usage have in common, and pieces of SQL over them."""

from collections.abc import Callable

SUMS = ("events", "spend_nanos", "adjustment_nanos", "requests", "input_tokens", "output_tokens", "cached_tokens")
"""The sums of a roll-up, in the order of the tables' columns."""

COMBINATION = ("member", "model", "task", "other")
"""What is kept apart within a key."""


def each(template: Callable[[str], str]) -> str:
    """Return the sums' columns, each written by ``template``, with commas between."""
    return ", ".join(map(template, SUMS))


NAMES = each(str)
ADDED = each(lambda name: f"{name} = r.{name} + excluded.{name}")
"""For ON CONFLICT DO UPDATE of a table named ``r``."""

SUMMED = each(lambda name: f"sum({name}) AS {name}")
TEXTS = ", ".join(COMBINATION)
