"""Every field of a key and of an event survives the database: made, changed, verified and listed."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from latchkey.v1 import key_pb2, key_service_pb2, usage_pb2, usage_service_pb2, verification_pb2
from latchkey_server.opening import utc_now
from tests.support.filling import IMMUTABLE, behaves, fill, inputs, names
from tests.support.service import Client

KEY = key_pb2.Key.DESCRIPTOR
CHANGING = [name for name in inputs(KEY) if not behaves(KEY.fields_by_name[name], IMMUTABLE)]
OF_THE_SERVER = {"api_id", "key_id"}


async def made(owner: Client, *fields: str) -> tuple[key_pb2.Key, str]:
    """Make a key with some fields set and return it as GetKey shows it, with its secret."""
    message = key_pb2.Key()
    for field in fields:
        fill(message, field)
    created = await owner.create_key(message)
    return await shown(owner, created.key.key_id), created.secret


async def shown(owner: Client, key_id: str) -> key_pb2.Key:
    return (await owner.keys.GetKey(key_service_pb2.GetKeyRequest(key_id=key_id))).key


async def test_every_field_of_a_key_is_stored_by_itself_and_with_all_others(owner: Client) -> None:
    whole, _ = await made(owner, *(name for name in inputs(KEY) if name not in OF_THE_SERVER))
    for field in inputs(KEY):
        if field in OF_THE_SERVER:
            continue
        sent = key_pb2.Key()
        fill(sent, field)
        key, _ = await made(owner, field)
        assert getattr(key, field) == getattr(sent, field), (
            f"Key.{field} is not stored: storage/keys/columns.py, KEY_COLUMNS or key_of"
        )
        assert getattr(whole, field) == getattr(sent, field), f"Key.{field} gives way to another field"


@pytest.mark.parametrize("named", [True, False], ids=["by its mask", "by what is present"])
async def test_every_field_of_a_key_is_changed_by_itself_and_no_other_with_it(owner: Client, named: bool) -> None:
    before, _ = await made(owner, *CHANGING)
    for field in CHANGING:
        change = key_pb2.Key(key_id=before.key_id)
        fill(change, field, second=True)
        mask = FieldMask(paths=[field] if named else [])
        await owner.keys.UpdateKey(key_service_pb2.UpdateKeyRequest(key=change, update_mask=mask))
        after = await shown(owner, before.key_id)

        altered = {name for name in CHANGING if getattr(after, name) != getattr(before, name)}
        assert getattr(after, field) == getattr(change, field), (
            f"Key.{field} is not changed: transport/convert/key.py, or storage/keys/columns.py, an update's columns"
        )
        assert altered == {field}, f"Key.{field} takes others along"
        before = after


async def test_every_field_of_a_key_is_verified_as_it_is_shown(owner: Client) -> None:
    key, secret = await made(owner, *(name for name in inputs(KEY) if name not in OF_THE_SERVER))
    verified = [(await owner.verify(secret)).key for _ in range(3)]

    for field in sorted(set(names(verification_pb2.VerifiedKey.DESCRIPTOR)) & set(names(KEY))):
        for answer in verified:
            assert getattr(answer, field) == getattr(key, field), (
                f"VerifiedKey.{field} is not what the key has: storage/verify/records.py or transport/verify/writer.py"
            )
    assert verified[0].identity.external_id == key.external_id


async def test_every_field_of_an_event_is_stored(owner: Client) -> None:
    key, _ = await made(owner)
    sent: Any = usage_pb2.UsageEvent()
    for field in inputs(sent.DESCRIPTOR):
        fill(sent, field)
    sent.key_id = key.key_id
    sent.occurred_time.FromDatetime(utc_now())
    reported = await owner.usage.ReportUsage(usage_service_pb2.ReportUsageRequest(events=[sent]))
    assert [result.outcome for result in reported.results] == [usage_service_pb2.USAGE_OUTCOME_NEW]

    [record] = (await owner.usage.ListUsageEvents(usage_service_pb2.ListUsageEventsRequest())).events

    for field in names(sent.DESCRIPTOR):
        assert getattr(record.event, field) == getattr(sent, field), (
            f"UsageEvent.{field} is not stored: storage/usage/repository.py, _record, or storage/usage/events.py"
        )
