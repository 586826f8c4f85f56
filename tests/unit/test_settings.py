"""Settings that contradict each other are told in one line before anything starts."""

import pytest

from latchkey_server.settings import SettingsError, load_settings, read_peppers, write_peppers
from tests.support.service import PEPPERS


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tls_certificate": "cert.pem"}, "LATCHKEY_TLS_CERTIFICATE and LATCHKEY_TLS_PRIVATE_KEY go together"),
        ({"tls_client_ca": "ca.pem"}, "LATCHKEY_TLS_CLIENT_CA needs LATCHKEY_TLS_CERTIFICATE"),
        ({"usage_retention_days": 35}, "LATCHKEY_USAGE_RETENTION_DAYS must be more than LATCHKEY_USAGE_ACCEPTED_DAYS"),
        ({"usage_identity_days": 100}, "LATCHKEY_USAGE_IDENTITY_DAYS must be at least LATCHKEY_USAGE_RETENTION_DAYS"),
        (
            {"usage_retention_days": 40, "usage_identity_days": 74},
            "LATCHKEY_USAGE_IDENTITY_DAYS must be at least LATCHKEY_USAGE_RETENTION_DAYS",
        ),
        ({"metrics_listen": "127.0.0.1:65535", "workers": 2}, "LATCHKEY_METRICS_LISTEN leaves no port up to 65535"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings({}, given)

    assert str(refused.value).startswith(told)
    assert "\n" not in str(refused.value)


def test_identities_may_outlive_events_by_as_long_as_these_are_accepted() -> None:
    settings = load_settings({}, {"usage_retention_days": 40, "usage_identity_days": 75})

    assert (settings.usage_retention_days, settings.usage_identity_days) == (40, 75)


def test_peppers_are_written_as_they_are_read_the_current_one_first() -> None:
    current, keys = read_peppers(f"{PEPPERS},older:{'QUJD' * 8}")

    assert read_peppers(write_peppers(current, keys)) == (current, keys)
    assert write_peppers("older", keys).startswith("older:")
