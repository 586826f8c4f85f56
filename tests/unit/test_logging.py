"""What a log line never holds: secrets, by name or by looks, and texts of libraries."""

import logging

import pytest
from structlog.testing import capture_logs

from latchkey_server.domain.secret import new_secret
from latchkey_server.observability import _NoText, redact


@pytest.mark.parametrize("name", ["secret", "authorization", "dsn", "peppers"])
def test_a_field_that_holds_secrets_by_its_name_is_hidden(name: str) -> None:
    assert redact(None, "info", {"event": "call", name: "anything"}) == {"event": "call", name: "[hidden]"}


@pytest.mark.parametrize("prefix", ["lkm", "sk", "sk_live"])
def test_a_secret_is_hidden_wherever_it_turns_up_in_a_line(prefix: str) -> None:
    secret = new_secret(prefix)

    told = redact(None, "info", {"event": f"refused {secret}, again", "number": 7})

    assert told == {"event": "refused [hidden], again", "number": 7}


def test_of_what_a_library_logs_only_its_place_and_the_kind_of_error_are_told() -> None:
    try:
        raise ValueError("a request's text")
    except ValueError as error:
        record = logging.LogRecord("grpc", logging.ERROR, "call.py", 7, "%s", (error,), (ValueError, error, None))
    with capture_logs() as logs:
        _NoText().emit(record)

    assert logs == [
        {
            "event": "library warning",
            "library_level": "ERROR",
            "at": "call:7",
            "error": "ValueError",
            "log_level": "warning",
        }
    ]
