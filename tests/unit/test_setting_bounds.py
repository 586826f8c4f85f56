"""Each setting: its default, its bounds, its one line when it is wrong, and that none of its secrets is shown."""

from typing import Any

import pytest

from latchkey_server.settings import PREFIX, Settings, SettingsError, describe, load_settings, revealed
from tests.support.service import PEPPERS

URL = "postgresql://latchkey:database-password@localhost/latchkey"
BOUNDS: list[tuple[str, float, float | None]] = [
    ("workers", 1, 128),
    ("pool_size", 1, 1_000),
    ("lookup_pool_size", 2, 100),
    ("cache_keys", 1, 100_000_000),
    ("cache_bytes", 1_000_000, None),
    ("stale_if_error", 0, 86_400),
    ("statement_cache_size", 0, None),
    ("stop_delay", 0, 300),
    ("stop_grace", 0, 300),
    ("usage_accepted_days", 1, 366),
    ("usage_retention_days", 2, 36_600),
    ("usage_identity_days", 3, 36_600),
    ("verification_retention_days", 1, 36_600),
]
# What another setting has to be when this one is at its bound.
BESIDE: dict[str, dict[str, object]] = {
    "usage_retention_days": {"usage_accepted_days": 1},
    "usage_identity_days": {"usage_accepted_days": 1, "usage_retention_days": 2},
}


def refused(**given: object) -> str:
    """Return the line with which settings are refused."""
    with pytest.raises(SettingsError) as error:
        load_settings({}, given)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("name", "least", "most"), BOUNDS)
def test_a_setting_is_good_to_its_bounds_and_refused_by_its_name_beyond(
    name: str, least: float, most: float | None
) -> None:
    for value in (least, most):
        if value is not None:
            assert getattr(load_settings({}, {name: value, **BESIDE.get(name, {})}), name) == value
    for wrong in (least - 1, most and most + 1):
        if wrong is not None:
            assert refused(**{name: wrong}).startswith(f"{PREFIX}{name.upper()}: ")


@pytest.mark.parametrize(("name", "most"), [("database_timeout", 60), ("call_timeout", 300), ("flush_interval", 60)])
def test_a_time_that_must_be_some_is_refused_as_none_and_beyond_its_most(name: str, most: float) -> None:
    assert getattr(load_settings({}, {name: most}), name) == most
    for wrong in (0, -1, most + 0.001, "nan", "soon"):
        assert refused(**{name: wrong}).startswith(f"{PREFIX}{name.upper()}: ")


def test_the_defaults_are_those_that_the_specification_names() -> None:
    settings = load_settings({}, {})

    assert (settings.stale_if_error, settings.flush_interval) == (60.0, 1.0)
    assert (settings.usage_accepted_days, settings.verification_retention_days) == (35, 90)
    assert (settings.usage_retention_days, settings.usage_identity_days) == (None, None)
    assert (settings.workers, settings.channelz, settings.database_url) == (1, False, None)


@pytest.mark.parametrize(
    "address", ["localhost", ":50051", "localhost:", "localhost:port", "localhost:65536", "a b:1", "localhost:100000"]
)
@pytest.mark.parametrize("name", ["listen", "metrics_listen"])
def test_an_address_is_a_host_and_a_port_that_there_is(name: str, address: str) -> None:
    assert refused(**{name: address}).startswith(f"{PREFIX}{name.upper()}: ")


@pytest.mark.parametrize(
    "url", ["", "localhost", "mysql://localhost/latchkey", "postgres://localhost/latchkey?sslmode", "host=localhost"]
)
@pytest.mark.parametrize("name", ["database_url", "listen_dsn"])
def test_a_database_is_named_by_a_url_of_postgresql_and_a_wrong_one_is_not_repeated(name: str, url: str) -> None:
    line = refused(**{name: url, "peppers": PEPPERS})

    assert line.startswith(f"{PREFIX}{name.upper()}: must be postgres://")
    assert not url or url not in line


def test_a_database_of_its_own_needs_peppers_of_its_own() -> None:
    assert refused(database_url=URL).startswith("LATCHKEY_PEPPERS is required with LATCHKEY_DATABASE_URL; make one")
    assert load_settings({}, {"database_url": URL, "peppers": PEPPERS}).peppers is not None


@pytest.mark.parametrize(
    "peppers",
    ["", ":", "p1", "p1:", "p1:c2hvcnQ=", ":dGVzdCBwZXBwZXIsIG5vdCBhIHNlY3JldA==", "p1:not base64!", f"{PEPPERS},"],
)
def test_a_pepper_is_an_id_and_16_bytes_of_base64_and_a_wrong_one_is_not_repeated(peppers: str) -> None:
    line = refused(peppers=peppers)

    assert line == "LATCHKEY_PEPPERS: must be id:base64,… with at least 16 bytes each"


def test_a_setting_that_there_is_not_is_told_by_its_name() -> None:
    with pytest.raises(SettingsError, match=r"^unknown setting LATCHKEY_LISTENS; `latchkey-server config` lists"):
        load_settings({"LATCHKEY_LISTENS": "127.0.0.1:1", "PATH": "/bin"})


def test_no_secret_is_shown_and_every_setting_is_described_in_one_line() -> None:
    given: dict[str, Any] = {"database_url": URL, "listen_dsn": URL, "peppers": PEPPERS, "workers": 2}
    settings = load_settings({}, given)

    described = {name: (value, text) for name, value, text in describe(settings)}
    shown = str(described) + repr(settings) + str(settings)

    assert {name.removeprefix(PREFIX).lower() for name in described} == set(Settings.model_fields)
    assert [described[PREFIX + name.upper()][0] for name in ("database_url", "listen_dsn", "peppers")] == [
        "********"
    ] * 3
    assert ("database-password" in shown, PEPPERS.partition(":")[2] in shown) == (False, False)
    assert [name for name, (_, text) in described.items() if "\n" in text] == []


def test_what_is_revealed_to_a_worker_makes_the_same_settings_again() -> None:
    given = {"database_url": URL, "peppers": PEPPERS, "workers": 3, "stale_if_error": 0, "log_format": "json"}
    settings = load_settings({}, given)

    assert load_settings({}, revealed(settings)) == settings
