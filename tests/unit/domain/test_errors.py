"""Every way in which a call can fail, and its reason on the wire (spec §7)."""

import inspect

import pytest

from latchkey.v1.error_reason_pb2 import ErrorReason
from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from tests.unit.builders import KEY_ID

BASES = {errors.LatchkeyError, errors.NotFound, errors.FailedPrecondition, errors.Unavailable}
REASONED = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, LatchkeyError) and kind not in BASES
]


@pytest.mark.parametrize("kind", REASONED)
def test_every_error_has_a_reason_of_its_own(kind: type[LatchkeyError]) -> None:
    assert "reason" in vars(kind)
    assert [other for other in REASONED if other.reason == kind.reason] == [kind]


def test_reasons_and_the_error_reason_enum_are_the_same() -> None:
    on_the_wire = sorted(name for name, _ in ErrorReason.items() if name != "ERROR_REASON_UNSPECIFIED")

    assert sorted(f"ERROR_REASON_{kind.reason}" for kind in REASONED) == on_the_wire


@pytest.mark.parametrize("kind", [kind for kind in REASONED if issubclass(kind, errors.NotFound)])
def test_what_is_not_found_is_told_by_its_id_only(kind: type[errors.NotFound]) -> None:
    error = kind("the_id")

    assert error.message == f"No such {kind.noun}; check the id and the workspace."
    assert error.details == {kind.field: "the_id"}


def test_an_invalid_field_names_every_violation() -> None:
    error = errors.InvalidField([errors.Violation("a", "is wrong"), errors.Violation("b", "is too")])

    assert str(error) == "The request has invalid fields: a: is wrong; b: is too."
    assert tuple(violation.field for violation in error.violations) == ("a", "b")


def test_details_become_the_metadata_of_the_error() -> None:
    error = errors.DefaultApi("The default api stays.", api_id=str(KEY_ID))

    assert error.message == "The default api stays."
    assert error.details == {"api_id": str(KEY_ID)}
    assert error.violations == ()


@pytest.mark.parametrize(
    ("error", "field"), [(errors.RequestIdReused("CreateKey"), "request_id"), (errors.PageTokenInvalid(), "page_token")]
)
def test_a_bad_argument_is_named_as_a_violation(error: LatchkeyError, field: str) -> None:
    assert [violation.field for violation in error.violations] == [field]
