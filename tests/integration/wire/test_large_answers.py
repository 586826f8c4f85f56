"""Answers that clients can receive: a page ends before 3.5 MiB, and the next goes on exactly behind it."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import asyncpg
import pytest
from google.protobuf.message import Message

from latchkey.v1 import admin_service_pb2, key_pb2, key_service_pb2, usage_service_pb2
from tests.integration.usage.test_usage import asking, event, query, report
from tests.support.service import Client, Service

ANSWER_MAX = 3_670_016
COUNT = 1_000


class PageRequest(Protocol):
    """A request for a page."""

    page_size: int
    page_token: str


async def pages(call: Callable[[Any], Awaitable[Any]], request: PageRequest) -> list[Any]:
    """Return every page of a list."""
    found = [await call(request)]
    while found[-1].next_page_token:
        request.page_token = found[-1].next_page_token
        found.append(await call(request))
    return found


def sizes(found: Sequence[Message]) -> list[int]:
    return [page.ByteSize() for page in found]


async def import_large(owner: Client, count: int) -> list[str]:
    """Import keys with 4 KiB of metadata and an identity each, and return their ids, oldest first."""
    key_ids = []
    for begin in range(0, count, 500):
        items = []
        for number in range(begin, begin + 500):
            key = key_pb2.Key(external_id=f"customer {number}")
            key.metadata["text"] = "x" * 4_000
            digest = hashlib.sha256(number.to_bytes(4, "big")).digest()
            items.append(key_service_pb2.ImportKeyItem(key=key, secret_sha256=digest))
        answer = await owner.keys.ImportKeys(key_service_pb2.ImportKeysRequest(items=items))
        key_ids += [result.key_id for result in answer.results]
    return key_ids


async def test_a_list_of_large_things_is_cut_where_an_answer_is_full_and_loses_nothing(
    owner: Client, service: Service
) -> None:
    key_ids = await import_large(owner, COUNT)
    connection = await asyncpg.connect(service.dsn)
    await connection.execute("UPDATE identity SET metadata = (SELECT metadata FROM key LIMIT 1)")
    await connection.close()

    keys = await pages(owner.keys.ListKeys, key_service_pb2.ListKeysRequest(page_size=COUNT))
    identities = await pages(owner.admin.ListIdentities, admin_service_pb2.ListIdentitiesRequest(page_size=COUNT))
    audit = await pages(
        owner.admin.ListAuditEvents, admin_service_pb2.ListAuditEventsRequest(page_size=COUNT, action="key.import")
    )

    assert sorted(key.key_id for page in keys for key in page.keys) == sorted(key_ids)
    assert len({one.identity_id for page in identities for one in page.identities}) == COUNT
    assert sum(len(page.identities) for page in identities) == COUNT
    assert sorted(one.target_id for page in audit for one in page.audit_events) == sorted(key_ids)
    for found in (keys, identities, audit):
        assert len(found) == 2
        assert ANSWER_MAX * 0.9 < sizes(found)[0] <= ANSWER_MAX


async def test_a_filtered_list_of_large_keys_loses_nothing_where_it_is_cut(owner: Client) -> None:
    key_ids = await import_large(owner, COUNT)
    request = key_service_pb2.ListKeysRequest(page_size=COUNT, statuses=[key_pb2.KEY_STATUS_ACTIVE])

    found = await pages(owner.keys.ListKeys, request)

    assert sorted(key.key_id for page in found for key in page.keys) == sorted(key_ids)
    assert max(sizes(found)) <= ANSWER_MAX


async def test_an_import_of_which_every_item_breaks_many_rules_is_answered(owner: Client) -> None:
    wrong = key_pb2.Key(name="x" * 129, allow_ips=[f"{number:🔑<60}" for number in range(15)])
    item = key_service_pb2.ImportKeyItem(key=wrong, secret_sha256=b"1" * 32)
    request = key_service_pb2.ImportKeysRequest(items=[item] * COUNT, request_id="wrong")

    answer = await owner.keys.ImportKeys(request)
    again = await owner.keys.ImportKeys(request)

    assert [result.WhichOneof("result") for result in answer.results] == ["error"] * COUNT
    assert ANSWER_MAX / 3 < answer.ByteSize() <= ANSWER_MAX
    assert again == answer


@pytest.fixture
async def events(owner: Client) -> list[str]:
    """Report events that fill an answer, each a group of its own, and return their ids, oldest first."""
    event_ids = [f"event-{number}" for number in range(2_500)]
    for begin in range(0, len(event_ids), 500):
        # Roll-ups keep a thousand combinations of a key and day apart.
        key_id = (await owner.create_key()).key.key_id
        reported = []
        for event_id in event_ids[begin : begin + 500]:
            one = event(key_id, event_id)
            one.member, one.model, one.task = f"{event_id:🔑<128}", "🔑" * 128, "🔑" * 128
            one.metadata["numbers"] = [1] * 120
            reported.append(one)
        assert set(await report(owner, reported)) == {usage_service_pb2.USAGE_OUTCOME_NEW}
    return event_ids


async def test_large_usage_events_and_reports_are_cut_where_an_answer_is_full(owner: Client, events: list[str]) -> None:
    listed = await pages(owner.usage.ListUsageEvents, usage_service_pb2.ListUsageEventsRequest(page_size=COUNT))
    request = asking("MEMBER", "MODEL", "TASK", "KEY")
    request.page_size = 10_000
    reported = await pages(lambda asked: query(owner, asked), request)

    assert sorted(record.event.event_id for page in listed for record in page.events) == sorted(events)
    members = [row.group.member.rstrip("🔑") for page in reported for row in page.rows]
    assert sorted(members) == sorted(events)
    assert len(reported) > 1
    assert max(sizes([*listed, *reported])) <= ANSWER_MAX
