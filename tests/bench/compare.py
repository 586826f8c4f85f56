"""Floor and case in turn, A B A B …, each pair compared by itself: the machine's speed drifts, the ratio does not."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.load import Load, Sample
from tests.bench.servers import Processes

Metrics = dict[str, float]

WARM_UP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: the load, and the processes whose time it costs."""

    load: Load
    processes: Processes
    beside: Processes | None = None
    """PostgreSQL, where its time is to be told too; it is never counted as the server's."""


@dataclass(slots=True)
class Slices:
    """What one side did, slice by slice."""

    samples: list[Sample] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """Seconds of processor time, by slice."""
    beside: list[float] = field(default_factory=list)
    """PostgreSQL's seconds of processor time, by slice, where told."""

    @property
    def cpu_each(self) -> list[float]:
        """Seconds of processor time a verification, by slice."""
        return [cpu / sample.verifications for cpu, sample in zip(self.cpu, self.samples, strict=True)]

    def metrics(self) -> Metrics:
        """Return the medians over the slices and the percentiles over all calls."""
        latencies = sorted(latency for sample in self.samples for latency in sample.latencies)
        busy = [cpu / sample.seconds for cpu, sample in zip(self.cpu, self.samples, strict=True)]
        beside = [cpu / sample.verifications for cpu, sample in zip(self.beside, self.samples, strict=False)]
        return {
            "cpu_us": statistics.median(self.cpu_each) * 1e6,
            **({"pg_cpu_us": statistics.median(beside) * 1e6} if beside else {}),
            "throughput": statistics.median(sample.verifications / sample.seconds for sample in self.samples),
            "p50_ms": percentile(latencies, 0.50) * 1e3,
            "p99_ms": percentile(latencies, 0.99) * 1e3,
            "server_cores": statistics.median(busy),
        }


@dataclass(slots=True)
class Pairs:
    """Slices of a floor and of a case, in turn; of one process each, or of several one after another."""

    floors: Slices = field(default_factory=Slices)
    cases: Slices = field(default_factory=Slices)

    async def take(self, floor: Side, case: Side, *, pairs: int, seconds: float, warm: bool = False) -> None:
        """Warm both sides up, unless they are ``warm``, and add so many pairs."""
        for side in () if warm else (floor, case):
            await side.load.run(min(WARM_UP_SECONDS, seconds))
        for _ in range(pairs):
            await _slice(floor, self.floors, seconds)
            await _slice(case, self.cases, seconds)

    @property
    def ratios(self) -> list[float]:
        """The CPU of a verification over that of the floor's call, by pair."""
        return [case / floor for case, floor in zip(self.cases.cpu_each, self.floors.cpu_each, strict=True)]

    def metrics(self) -> Metrics:
        """Return the case's metrics; ``cpu_ratio`` is the median of the pairs' ratios."""
        low, middle, high = quartiles(self.ratios)
        return {
            "cpu_ratio": middle,
            "cpu_ratio_q1": low,
            "cpu_ratio_q3": high,
            "floor_cpu_us": statistics.median(self.floors.cpu_each) * 1e6,
            **self.cases.metrics(),
        }


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the quartiles; of a single value, that value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of the ordered values do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def _slice(side: Side, into: Slices, seconds: float) -> None:
    before = side.processes.cpu_seconds()
    beside = side.beside.cpu_seconds() if side.beside else 0.0
    into.samples.append(await side.load.run(seconds))
    into.cpu.append(side.processes.cpu_seconds() - before)
    if side.beside:
        into.beside.append(side.beside.cpu_seconds() - beside)
