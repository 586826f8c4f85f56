"""The rules that the server and every client cache decide alike (spec §2, §3)."""

import hashlib
import unicodedata

import pytest

from latchkey import rules
from tests.unit.builders import NOW, TICK


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("prod", "prod"),
        ("", ""),
        ("   ", ""),
        ("\t\n \u00a0\u2003\u3000", ""),
        ("  prod  ", "prod"),
        ("\tprod\r\n", "prod"),
        ("\u00a0prod\u3000", "prod"),
        ("\u2028prod\u2029", "prod"),
        ("pre prod", "pre prod"),
        ("unlabeled", "unlabeled"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u212b", "\u00c5"),
        ("\U0001f680", "\U0001f680"),
    ],
)
def test_a_label_is_composed_and_stripped_of_unicode_whitespace(written: str, stored: str) -> None:
    assert rules.normalize_environment(written) == stored


def test_labels_keep_their_case() -> None:
    assert [rules.normalize_environment(text) for text in ("prod", "Prod", "production")] == [
        "prod",
        "Prod",
        "production",
    ]


def test_a_label_keeps_its_first_32_code_points() -> None:
    assert rules.normalize_environment("a" * 32) == "a" * 32
    assert rules.normalize_environment("a" * 32 + "b") == "a" * 32
    assert rules.normalize_environment("\U0001f680" * 1_000) == "\U0001f680" * 32


def test_a_label_is_cut_to_32_code_points_and_stripped_again() -> None:
    assert rules.normalize_environment("a" * 30 + " \u2003" + "b" * 9) == "a" * 30


def test_a_label_is_stripped_before_it_is_cut() -> None:
    assert rules.normalize_environment(" " * 40 + "b" * 32) == "b" * 32


def test_a_label_is_composed_before_it_is_cut() -> None:
    assert rules.normalize_environment("e\u0301" * 32) == "\u00e9" * 32


@pytest.mark.parametrize("character", ["\0", "\x01", "\x1b", "\x7f", "\x80", "\x9f", "\n", "\t"])
def test_a_label_with_a_control_character_inside_is_refused(character: str) -> None:
    assert unicodedata.category(character) == "Cc"
    with pytest.raises(ValueError, match="control characters"):
        rules.normalize_environment(f"pr{character}od")


