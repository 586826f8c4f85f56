"""Metrics as they are read."""

from importlib.metadata import version

from prometheus_client import generate_latest

from latchkey_server.observability import Metrics


def test_calls_are_counted_by_status_and_timed_by_method() -> None:
    metrics = Metrics()
    for code, seconds in (("OK", 0.005), ("OK", 0.006), ("INTERNAL", 0.3), ("OK", 11.0)):
        metrics.calls.timing("/a.B/C", code).add(seconds)

    lines = generate_latest(metrics.registry).decode().splitlines()

    assert 'latchkey_calls_total{code="OK",method="/a.B/C"} 3.0' in lines
    assert 'latchkey_calls_total{code="INTERNAL",method="/a.B/C"} 1.0' in lines
    counts = {"0.001": 0, "0.005": 1, "0.01": 2, "0.25": 2, "0.5": 3, "10.0": 3, "30.0": 4, "+Inf": 4}
    for bound, count in counts.items():
        assert f'latchkey_call_seconds_bucket{{le="{bound}",method="/a.B/C"}} {count}.0' in lines
    assert 'latchkey_call_seconds_count{method="/a.B/C"} 4.0' in lines
    assert 'latchkey_call_seconds_sum{method="/a.B/C"} 11.311' in lines


def test_calls_that_take_microseconds_are_told_apart() -> None:
    metrics = Metrics()
    for seconds in (0.00002, 0.00008, 0.0002, 0.0008):
        metrics.calls.timing("/a.B/C", "OK").add(seconds)

    lines = generate_latest(metrics.registry).decode().splitlines()

    counts = {"5e-05": 1, "0.0001": 2, "0.00025": 3, "0.001": 4}
    for bound, count in counts.items():
        assert f'latchkey_call_seconds_bucket{{le="{bound}",method="/a.B/C"}} {count}.0' in lines


def test_streams_are_counted_as_calls_and_timed_apart_in_hours() -> None:
    metrics = Metrics()
    for seconds in (0.00005, 5_000.0):
        metrics.calls.stream_timing("/a.B/S", "OK").add(seconds)

    lines = generate_latest(metrics.registry).decode().splitlines()

    assert 'latchkey_calls_total{code="OK",method="/a.B/S"} 2.0' in lines
    assert 'latchkey_stream_seconds_bucket{le="1800.0",method="/a.B/S"} 1.0' in lines
    assert 'latchkey_stream_seconds_bucket{le="7200.0",method="/a.B/S"} 2.0' in lines
    assert not any(line.startswith("latchkey_call_seconds_bucket") for line in lines)


def test_what_runs_and_what_the_process_takes_is_shown() -> None:
    lines = generate_latest(Metrics().registry).decode().splitlines()

    (build,) = [line for line in lines if line.startswith("latchkey_build_info{")]
    assert f'version="{version("latchkey-server")}"' in build
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)
