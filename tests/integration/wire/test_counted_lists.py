"""Lists are counted before they are read."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from latchkey.v1 import (
    admin_service_pb2,
    environment_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    ratelimit_pb2,
    usage_pb2,
    usage_service_pb2,
)
from tests.support.matrix_calls import call
from tests.support.matrix_world import today
from tests.support.service import Client

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


MANY = 10_000
"""Entries: more than any list may have, fewer than a request has room for."""


JUNK = ["junk\0"] * MANY


def asking() -> usage_service_pb2.QueryUsageRequest:
    start, end = today()
    return usage_service_pb2.QueryUsageRequest(start_time=start, end_time=end)


def filtered(name: str) -> Message:
    request = asking()
    getattr(request.filter, name).extend(JUNK)
    return request


def creating(key: key_pb2.Key) -> Message:
    return key_service_pb2.CreateKeyRequest(key=key)


def too_long() -> dict[str, Message]:
    """Return a request of each list, by the name under which too many entries are refused."""
    grouped = asking()
    grouped.group_by.extend([usage_pb2.UsageDimension.ValueType(99)] * MANY)
    labels = environment_pb2.EnvironmentFilter(labels=JUNK)
    wrong_window = ratelimit_pb2.RateLimit(window=Duration(nanos=-1))
    bound = management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_VIEWER, api_ids=JUNK)
    return {
        "statuses": key_service_pb2.ListKeysRequest(statuses=[key_pb2.KeyStatus.ValueType(99)] * MANY),
        "environments.labels": key_service_pb2.ListKeysRequest(environments=labels),
        "event_types": usage_service_pb2.ListUsageEventsRequest(event_types=[usage_pb2.UsageType.ValueType(99)] * MANY),
        "group_by": grouped,
        **{
            f"filter.{name}": filtered(name)
            for name in ("models", "members", "tasks", "external_ids", "key_ids", "api_ids")
        },
        "key.allow_ips": creating(key_pb2.Key(allow_ips=JUNK)),
        "key.scopes": creating(key_pb2.Key(scopes=JUNK)),
        "key.model_limits.models": creating(key_pb2.Key(model_limits=key_pb2.ModelLimits(models=JUNK))),
        "key.ratelimits": creating(key_pb2.Key(ratelimits=[wrong_window] * MANY)),
        "management_key.api_ids": admin_service_pb2.CreateManagementKeyRequest(management_key=bound),
        "update_mask": admin_service_pb2.UpdateWorkspaceRequest(update_mask=FieldMask(paths=JUNK)),
    }


@pytest.mark.parametrize("field", sorted(too_long()))
async def test_a_list_is_counted_before_it_is_read(owner: Client, field: str) -> None:
    refused = (await call(owner.channel, too_long()[field])).refusal

    assert refused is not None
    assert (refused.code, refused.reason, refused.fields) == (*INVALID, [field])


@pytest.mark.parametrize(
    ("reader", "request_", "field"),
    [
        (
            "grpc.key_servicer.read_draft",
            key_service_pb2.ImportKeysRequest(items=[key_service_pb2.ImportKeyItem()] * 1_001),
            "items",
        ),
        (
            "grpc.usage_servicer.read_event",
            usage_service_pb2.ReportUsageRequest(events=[usage_pb2.UsageEvent()] * 1_001),
            "events",
        ),
    ],
)
async def test_items_are_counted_before_they_are_read(
    owner: Client, monkeypatch: pytest.MonkeyPatch, reader: str, request_: Message, field: str
) -> None:
    read: list[object] = []
    monkeypatch.setattr(f"latchkey_server.transport.{reader}", read.append)

    refused = (await call(owner.channel, request_)).refusal

    assert refused is not None
    assert (refused.code, refused.reason, refused.fields, read) == (*INVALID, [field], [])
