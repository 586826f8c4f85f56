"""What is read back from text: secrets, ids and page tokens."""

from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latchkey_server.domain import ids, paging, secret
from latchkey_server.domain.errors import PageTokenInvalid

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIXES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,30}[A-Za-z0-9])?", fullmatch=True)
IDS = st.uuids() | st.builds(lambda number: UUID(int=number), st.integers(0, 2**128 - 1))


@given(PREFIXES, st.data())
def test_the_checksum_catches_any_change_of_one_character(prefix: str, data: st.DataObject) -> None:
    made = secret.new_secret(prefix)
    index = data.draw(st.integers(0, len(made) - 1))
    other = data.draw(st.sampled_from(BASE62 + "_-").filter(lambda character: character != made[index]))

    assert secret.well_formed(made)
    assert not secret.well_formed(made[:index] + other + made[index + 1 :])


@given(PREFIXES)
def test_a_mask_hides_all_but_8_of_the_38_characters(prefix: str) -> None:
    made = secret.new_secret(prefix)
    shown = secret.mask(made)

    assert shown.startswith(made[: len(prefix) + 5] + "•")
    assert shown.endswith("•" + made[-4:])
    assert len(shown) == len(prefix) + 1 + 4 + 8 + 4


@given(st.text(max_size=60))
def test_any_text_is_well_formed_or_not_and_never_an_error(text: str) -> None:
    assert secret.well_formed(text) in (True, False)


@given(st.sampled_from(["ws", "api", "key", "idn", "mk", "sec", "aud"]), IDS)
def test_an_id_is_read_back_from_its_text(prefix: str, identifier: UUID) -> None:
    assert ids.parse_id(prefix, ids.format_id(prefix, identifier)) == identifier


@given(IDS, IDS)
def test_ids_are_ordered_like_their_text(one: UUID, other: UUID) -> None:
    assert (ids.format_id("key", one) < ids.format_id("key", other)) is (one < other)


@given(st.text(max_size=40) | st.text("0123456789abcdefghjkmnpqrstvwxyz", max_size=30).map("key_".__add__))
def test_only_the_canonical_text_of_an_id_is_read(text: str) -> None:
    try:
        identifier = ids.parse_id("key", text)
    except ValueError:
        return
    assert ids.format_id("key", identifier) == text


@given(st.binary(), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_page_token_is_read_back_by_its_own_filter(binding: bytes, cursor: str) -> None:
    assert paging.decode_token(binding, paging.encode_token(binding, cursor)) == cursor


@given(st.binary(), st.binary(), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_page_token_is_read_by_no_other_filter(binding: bytes, other: bytes, cursor: str) -> None:
    token = paging.encode_token(binding, cursor)

    if binding != other:
        with pytest.raises(PageTokenInvalid):
            paging.decode_token(other, token)


@given(st.data())
def test_a_page_token_in_which_anything_was_changed_is_refused(data: st.DataObject) -> None:
    token = paging.encode_token(b"filter", "019c0000-0000-7000-8000-00000000002a")
    index = data.draw(st.integers(0, len(token) - 1))
    changed = token[:index] + data.draw(st.text(max_size=2)) + token[index + data.draw(st.integers(0, 1)) :]

    if changed != token:
        with pytest.raises(PageTokenInvalid):
            paging.decode_token(b"filter", changed)


@given(st.text(st.characters(), max_size=100))
@example("\ud800")
def test_any_text_as_a_page_token_is_refused_and_never_another_error(token: str) -> None:
    if token:
        with pytest.raises(PageTokenInvalid):
            paging.decode_token(b"filter", token)


@given(st.text(max_size=50))
def test_any_text_as_an_id_cursor_is_an_id_or_refused(cursor: str) -> None:
    with suppress(PageTokenInvalid):
        assert isinstance(paging.id_cursor(cursor), UUID)
