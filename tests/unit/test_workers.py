"""What the parent of several workers decides by itself."""

import pytest
from pydantic import SecretStr

from latchkey_server.app import metrics_address
from latchkey_server.settings import Settings, SettingsError, load_settings, read_peppers, revealed, write_peppers


def test_each_worker_shows_its_metrics_at_a_port_of_its_own() -> None:
    assert [metrics_address("0.0.0.0:9464", worker) for worker in range(2)] == ["0.0.0.0:9464", "0.0.0.0:9465"]
    assert metrics_address("[::1]:0", 1) == "[::1]:0"


def test_a_metrics_port_without_room_for_all_workers_is_refused() -> None:
    with pytest.raises(SettingsError, match="LATCHKEY_METRICS_LISTEN leaves no port"):
        load_settings(given={"metrics_listen": "127.0.0.1:65534", "workers": 3})


def test_a_worker_gets_the_settings_of_its_parent_with_their_secrets() -> None:
    parent = Settings(
        workers=2, listen="[::1]:1", database_url=SecretStr("postgres://a:b@c/d"), peppers=SecretStr("p1:" + "A" * 24)
    )

    assert Settings.model_validate(revealed(parent)) == parent


def test_peppers_are_passed_on_with_the_current_one_first() -> None:
    peppers = {"old": b"o" * 16, "new": b"n" * 32}

    assert read_peppers(write_peppers("new", peppers)) == ("new", peppers)
