"""What every list does alike: whole pages, tokens of its own question, sizes (the protos' list requests)."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message

from latchkey.v1 import admin_service_pb2 as admin_pb
from latchkey.v1 import key_pb2, management_key_pb2, usage_service_pb2, workspace_pb2
from latchkey.v1 import key_service_pb2 as keys_pb
from tests.support.matrix_calls import call
from tests.support.matrix_world import make_api, make_identity, report, timestamp
from tests.support.service import Client

COUNT = 3


async def _filled(root: Client) -> dict[str, Message]:
    """Make some of everything that is listed and return a request of each list, by the name of its items."""
    items = [
        keys_pb.ImportKeyItem(secret_sha256=hashlib.sha256(bytes([number])).digest()) for number in range(COUNT - 1)
    ]
    await root.keys.ImportKeys(keys_pb.ImportKeysRequest(items=items))
    key_id = (await root.create_key()).key.key_id
    for number in range(COUNT):
        label = key_pb2.Key(key_id=key_id, environment=f"e{number}")
        await root.keys.UpdateKey(keys_pb.UpdateKeyRequest(key=label))
        wanted = key_pb2.Key(environment=f"label-{number}")
        await root.create_key(wanted)
        await make_api(root)
        await make_identity(root, f"customer-{number}")
        await root.create_management_key(management_key_pb2.ROLE_VIEWER)
        workspace = workspace_pb2.Workspace(name=f"tenant-{number}")
        await root.admin.CreateWorkspace(admin_pb.CreateWorkspaceRequest(workspace=workspace))
        await report(root, key_id)
    start = timestamp(datetime.now(UTC) - timedelta(hours=1))
    return {
        "keys": keys_pb.ListKeysRequest(),
        "environments": keys_pb.ListEnvironmentsRequest(),
        "apis": admin_pb.ListApisRequest(),
        "identities": admin_pb.ListIdentitiesRequest(),
        "management_keys": admin_pb.ListManagementKeysRequest(),
        "workspaces": admin_pb.ListWorkspacesRequest(),
        "audit_events": admin_pb.ListAuditEventsRequest(),
        "events": usage_service_pb2.ListUsageEventsRequest(start_time=start),
    }


def paged(request: Message, size: int, token: str = "") -> Message:
    """Return the request of one page."""
    page = type(request)()
    page.CopyFrom(request)
    setattr(page, "page_size", size)  # noqa: B010
    setattr(page, "page_token", token)  # noqa: B010
    return page


async def _page(client: Client, request: Message, items: str) -> tuple[list[Message], str]:
    answer = (await call(client.channel, request)).response
    assert answer is not None
    return list(getattr(answer, items)), getattr(answer, "next_page_token")  # noqa: B009


async def _pages(client: Client, request: Message, items: str, sizes: Sequence[int]) -> list[list[Message]]:
    """Return the pages of a list, of these sizes in turn."""
    pages: list[list[Message]] = []
    token = ""
    while token or not pages:
        found, token = await _page(client, paged(request, sizes[len(pages) % len(sizes)], token), items)
        pages.append(found)
    return pages


async def test_pages_of_any_sizes_hold_the_whole_list_once_in_its_order_and_the_last_one_says_so(root: Client) -> None:
    for items, request in (await _filled(root)).items():
        whole, token = await _page(root, paged(request, 1_000), items)
        by_size = [await _pages(root, request, items, sizes) for sizes in ([2], [1, 3])]
        exact = await _page(root, paged(request, len(whole)), items)
        default = await _page(root, request, items)
        huge = await _page(root, paged(request, 2**31 - 1), items)
        negative = await call(root.channel, paged(request, -1))

        assert (len(whole) >= COUNT, token) == (True, ""), items
        for pages in by_size:
            assert [item for page in pages for item in page] == whole, items
        assert [len(page) for page in by_size[0][:-1]] == [2] * (len(by_size[0]) - 1), items
        assert exact == default == huge == (whole, ""), items
        assert negative.refusal is not None
        assert (negative.outcome, negative.refusal.fields) == ("INVALID_FIELD", ["page_size"]), items


async def test_a_token_of_one_list_is_refused_by_every_other(root: Client) -> None:
    requests = await _filled(root)
    tokens = {items: (await _page(root, paged(request, 1), items))[1] for items, request in requests.items()}

    outcomes = {
        (items, of): (await call(root.channel, paged(request, 1, token))).outcome
        for items, request in requests.items()
        for of, token in tokens.items()
    }

    assert all(tokens.values())
    assert outcomes == {(items, of): "OK" if items == of else "PAGE_TOKEN_INVALID" for items, of in outcomes}
