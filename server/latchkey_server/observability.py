"""Logs and metrics: structured lines without secrets, and counters for what is too frequent for a line."""

import logging
import re
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import accumulate
from platform import python_version
from typing import Any, ClassVar, Final, NamedTuple

import structlog
from prometheus_client import CollectorRegistry, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_SECRET_NAMES = frozenset({"secret", "key", "authorization", "owner_secret", "dsn", "database_url", "peppers"})
# What our own secrets look like, wherever they turn up in a line.
_SECRET_TEXT = re.compile(r"\b[A-Za-z0-9][A-Za-z0-9_-]{0,31}_[0-9A-Za-z]{38}\b")
_HIDDEN = "[hidden]"


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Hide what could be a secret, by the field's name or the value's form."""
    for name, value in event.items():
        if name in _SECRET_NAMES:
            event[name] = _HIDDEN
        elif isinstance(value, str) and _SECRET_TEXT.search(value):
            event[name] = _SECRET_TEXT.sub(_HIDDEN, value)
    return event


def configure_logging(level: str, json_lines: bool) -> None:
    """Write structured lines to standard error, as JSON or for people."""
    renderer: Any = structlog.processors.JSONRenderer() if json_lines else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        # A line is one write: print makes it two, and another worker's line may come between.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries (grpc, asyncio) may log an exception with its text: their lines say only that something happened.
    logging.basicConfig(handlers=[_NoText()], level=logging.WARNING, force=True)


class _NoText(logging.Handler):
    """Passes on that a library logged something, without the text, which may quote a request."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__qualname__ if record.exc_info and record.exc_info[0] else None
        # A closed standard error must not become an error of whoever logged.
        with suppress(OSError, ValueError):
            structlog.get_logger(record.name).warning(
                "library warning", library_level=record.levelname, at=f"{record.module}:{record.lineno}", error=kind
            )


class Count:
    """A number that only grows, cheap to count; read when metrics are collected."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Verdicts(Collector):
    """Verifications by code, in plain numbers: one of the library's counters costs more than the look-up."""

    def __init__(self) -> None:
        self._counts: dict[str, Count] = {}

    def count(self, code: str) -> Count:
        """Return the number of a code."""
        return self._counts.setdefault(code, Count())

    @property
    def total(self) -> int:
        """The number of all."""
        return sum(count.value for count in list(self._counts.values()))

    def collect(self) -> Iterable[Metric]:
        """Return the numbers as they are now."""
        family = CounterMetricFamily("latchkey_verifications", "Verifications decided, by code.", labels=["code"])
        for code, count in list(self._counts.items()):
            family.add_metric([code], count.value)
        yield family


_INFINITE: Final = float("inf")
# A verification from memory takes tens of microseconds, one that is looked up a few milliseconds, a report seconds.
_BOUNDS: Final = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, _INFINITE),
)
_FIRST: Final = _BOUNDS[0]
_STREAM_BOUNDS: Final = (0.1, 1.0, 10.0, 60.0, 300.0, 1_800.0, 7_200.0, 28_800.0, 86_400.0, _INFINITE)


class Timing:
    """The times, and thereby the number, of one method's calls that ended in one status."""

    __slots__ = ("buckets", "seconds")
    bounds: ClassVar[Sequence[float]] = _BOUNDS

    def __init__(self) -> None:
        self.buckets = [0] * len(self.bounds)
        self.seconds = 0.0

    def add(self, took: float) -> None:
        """Count a call and its seconds."""
        # Nearly all are that quick.
        self.buckets[0 if took <= _FIRST else bisect_left(_BOUNDS, took)] += 1
        self.seconds += took


class StreamTiming(Timing):
    """The same of a method that answers with a stream: how long it was open, which may be days."""

    __slots__ = ()
    bounds = _STREAM_BOUNDS

    def add(self, took: float) -> None:
        """Count a stream and its seconds."""
        self.buckets[bisect_left(self.bounds, took)] += 1
        self.seconds += took


class _Times(NamedTuple):
    """What a timing held when metrics were read."""

    method: str
    code: str
    buckets: Sequence[int]
    seconds: float


