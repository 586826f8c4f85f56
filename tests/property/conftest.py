"""Settings of the property tests: a failure prints the blob that reproduces it; nothing depends on time."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "latchkey",
    deadline=None,
    derandomize=False,
    max_examples=100,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("latchkey")
