"""What the filters of lists and reports have in common."""

from collections.abc import Sequence

from latchkey.v1 import environment_pb2
from latchkey_server.domain.reporting.request import VALUES_MAX
from latchkey_server.domain.validation import Violations, check_environment, check_storable, counted

LABELS_MAX = 100


def read_labels(filter_: environment_pb2.EnvironmentFilter, found: Violations, field: str) -> tuple[str, ...]:
    """Return the labels of a filter, normalised; what is wrong is noted."""
    asked = counted(found, f"{field}.labels", filter_.labels, LABELS_MAX)
    return tuple(check_environment(found, f"{field}.labels[{index}]", label) for index, label in enumerate(asked))


def read_texts(found: Violations, field: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Return texts to be compared with stored ones; what is wrong is noted."""
    asked = counted(found, field, texts, VALUES_MAX)
    return tuple(check_storable(found, f"{field}[{index}]", text) for index, text in enumerate(asked))
