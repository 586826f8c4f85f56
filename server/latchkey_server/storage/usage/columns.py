"""The columns that all roll-ups of usage have in common, and pieces of SQL over them."""

from collections.abc import Callable

SUMS = ("events", "spend_nanos", "adjustment_nanos", "requests", "input_tokens", "output_tokens", "cached_tokens")
"""The sums of a roll-up, in the order of the tables' columns."""

COMBINATION = ("member", "model", "task", "other")
"""The columns of a combination."""


def each(template: Callable[[str], str]) -> str:
    """Return the sums' columns, each written by ``template``, with commas between."""
    return ", ".join(map(template, SUMS))


NAMES = each(str)
ADDED = each(lambda name: f"{name} = r.{name} + excluded.{name}")
"""For ON CONFLICT DO UPDATE of a table named ``r``."""

SUMMED = each(lambda name: f"sum({name}) AS {name}")
TEXTS = ", ".join(COMBINATION)

QUARTER_OF_DAY = "day::timestamp AT TIME ZONE 'UTC' + u.at * interval '15 minutes'"
"""The quarter of an hour that ``unpacked`` reads, as an instant."""


def unpacked(columns: str, where: str) -> str:
    """Return a query of the sums of packed days in each quarter of an hour, with ``columns`` before them.

    A packed day is an array of running sums over its quarters, ``u.at``: what a quarter holds is the difference of two.
    """
    return f"""
        SELECT {columns}, {each(lambda name: f"u.{name} - lag(u.{name}, 1, 0) OVER before AS {name}")}
        FROM usage_key_day_running, unnest(quarters, {NAMES}) WITH ORDINALITY AS u(at, {NAMES}, number)
        WHERE {where}
        WINDOW before AS (PARTITION BY key_id, day, {TEXTS} ORDER BY u.number)
    """
