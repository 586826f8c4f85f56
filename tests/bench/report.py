"""The table, the bars, and results.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.bench.compare import Metrics
from tests.bench.hostile import HOSTILE

RESULTS = Path(__file__).with_name("results.json")
SHOWN = ("cpu_us", "cpu_ratio", "throughput", "p50_ms", "p99_ms")
UNSHOWN = (*SHOWN, "cpu_ratio_q1", "cpu_ratio_q3", "floor_cpu_us")
"""What is not told in the last column but one: it has its own, or stands in the file only."""
WIDTH = 140
FIGURES = 4


class Bar(NamedTuple):
    """What a metric of a case may be at most, or with ``least`` has to be at least."""

    metric: str
    limit: float
    least: bool = False


BARS = {
    "verify_cached": Bar("cpu_ratio", 1.15),
    "verify_cached_mixed": Bar("over_cached", 0.03),
    "stream_32": Bar("cpu_ratio", 0.05),
    "batch_100": Bar("cpu_ratio", 0.033),
    "verify_cold": Bar("queries_per_verification", 0.1),
    "propagation_worker": Bar("p99_ms", 50),
    "propagation_server": Bar("p99_ms", 50),
    "propagation_watch": Bar("p99_ms", 50),
    "cached_key": Bar("bytes", 2048),
    "ingest_batch_1000": Bar("ratio", 0.33, least=True),
    "ingest_single": Bar("ratio", 0.5, least=True),
    "query_env_30d_10m_utc": Bar("p50_ms", 100),
    "query_env_30d_10m_kolkata": Bar("p50_ms", 150),
    "query_env_30d_10m_retagged": Bar("p50_ms", 200),
    "query_env_30d_growth": Bar("ratio", 1.5),
    **{name: Bar("p99_ratio", 5) for name in HOSTILE},
}


def missed(results: Mapping[str, Metrics]) -> list[str]:
    """Return the cases that ran and missed their bar."""
    return [case for case, metrics in results.items() if case in BARS and not _met(BARS[case], metrics)]


def show(results: Mapping[str, Metrics], failed: Mapping[str, str], machine: Mapping[str, str | int]) -> None:
    """Print a row a case, its bar and whether it is met, and a line for each case that failed to run."""
    console = Console(width=WIDTH, highlight=False)
    table = Table(title=", ".join(f"{name} {value}" for name, value in machine.items()))
    table.add_column("case")
    for name in SHOWN:
        table.add_column(name, justify="right")
    table.add_column("further")
    table.add_column("bar")
    for case, metrics in results.items():
        table.add_row(case, *(_text(metrics.get(name)) for name in SHOWN), _further(metrics), _bar(case, metrics))
    console.print(table)
    console.print("CPU: the server's alone, a verification, at saturation; cpu_ratio: over the empty handler's a call.")
    for case, why in failed.items():
        console.print(f"[bold]{case} failed to run:[/] {why}")


def write(file: Path, results: Mapping[str, Metrics], machine: Mapping[str, str | int]) -> None:
    """Write results.json: {case: {metric: number}}, and the machine."""
    rounded = {
        case: {name: rounded_to_figures(value) for name, value in metrics.items()} for case, metrics in results.items()
    }
    file.write_text(json.dumps({"machine": machine, **rounded}, indent=2) + "\n", encoding="utf-8")


def rounded_to_figures(value: float) -> float:
    """Return a number with its first four figures; larger ones whole."""
    return round(value) if abs(value) >= 10**FIGURES else float(f"{value:.{FIGURES}g}")


def _met(bar: Bar, metrics: Metrics) -> bool:
    value = metrics[bar.metric]
    return value >= bar.limit if bar.least else value <= bar.limit


def _bar(case: str, metrics: Metrics) -> str:
    bar = BARS.get(case)
    if bar is None:
        return ""
    verdict = "[green]met[/]" if _met(bar, metrics) else "[bold red]MISSED[/]"
    return f"{bar.metric} {'≥' if bar.least else '≤'} {bar.limit:g}: {verdict}"


def _further(metrics: Metrics) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in metrics.items() if name not in UNSHOWN)


def _text(value: float | None) -> str:
    return "" if value is None else f"{rounded_to_figures(value):,g}" if abs(value) < 1000 else f"{value:,.0f}"
