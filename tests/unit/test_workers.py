"""What the parent of several workers decides by itself."""

import pytest
from pydantic import SecretStr

from latchkey_server.app import metrics_address
from latchkey_server.settings import Settings, SettingsError, load_settings, read_peppers, revealed, write_peppers
from latchkey_server.workers import PAUSE_MAX, PAUSE_MIN, SERVED_SECONDS, Backoff


def test_a_worker_that_fails_again_and_again_waits_twice_as_long_each_time_up_to_a_bound() -> None:
    backoff = Backoff()
    pauses = [backoff.pause(served=0.0) for _ in range(9)]

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert pauses[-1] == PAUSE_MAX


def test_a_worker_that_served_for_a_while_is_restarted_as_if_it_had_never_failed() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.pause(served=0.0)

    assert backoff.pause(served=SERVED_SECONDS) == PAUSE_MIN
    assert backoff.pause(served=0.0) == 2 * PAUSE_MIN


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
