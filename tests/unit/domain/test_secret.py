"""Secrets: their format, what may be shown of them, and how they are stored (spec §3)."""

import hashlib
import hmac
import re
import string

import pytest

from latchkey_server.domain import secret
from latchkey_server.domain.secret import Peppers

BASE62 = string.digits + string.ascii_letters


@pytest.mark.parametrize("prefix", ["sk", "sk_live", "a", "A-b_c-9", "x" * 32])
def test_a_secret_is_its_prefix_and_38_base62_characters(prefix: str) -> None:
    made = secret.new_secret(prefix)

    assert re.fullmatch(rf"{prefix}_[0-9A-Za-z]{{38}}", made)
    assert secret.well_formed(made)


def test_secrets_never_repeat() -> None:
    assert len({secret.new_secret("sk") for _ in range(1_000)}) == 1_000


def test_a_secret_ends_in_the_checksum_of_all_before_it() -> None:
    made = secret.new_secret("sk")

    assert made[-6:] == secret.checksum(made[:-6])


def test_the_checksum_catches_every_change_of_one_character() -> None:
    made = secret.new_secret("sk_live")

    changed = [
        made[:index] + other + made[index + 1 :]
        for index, character in enumerate(made)
        for other in BASE62 + "_-é"
        if other != character
    ]

    assert [text for text in changed if secret.well_formed(text)] == []


@pytest.mark.parametrize("junk", ["", "_", "sk", "sk_", "sk_short", "_" + "0" * 38, "\0", "é" * 45, "sk_" + "é" * 38])
def test_junk_is_not_well_formed(junk: str) -> None:
    assert not secret.well_formed(junk)


def test_a_secret_that_lost_or_gained_a_character_is_not_well_formed() -> None:
    made = secret.new_secret("sk")

    assert not any(map(secret.well_formed, (made[:-1], made + "0", made[1:], " " + made, made + "\n")))


@pytest.mark.parametrize("prefix", ["sk", "sk_live", "x" * 32])
def test_a_mask_shows_the_prefix_at_most_4_leading_characters_and_the_last_4(prefix: str) -> None:
    made = secret.new_secret(prefix)
    random = made.removeprefix(f"{prefix}_")

    shown = secret.mask(made)

    assert shown == f"{prefix}_{random[:4]}••••••••{random[-4:]}"
    assert random[4:-4] not in shown


def test_a_mask_has_a_constant_width() -> None:
    assert {len(secret.mask(secret.new_secret("sk"))) for _ in range(20)} == {len("sk_") + 4 + 8 + 4}


def test_a_blank_mask_shows_nothing_but_the_prefix() -> None:
    assert secret.blank_mask("sk_live") == "sk_live_••••••••"


def test_a_secret_is_kept_as_the_hmac_of_its_sha256_by_the_current_pepper() -> None:
    sha256 = hashlib.sha256(b"sk_secret").digest()
    peppers = Peppers({"old": b"o" * 32, "new": b"n" * 32}, current="new")

    assert peppers.hash(sha256) == hmac.digest(b"n" * 32, sha256, "sha256")


def test_a_secret_is_looked_up_under_every_pepper() -> None:
    sha256 = hashlib.sha256(b"sk_secret").digest()
    peppers = Peppers({"old": b"o" * 32, "new": b"n" * 32}, current="new")

    assert peppers.candidates(sha256) == [hmac.digest(key * 32, sha256, "sha256") for key in (b"o", b"n")]
    assert peppers.hash(sha256) in peppers.candidates(sha256)


def test_what_a_retired_pepper_hashed_is_still_found_while_the_pepper_is_known() -> None:
    sha256 = hashlib.sha256(b"sk_secret").digest()
    before = Peppers({"old": b"o" * 32}, current="old")
    after = Peppers({"old": b"o" * 32, "new": b"n" * 32}, current="new")

    assert before.hash(sha256) in after.candidates(sha256)
    assert before.hash(sha256) != after.hash(sha256)


def test_a_peppers_check_value_tells_peppers_apart_without_being_one() -> None:
    peppers = Peppers({"old": b"o" * 32, "new": b"n" * 32}, current="new")

    assert peppers.check_value("old") != peppers.check_value("new")
    assert Peppers({"old": b"o" * 32}, current="old").check_value("old") == peppers.check_value("old")
    assert peppers.check_value("new") not in peppers.keys.values()
    assert peppers.check_value("new") != peppers.hash(bytes(32))
