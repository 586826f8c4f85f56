"""What errors become on the wire: always small enough to be received (spec §7)."""

from latchkey_server.domain.errors import LatchkeyError, Violation
from latchkey_server.domain.keys import importing as key_import
from latchkey_server.transport.answer_size import ANSWER_MAX
from latchkey_server.transport.status import abort_status, status_of

# What a trailer takes at most, in bytes; gRPC sends binary values in base64.
TRAILER_MAX = 8_192
WIDE = "\N{KEY}" * 1_000


def widest(violations: int) -> LatchkeyError:
    """Return an error of which everything is longer than what is told of it."""
    return LatchkeyError(WIDE, violations=[Violation(WIDE, WIDE)] * violations, first=WIDE, second=WIDE)


def test_the_results_of_the_worst_import_fit_into_one_answer() -> None:
    status = status_of(widest(key_import.VIOLATIONS_MAX))

    # The tags and lengths of a result and of the status in it.
    assert (status.ByteSize() + 16) * key_import.ITEMS_MAX <= ANSWER_MAX


def test_the_worst_error_fits_into_a_trailer() -> None:
    aborted = abort_status(widest(100), "c" * 64)

    binary = sum(len(value) for _, value in aborted.trailing_metadata if isinstance(value, bytes))
    assert binary * 4 / 3 + 3 * len(aborted.details.encode()) <= TRAILER_MAX


def test_a_text_is_cut_between_characters() -> None:
    assert status_of(LatchkeyError("x" + WIDE)).message == "x" + WIDE[:127]