class Calls(Collector):
    """Calls by method and status, and their times by method, in plain numbers as well."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], Timing] = {}
        self._streams: dict[tuple[str, str], StreamTiming] = {}

    def timing(self, method: str, code: str) -> Timing:
        """Return what times the calls of a method that end in a status."""
        return self._calls.setdefault((method, code), Timing())

    def stream_timing(self, method: str, code: str) -> Timing:
        """Return what times the streams of a method that end in a status."""
        return self._streams.setdefault((method, code), StreamTiming())

    def collect(self) -> Iterable[Metric]:
        """Return the numbers as they are now."""
        counts = CounterMetricFamily(
            "latchkey_calls", "RPCs answered, by method and status.", labels=["method", "code"]
        )
        calls, streams = _read(self._calls), _read(self._streams)
        for times in (*calls, *streams):
            counts.add_metric([times.method, times.code], sum(times.buckets))
        yield counts
        yield _histogram("latchkey_call_seconds", "Time from request to answer, by method.", _BOUNDS, calls)
        yield _histogram("latchkey_stream_seconds", "Time that a stream was open, by method.", _STREAM_BOUNDS, streams)


def _read(timings: Mapping[tuple[str, str], Timing]) -> list[_Times]:
    # Calls go on in another thread meanwhile: what is shown is what is copied here.
    return [
        _Times(method, code, list(timing.buckets), timing.seconds) for (method, code), timing in list(timings.items())
    ]


def _histogram(name: str, description: str, bounds: Sequence[float], all_times: Sequence[_Times]) -> Metric:
    family = HistogramMetricFamily(name, description, labels=["method"])
    names = ["+Inf" if bound == _INFINITE else str(bound) for bound in bounds]
    for method in dict.fromkeys(times.method for times in all_times):
        ours = [times for times in all_times if times.method == method]
        below = accumulate(map(sum, zip(*(times.buckets for times in ours), strict=True)))
        family.add_metric([method], list(zip(names, below, strict=True)), sum(times.seconds for times in ours))
    return family


class Total(Collector):
    """A number that only grows, counted elsewhere."""

    def __init__(self, name: str, description: str, value: Callable[[], float]) -> None:
        self._name = name
        self._description = description
        self._value = value

    def collect(self) -> Iterable[Metric]:
        """Return the number as it is now."""
        yield CounterMetricFamily(self._name, self._description, value=self._value())


class Ranked(Collector):
    """Numbers that only grow, the largest by their rank from 1, the others together as rank ``rest``."""

    def __init__(self, name: str, description: str, values: Callable[[], Sequence[float]], most: int) -> None:
        self._name = name
        self._description = description
        self._values = values
        self._most = most

    def collect(self) -> Iterable[Metric]:
        """Return the numbers as they are now."""
        family = GaugeMetricFamily(self._name, self._description, labels=["rank"])
        values = self._values()
        for rank, value in enumerate(values[: self._most], 1):
            family.add_metric([str(rank)], value)
        family.add_metric(["rest"], sum(values[self._most :]))
        yield family


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Calls()
        self.verdicts = Verdicts()
        self.registry.register(self.calls)
        self.registry.register(self.verdicts)
        ProcessCollector(registry=self.registry)
        build = Info("latchkey_build", "What runs here.", registry=self.registry)
        build.info({"version": version("latchkey-server"), "grpc": version("grpcio"), "python": python_version()})

    def histogram(self, name: str, description: str, buckets: Sequence[float]) -> Callable[[float], None]:
        """Show how values are spread, and return what takes a value."""
        return Histogram(name, description, registry=self.registry, buckets=buckets).observe

    def by_rank(self, name: str, description: str, values: Callable[[], Sequence[float]], most: int = 5) -> None:
        """Show the largest of some values by their rank, and the sum of the rest: whose they are stays untold."""
        self.registry.register(Ranked(name, description, values, most))

    def total(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Show a number that only grows, read whenever metrics are."""
        self.registry.register(Total(name, description, value))

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Show a value, read whenever metrics are."""
        Gauge(name, description, registry=self.registry).set_function(value)
