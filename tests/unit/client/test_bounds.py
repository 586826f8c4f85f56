"""What a caller sends is cut or refused by its size before any work is done on it."""

import unicodedata
from typing import Any

import pytest

from latchkey import rules

MARKS = "a" + "\u0301\u0323" * 100_000
"""Combining marks in the wrong order: to sort them takes the square of their number."""


def test_of_a_label_no_more_is_normalised_than_may_be_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    normalize = unicodedata.normalize

    def watched(form: Any, text: str) -> str:
        sizes.append(len(text))
        return normalize(form, text)

    monkeypatch.setattr(unicodedata, "normalize", watched)

    assert len(rules.normalize_environment(MARKS)) == rules.ENVIRONMENT_MAX
    assert rules.normalize_environment(" " * 1_000_000 + "prod") == "prod"
    assert max(sizes) <= 256


@pytest.mark.parametrize("text", ["e\u0323\u0302" * 32, "\u1112\u1161\u11ab" * 32, "\u03b1\u0313\u0300\u0345" * 32])
def test_what_composes_to_a_label_of_full_length_is_read_whole(text: str) -> None:
    assert rules.normalize_environment(text) == unicodedata.normalize("NFC", text)[: rules.ENVIRONMENT_MAX]
    assert len(rules.normalize_environment(text)) == rules.ENVIRONMENT_MAX


@pytest.mark.parametrize("text", ["1." * 2_000_000, ":" * 2_000_000, "10.0.0.0/" + "8" * 2_000_000])
def test_a_text_that_is_too_long_for_an_address_is_not_read_as_one(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(rules, "ipaddress", None)

    assert rules.parse_address(text) is None
    with pytest.raises(ValueError, match="too long"):
        rules.parse_network(text)
