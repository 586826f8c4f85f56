"""Building statements: numbered parameters, and conditions that are added only when asked for."""

from latchkey_server.domain.reporting.request import LabelFilter

PLANNED_FOR_VALUES = "SET LOCAL plan_cache_mode = force_custom_plan"
"""Has each statement of the open transaction planned for its own values.

A prepared statement that runs often gets a generic plan. Where much depends on the values, on how wide a range is or
how rare a label, PostgreSQL may then scan the wrong index, or read whole tables.
"""


class Conditions:
    """A WHERE clause and its arguments, built together. Only values ever come from a caller, never SQL."""

    def __init__(self, clause: str, *arguments: object) -> None:
        self._clauses = [clause]
        self.arguments: list[object] = list(arguments)

    def bind(self, value: object) -> str:
        """Add an argument and return its placeholder."""
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def add(self, clause: str, value: object) -> None:
        """Demand ``clause``, in which ``?`` stands for the value."""
        self._clauses.append(clause.replace("?", self.bind(value)))

    def add_if(self, asked: bool, clause: str, value: object) -> None:
        """Demand ``clause`` when it is asked for."""
        if asked:
            self.add(clause, value)

    def raw(self, clause: str) -> None:
        """Demand a clause without a value."""
        self._clauses.append(clause)

    @property
    def text(self) -> str:
        """The whole clause."""
        return " AND ".join(self._clauses)


def asked_labels(wanted: LabelFilter) -> list[str]:
    """Return the labels that a filter asks for as they are stored, '' for keys without one; none if it asks for all."""
    return [*wanted.labels, *([""] if wanted.unlabeled else [])]


def placeholders(count: int) -> str:
    """Return ``$1, $2, …`` for that many values."""
    return ", ".join(f"${index}" for index in range(1, count + 1))


def affected(status: str) -> int:
    """Return the number of rows in what PostgreSQL answers to a statement, such as ``DELETE 3``."""
    return int(status.rpartition(" ")[2])
