"""The arithmetic of `make bench`."""

from pathlib import Path

import pytest

from tests.bench import h2load, report
from tests.bench.compare import percentile, quartiles
from tests.bench.machine import Places, places
from tests.bench.servers import Statements

LOG = """\
latchkey: LOG:  execute __asyncpg_stmt_3__: SELECT hash, workspace_id FROM secret_hash WHERE hash = ANY($1)
latchkey: DETAIL:  Parameters: $1 = '{}'
latchkey: LOG:  execute <unnamed>:
\t    SELECT k.*
latchkey-feed: LOG:  statement: LISTEN latchkey
latchkey: LOG:  statement: SELECT pg_advisory_unlock_all();
\tCLOSE ALL;
psql: LOG:  statement: SELECT 1
"""


def test_statements_are_counted_without_what_the_driver_sends_beside_them(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    log.write_text(LOG)
    counted = Statements(log)

    counted.count()

    assert (counted.number, counted.round_trips) == (3, 4)


def test_a_bar_is_missed_by_a_case_that_ran_and_is_above_it() -> None:
    results = {"verify_cached": {"cpu_ratio": 1.2}, "stream_32": {"cpu_ratio": 0.05}, "stream_8": {"cpu_ratio": 9.0}}

    assert report.missed(results) == ["verify_cached"]


@pytest.mark.parametrize(
    ("printed", "rate"),
    [
        ("finished in 1.00s, 5992.33 req/s, 1.1MB/s\nrequests: 6 total, 6 done, 6 succeeded, 0 failed", 5992.33),
        ("finished in 1.00s, 5992.33 req/s, 1.1MB/s\nrequests: 6 total, 6 done, 5 succeeded, 1 failed", None),
        ("", None),
    ],
)
def test_h2load_is_believed_only_when_all_was_answered(printed: str, rate: float | None) -> None:
    assert h2load.read(printed) == rate


def test_percentiles_and_quartiles_are_of_the_values_given() -> None:
    values = [float(number) for number in range(1, 101)]

    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (51, 100, 100)
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2, 3, 4)
    assert quartiles([7.0]) == (7, 7, 7)


def test_server_and_load_are_kept_apart_only_where_there_are_cores_enough() -> None:
    assert places(frozenset({0, 1}), workers=1) == Places(frozenset({0}), frozenset({1}))
    assert places(frozenset({0, 1}), workers=2) == Places(frozenset({0, 1}), frozenset({0, 1}))
    assert places(frozenset({0, 1, 2, 3}), workers=2) == Places(frozenset({0, 1}), frozenset({2, 3}))


@pytest.mark.parametrize(("value", "rounded"), [(123456.7, 123457), (1234.56, 1235), (1.23456, 1.235), (0.0, 0.0)])
def test_numbers_are_rounded_to_four_figures_and_never_above_the_point(value: float, rounded: float) -> None:
    assert report.rounded_to_figures(value) == rounded
