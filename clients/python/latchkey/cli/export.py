"""A report for machines: JSON and CSV of a stable shape, money as exact decimal strings."""

import csv
import json
from collections.abc import Iterator
from typing import TextIO

from latchkey.cli.money import usd
from latchkey.cli.ranges import Bucket, Range, rfc3339
from latchkey.cli.report import MONEY, Cell, Dimension, Group, Measure, Numbers, Part, Report

Value = str | int | bool


def write_json(report: Report, out: TextIO) -> None:
    """Write a report as one JSON object."""
    question = report.question
    covered = question.covered
    document = {
        "start_time": rfc3339(covered.start, covered.zone),
        "end_time": rfc3339(covered.end, covered.zone),
        "time_zone": covered.zone.key,
        "bucket_width": question.bucket.value,
        "group_by": [dimension.value for dimension in question.group_by],
        "order_by": question.order_by.field,
        "as_of": [rfc3339(instant, covered.zone) for instant in report.as_of],
        "totals": measures(report.totals),
        "groups": [_group(group, report) for group in report.groups],
    }
    json.dump(document, out, ensure_ascii=False, indent=2)
    out.write("\n")


def write_csv(report: Report, out: TextIO) -> None:
    """Write a report as CSV: a row for each group in each bucket, all of them with the same columns."""
    columns = _columns(report)
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for group in report.groups:
        for cell in group.cells:
            row = {**_fields(group), **_span(cell, report.question.covered), **measures(cell.numbers)}
            writer.writerow({name: _plain(value) for name, value in row.items()})


def measures(numbers: Numbers) -> dict[str, Value]:
    """Return the numbers by the proto's names."""
    return {measure.field: usd(value) if measure in MONEY else value for measure, value in numbers.items()}


def _group(group: Group, report: Report) -> dict[str, object]:
    entry: dict[str, object] = {"other": group.other}
    entry["group"] = {name: value for name, value in _fields(group).items() if name != "other"}
    entry["measures"] = measures(group.numbers)
    cells = () if report.question.bucket is Bucket.NONE else group.cells
    entry["buckets"] = [{**_span(cell, report.question.covered), "measures": measures(cell.numbers)} for cell in cells]
    return entry


def _columns(report: Report) -> list[str]:
    asked = [name for dimension in report.question.group_by for name, _ in _part(Part(dimension, ""))]
    return ["start_time", "end_time", *asked, "other", *(measure.field for measure in Measure)]


def _fields(group: Group) -> dict[str, Value]:
    return {name: value for part in group.parts for name, value in _part(part)} | {"other": group.other}


def _part(part: Part) -> Iterator[tuple[str, Value]]:
    match part.dimension:
        case Dimension.ENVIRONMENT:
            yield "environment", part.text
            yield "unlabeled", part.unlabeled
        case Dimension.KEY:
            yield "key_id", part.text
            yield "key_name", part.name
            yield "key_deleted", part.deleted
            yield "key_revoked", part.revoked
        case Dimension.IDENTITY:
            yield "external_id", part.text
        case Dimension.API:
            yield "api_id", part.text
        case Dimension.MODEL | Dimension.MEMBER | Dimension.TASK:
            yield part.dimension.value, part.text
            yield f"{part.dimension.value}_other", part.beyond


def _span(cell: Cell, covered: Range) -> dict[str, Value]:
    return {"start_time": rfc3339(cell.start, covered.zone), "end_time": rfc3339(cell.end, covered.zone)}


def _plain(value: Value) -> Value:
    return str(value).lower() if isinstance(value, bool) else value