@pytest.mark.parametrize("label", ["\0", "\0prod", "prod\0", "\x7f", "a" * 40 + "\0"])
def test_a_control_character_at_an_end_or_behind_the_cut_is_refused_too(label: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        rules.normalize_environment(label)


@pytest.mark.parametrize(
    ("granted", "required", "covered"),
    [
        ("docs.read", "docs.read", True),
        ("docs.read", "docs.write", False),
        ("docs.read", "Docs.read", False),
        ("docs.read", "docs", False),
        ("docs", "docs.read", False),
        ("docs.*", "docs.read", True),
        ("docs.*", "docs", False),
        ("docs.*", "docs.read.all", False),
        ("*.read", "docs.read", True),
        ("*.read", "docs.write", False),
        ("*.*", "docs.read", True),
        ("*", "docs", True),
        ("*", "docs.read", False),
        ("docs.*.own", "docs.read.own", True),
        ("docs.*.own", "docs.read.all", False),
    ],
)
def test_a_wildcard_stands_for_exactly_one_segment(granted: str, required: str, covered: bool) -> None:
    assert rules.scope_matches(granted, required) is covered


@pytest.mark.parametrize("required", ["*", "docs.*", "*.read"])
def test_a_wildcard_counts_on_the_granted_side_only(required: str) -> None:
    assert not rules.scope_matches("docs.read", required)


def test_required_scopes_are_an_and_of_any_of_groups() -> None:
    granted = ("docs.read", "users.*")

    assert rules.missing_scopes(granted, [("docs.write", "docs.read"), ("users.edit",)]) == []
    assert rules.missing_scopes(granted, [("docs.write",), ("users.edit",)]) == [("docs.write",)]


def test_nothing_required_is_covered_by_nothing_granted() -> None:
    assert rules.missing_scopes((), []) == []
    assert rules.missing_scopes((), [("docs.read",)]) == [("docs.read",)]


@pytest.mark.parametrize(
    ("entry", "network"),
    [
        ("10.0.0.1", "10.0.0.1/32"),
        (" 10.0.0.1 ", "10.0.0.1/32"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("2001:DB8:0::1/32", "2001:db8::/32"),
        ("::/0", "::/0"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_an_address_or_cidr_is_read_with_host_bits_and_mapped_form_normalised(entry: str, network: str) -> None:
    assert str(rules.parse_network(entry)) == network


@pytest.mark.parametrize(
    "entry",
    [
        *("", " ", "localhost", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.1/33", "10.0.0.1/-1", "10.0.0.1/"),
        *("::1/129", "10.0.0.1:80", "[::1]", "fe80::1%eth0", "10.0.0.1-10.0.0.9", "1.2.3.4, 5.6.7.8"),
    ],
)
def test_what_is_neither_an_address_nor_a_cidr_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        rules.parse_network(entry)


@pytest.mark.parametrize("entry", ["10.0.0.5/0.0.0.0", "10.0.0.5/255.255.255.0", "10.0.0.5/0.0.0.255"])
def test_an_entry_with_a_mask_instead_of_a_prefix_length_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        rules.parse_network(entry)


@pytest.mark.parametrize(
    ("entries", "client_ip", "allowed"),
    [
        ((), None, True),
        ((), "junk", True),
        (("10.0.0.0/8",), "10.255.0.1", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.0.0.0/8",), "::ffff:10.0.0.1", True),
        (("10.0.0.0/8",), "::FFFF:0a00:0001", True),
        (("10.0.0.0/8",), "::ffff:11.0.0.1", False),
        (("::ffff:10.0.0.0/104",), "10.0.0.1", True),
        (("::ffff:10.0.0.0/104",), "::ffff:10.0.0.1", True),
        (("2001:db8::/32",), "2001:db8::9", True),
        (("2001:db8::/32",), "2001:db9::9", False),
        (("::/0",), "10.0.0.1", False),
        (("0.0.0.0/0",), "2001:db8::9", False),
        (("10.0.0.1", "2001:db8::1"), "2001:db8::1", True),
        (("10.0.0.1",), None, False),
        (("10.0.0.1",), "", False),
        (("10.0.0.1",), "junk", False),
        (("10.0.0.1",), "10.0.0.1, 8.8.8.8", False),
        (("10.0.0.1",), "10.0.0.1:443", False),
        (("0.0.0.0/0", "::/0"), "junk", False),
        (("0.0.0.0/0", "::/0"), None, False),
    ],
)
def test_a_client_is_allowed_by_an_entry_that_holds_its_address(
    entries: tuple[str, ...], client_ip: str | None, allowed: bool
) -> None:
    assert rules.ip_allowed(entries, client_ip) is allowed


@pytest.mark.parametrize(
    ("enabled", "models", "model", "allowed"),
    [
        (False, (), "small", True),
        (False, ("large",), "small", True),
        (True, (), "small", False),
        (True, ("small",), "small", True),
        (True, ("small",), "Small", False),
        (True, ("small",), "small-2", False),
        (True, ("small",), "", False),
        (True, (), None, True),
    ],
)
def test_a_model_is_matched_exactly_against_an_enabled_list(
    enabled: bool, models: tuple[str, ...], model: str | None, allowed: bool
) -> None:
    assert rules.model_allowed(enabled, models, model) is allowed


def test_a_key_has_begun_from_its_not_before_time_on() -> None:
    assert rules.begun(None, NOW)
    assert rules.begun(NOW, NOW)
    assert rules.begun(NOW - TICK, NOW)
    assert not rules.begun(NOW + TICK, NOW)


def test_a_key_is_unexpired_while_now_is_before_its_expire_time() -> None:
    assert rules.unexpired(None, NOW)
    assert rules.unexpired(NOW + TICK, NOW)
    assert not rules.unexpired(NOW, NOW)
    assert not rules.unexpired(NOW - TICK, NOW)


def test_a_secret_is_known_by_the_sha256_of_its_utf8() -> None:
    assert rules.secret_sha256("sk_\u00e9") == hashlib.sha256(b"sk_\xc3\xa9").digest()
