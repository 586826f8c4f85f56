"""What all lists do alike: a token is bound to its question, and a page ends where the answer is full."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from latchkey_server.domain.paging import Page, decode_token, encode_token, page_size
from latchkey_server.transport.answer_size import fitting
from latchkey_server.transport.call import binding

M = TypeVar("M", bound=Message)
T = TypeVar("T")


async def one_page(
    request: Any, load: Callable[[int, str | None], Awaitable[Page[T]]], convert: Callable[[T], M]
) -> tuple[list[M], str]:
    """Return the messages of the page that a List request asks for, and the token of the next one.

    ``load`` returns a page by its size and the cursor before it. Raises PageTokenInvalid and InvalidField.
    """
    bound = binding(request)
    cursor = decode_token(bound, request.page_token)
    page = await load(page_size(request.page_size), cursor)
    messages = await fitting(convert, page.items)
    return messages, encode_token(bound, page.first(len(messages)).next_cursor)
