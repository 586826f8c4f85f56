"""Metrics as they are read."""

from prometheus_client import generate_latest

from latchkey_server.observability import Metrics


def test_calls_are_counted_by_status_and_timed_by_method() -> None:
    metrics = Metrics()
    for code, seconds in (("OK", 0.005), ("OK", 0.006), ("INTERNAL", 0.3), ("OK", 11.0)):
        metrics.calls.timing("/a.B/C", code).add(seconds)

    lines = generate_latest(metrics.registry).decode().splitlines()

    assert 'latchkey_calls_total{code="OK",method="/a.B/C"} 3.0' in lines
    assert 'latchkey_calls_total{code="INTERNAL",method="/a.B/C"} 1.0' in lines
    counts = {"0.005": 1, "0.01": 2, "0.25": 2, "0.5": 3, "10.0": 3, "+Inf": 4}
    for bound, count in counts.items():
        assert f'latchkey_call_seconds_bucket{{le="{bound}",method="/a.B/C"}} {count}.0' in lines
    assert 'latchkey_call_seconds_count{method="/a.B/C"} 4.0' in lines
    assert 'latchkey_call_seconds_sum{method="/a.B/C"} 11.311' in lines
