"""A group's numbers over time, as they are drawn."""

from collections import Counter
from datetime import datetime

from latchkey.cli.ranges import slot, slots
from latchkey.cli.report import Group, Report


def series(group: Group, report: Report) -> list[int]:
    """Return the measure that orders the report in each slot of its range, zero where nothing happened."""
    question = report.question
    sums: Counter[datetime] = Counter()
    for cell in group.cells:
        sums[slot(cell.start, question.bucket, question.covered.zone)] += cell.numbers[question.order_by]
    return [sums[at] for at in slots(question.covered, question.bucket)]
