"""The shared rules, for any text and any address."""

import ipaddress
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from latchkey import rules

LABELS = st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.sampled_from(" \u00a0\u3000\u0301e"), max_size=80)
SEGMENTS = st.sampled_from(["a", "b", "read"])
V4 = st.ip_addresses(v=4).map(str)
V6 = st.ip_addresses(v=6).map(str)


@given(LABELS)
def test_normalising_a_label_is_idempotent(text: str) -> None:
    label = rules.normalize_environment(text)

    assert rules.normalize_environment(label) == label


@given(LABELS)
def test_a_normalised_label_is_short_composed_and_stripped(text: str) -> None:
    label = rules.normalize_environment(text)

    assert len(label) <= 32
    assert unicodedata.is_normalized("NFC", label)
    assert label == label.strip()


@given(LABELS)
def test_a_normalised_label_is_a_prefix_of_what_was_written(text: str) -> None:
    assert unicodedata.normalize("NFC", text).strip().startswith(rules.normalize_environment(text))


@given(LABELS, st.sampled_from(" \t\n\u00a0\u2003\u3000"), st.sampled_from(" \r\u2028\u3000"))
def test_whitespace_around_a_label_makes_no_difference(text: str, before: str, after: str) -> None:
    assert rules.normalize_environment(before + text + after) == rules.normalize_environment(text)


@given(st.text("ab", max_size=5), st.characters(categories=["Cc"]), st.text("ab", max_size=50))
def test_a_label_with_a_control_character_inside_is_refused(before: str, control: str, after: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        rules.normalize_environment(f"a{before}{control}{after}b")


@given(st.lists(SEGMENTS | st.just("*"), min_size=1, max_size=4), st.lists(SEGMENTS, min_size=1, max_size=4))
def test_a_granted_scope_covers_what_it_matches_segment_by_segment(granted: list[str], required: list[str]) -> None:
    covered = len(granted) == len(required)
    for index in range(min(len(granted), len(required))):
        covered = covered and granted[index] in ("*", required[index])

    assert rules.scope_matches(".".join(granted), ".".join(required)) is covered


@given(V4, st.integers(0, 32), V4)
def test_an_ipv4_entry_holds_a_client_and_its_mapped_form_alike(entry: str, length: int, client: str) -> None:
    shift = 32 - length
    held = int(ipaddress.IPv4Address(entry)) >> shift == int(ipaddress.IPv4Address(client)) >> shift

    for written in (f"{entry}/{length}", f"::ffff:{entry}/{length + 96}"):
        assert rules.ip_allowed([written], client) is held
        assert rules.ip_allowed([written], f"::ffff:{client}") is held


@given(V6, st.integers(0, 128), V6)
def test_an_ipv6_entry_holds_the_clients_of_its_network(entry: str, length: int, client: str) -> None:
    assume(ipaddress.IPv6Address(client).ipv4_mapped is None and ipaddress.IPv6Address(entry).ipv4_mapped is None)
    shift = 128 - length
    held = int(ipaddress.IPv6Address(entry)) >> shift == int(ipaddress.IPv6Address(client)) >> shift

    assert rules.ip_allowed([f"{entry}/{length}"], client) is held


@given(V4 | V6, st.integers(0, 32))
def test_a_normalised_entry_is_its_own_normal_form(entry: str, length: int) -> None:
    network = rules.parse_network(f"{entry}/{length}")

    assert rules.parse_network(str(network)) == network


@given(st.text(max_size=40))
def test_any_text_as_a_client_is_an_answer_and_never_an_error(client: str) -> None:
    assert rules.ip_allowed(["0.0.0.0/0", "::/0"], client) is (rules.parse_address(client) is not None)


@given(st.text("0123456789abcdef:./% ", max_size=30))
def test_any_text_as_an_entry_is_a_network_or_a_value_error(entry: str) -> None:
    try:
        network = rules.parse_network(entry)
    except ValueError:
        return
    assert rules.parse_network(str(network)) == network
