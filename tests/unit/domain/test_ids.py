"""Identifiers: TypeIDs outside, UUIDv7 inside (spec §7)."""

from uuid import UUID

import pytest

from latchkey_server.domain import ids
from tests.unit.builders import KEY_ID

ALL_ONES = UUID(int=2**128 - 1)


@pytest.mark.parametrize(
    ("identifier", "text"),
    [
        (UUID(int=0), "key_00000000000000000000000000"),
        (UUID(int=1), "key_00000000000000000000000001"),
        (UUID(int=31), "key_0000000000000000000000000z"),
        (ALL_ONES, "key_7zzzzzzzzzzzzzzzzzzzzzzzzz"),
        (UUID("0188bac7-4afa-78aa-bc3b-bd1eef28d881"), "key_01h2xcejqtf2nbrexx3vqjhp41"),
    ],
)
def test_an_id_is_its_prefix_and_26_characters_of_base32(identifier: UUID, text: str) -> None:
    assert ids.format_id("key", identifier) == text
    assert ids.parse_id("key", text) == identifier


def test_a_new_id_is_a_uuid_of_version_7() -> None:
    made = ids.new_id()

    assert made.version == 7
    assert made.variant == "specified in RFC 4122"


def test_ids_are_ordered_by_creation() -> None:
    clock = iter([1, 2, 1_000, 1_760_000_000_000, 1_760_000_000_001])
    maker = ids.IdMaker(lambda: next(clock) * 1_000_000)
    made = [maker.make() for _ in range(5)]

    assert made == sorted(made)
    assert [identifier.int >> 80 for identifier in made] == [1, 2, 1_000, 1_760_000_000_000, 1_760_000_000_001]
    texts = [ids.format_id("key", identifier) for identifier in made]
    assert texts == sorted(texts)


def test_two_processes_make_different_ids_in_one_millisecond() -> None:
    makers = [ids.IdMaker(lambda: 1_760_000_000_000_000_000) for _ in range(2)]

    assert len({maker.make() for _ in range(1_000) for maker in makers}) == 2_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "_",
        "key",
        "key_",
        "key_0",
        "00000000000000000000000000",
        "_00000000000000000000000000",
        "api_00000000000000000000000000",
        "Key_00000000000000000000000000",
        "key__00000000000000000000000000",
        "key_key_00000000000000000000000000",
        "key_0000000000000000000000000",
        "key_000000000000000000000000000",
        "key_80000000000000000000000000",
        "key_zzzzzzzzzzzzzzzzzzzzzzzzzz",
        "key_-0000000000000000000000000",
        "key_0000000000000000000000000i",
        "key_0000000000000000000000000l",
        "key_0000000000000000000000000o",
        "key_0000000000000000000000000u",
        "key_0000000000000000000000000Z",
        "key_0000000000000000000000000 ",
        "key_00000000000000000000000000\n",
        " key_00000000000000000000000000",
        "key_0000000000000000000000000\u0661",
        "key_0188bac7-4afa-78aa-bc3b-bd1eef28d881",
    ],
)
def test_a_malformed_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be key_ and 26 characters of base32"):
        ids.parse_id("key", text)


def test_an_id_of_another_noun_is_refused() -> None:
    with pytest.raises(ValueError, match="must be mk_"):
        ids.parse_id(ids.MANAGEMENT_KEY, ids.format_id(ids.KEY, KEY_ID))
