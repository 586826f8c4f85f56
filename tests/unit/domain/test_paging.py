"""Pages and their tokens (spec §3)."""

import pytest

from latchkey_server.domain import paging
from latchkey_server.domain.errors import InvalidField, PageTokenInvalid
from latchkey_server.domain.paging import Page
from tests.unit.builders import KEY_ID, fields_of


@pytest.mark.parametrize("cursor", ["", str(KEY_ID), "2026-03-14T15:09:26+00:00/ab12", "é"])
def test_a_token_gives_its_cursor_back_for_its_own_filter(cursor: str) -> None:
    assert paging.decode_token(b"filter", paging.encode_token(b"filter", cursor)) == cursor


def test_the_last_page_has_no_token_and_no_token_asks_for_the_first_page() -> None:
    assert paging.encode_token(b"filter", None) == ""
    assert paging.decode_token(b"filter", "") is None


def test_a_token_of_another_filter_is_refused() -> None:
    token = paging.encode_token(b"filter", str(KEY_ID))

    with pytest.raises(PageTokenInvalid):
        paging.decode_token(b"other filter", token)


def test_a_token_needs_no_escaping_in_a_url() -> None:
    token = paging.encode_token(b"filter", "\uffff?>" * 20)

    assert token.isascii()
    assert token.replace("-", "a").replace("_", "a").isalnum()


@pytest.mark.parametrize("token", ["x", "!", "é", "\ud800", "AAAA", "=", "====", "A" * 9, "\0", " " * 20])
def test_a_malformed_token_is_refused(token: str) -> None:
    with pytest.raises(PageTokenInvalid) as caught:
        paging.decode_token(b"filter", token)

    assert [violation.field for violation in caught.value.violations] == ["page_token"]


@pytest.mark.parametrize("added", [" ", "\n", "!", "=", "==", "A", "-"])
def test_a_token_with_something_added_is_refused(added: str) -> None:
    token = paging.encode_token(b"filter", str(KEY_ID))

    for changed in (token + added, added + token, token[:9] + added + token[9:]):
        with pytest.raises(PageTokenInvalid):
            paging.decode_token(b"filter", changed)


def test_a_page_has_50_items_unless_told_otherwise_and_at_most_1000() -> None:
    assert [paging.page_size(asked) for asked in (0, 1, 1_000, 1_001)] == [50, 1, 1_000, 1_000]
    assert [paging.page_size(asked, default=7, most=9) for asked in (0, 10)] == [7, 9]


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidField) as caught:
        paging.page_size(-1)

    assert fields_of(caught) == ["page_size"]


def test_an_id_cursor_is_the_id_behind_which_the_list_goes_on() -> None:
    assert paging.id_cursor(str(KEY_ID)) == KEY_ID
    assert paging.id_cursor(None) is None


@pytest.mark.parametrize("cursor", ["", "junk", "0", "é"])
def test_a_cursor_that_is_no_id_is_refused(cursor: str) -> None:
    with pytest.raises(PageTokenInvalid):
        paging.id_cursor(cursor)


@pytest.mark.parametrize("cursor", [None, "", "prod"])
def test_a_label_cursor_is_the_label_behind_which_the_list_goes_on(cursor: str | None) -> None:
    assert paging.label_cursor(cursor) == cursor


@pytest.mark.parametrize("cursor", ["a\0b", "a\nb"])
def test_a_cursor_that_is_no_label_is_refused(cursor: str) -> None:
    with pytest.raises(PageTokenInvalid):
        paging.label_cursor(cursor)


def test_a_page_is_cut_from_a_list_read_one_item_longer() -> None:
    assert paging.cut([1, 2, 3], 2, str) == Page([1, 2], "2")
    assert paging.cut([1, 2], 2, str) == Page([1, 2], None)
    assert paging.cut([], 2, str) == Page([], None)
