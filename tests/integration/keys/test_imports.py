"""Keys as they are made and changed: identities, credits and items of an import (spec §1, §3)."""

import hashlib
from typing import Any

import grpc
from google.protobuf.struct_pb2 import Struct

from latchkey.v1 import admin_service_pb2, api_pb2, key_pb2, key_service_pb2, management_key_pb2
from tests.integration.keys.test_keys import get, update
from tests.support.service import Client, Service

METADATA_TAG = key_pb2.Key(metadata=Struct()).SerializeToString()[:-1]


def item(number: int, external_id: str = "", api_id: str = "", prefix: str = "") -> key_service_pb2.ImportKeyItem:
    digest = hashlib.sha256(f"secret {number}".encode()).digest()
    key = key_pb2.Key(external_id=external_id, api_id=api_id, prefix=prefix)
    return key_service_pb2.ImportKeyItem(key=key, secret_sha256=digest)


async def test_keys_that_are_imported_together_share_the_identity_that_they_name(owner: Client) -> None:
    request = key_service_pb2.ImportKeysRequest(items=[item(number, external_id="acme") for number in range(3)])

    imported = await owner.keys.ImportKeys(request)

    identities = await owner.admin.ListIdentities(admin_service_pb2.ListIdentitiesRequest())
    keys = [await get(owner, result.key_id) for result in imported.results]
    assert len(keys) == 3
    assert {key.identity_id for key in keys} == {identity.identity_id for identity in identities.identities}


async def test_credits_of_a_key_that_had_none_begin_with_their_amount(owner: Client) -> None:
    key_id = (await owner.create_key()).key.key_id

    await update(owner, key_pb2.Key(key_id=key_id, credits=key_pb2.Credits(amount=7)))

    assert (await get(owner, key_id)).credit_balance.remaining == 7


async def test_a_replayed_import_tells_the_same_of_each_item(owner: Client, service: Service) -> None:
    api = (await owner.admin.CreateApi(admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="own")))).api
    default = (await owner.create_key()).key.api_id
    bound = await owner.create_management_key(management_key_pb2.ROLE_DEVELOPER, (api.api_id,))
    developer = await service.client(bound.secret)
    request = key_service_pb2.ImportKeysRequest(
        items=[
            item(1, api_id=api.api_id),
            item(2, api_id=default),
            item(3),
            item(1, api_id=api.api_id),
            item(4, api_id=api.api_id, prefix="-"),
        ],
        request_id="r1",
    )

    first = await developer.keys.ImportKeys(request)
    again = await developer.keys.ImportKeys(request)

    assert again == first
    assert [result.WhichOneof("result") for result in first.results] == ["key_id", *["error"] * 4]


async def test_an_import_is_the_same_whatever_order_its_client_writes_the_metadata_in(owner: Client) -> None:
    def entry(name: bytes) -> bytes:
        return b"\x0a\x07\x0a\x01" + name + b"\x12\x02\x20\x01"

    def request(*names: bytes) -> bytes:
        metadata = b"".join(map(entry, names))
        key = key_pb2.Key(name="imported").SerializeToString() + METADATA_TAG + bytes([len(metadata)]) + metadata
        digest = hashlib.sha256(b"a secret").digest()
        imported = b"\x0a" + bytes([len(key)]) + key + b"\x12\x20" + digest
        return b"\x0a" + bytes([len(imported)]) + imported + b"\x12\x02r1"

    call: Any = owner.channel.unary_unary(
        "/latchkey.v1.KeyService/ImportKeys",
        response_deserializer=key_service_pb2.ImportKeysResponse.FromString,
    )
    first, again = await call(request(b"a", b"b")), await call(request(b"b", b"a"))

    assert first.results[0].key_id
    assert again == first


async def test_an_item_that_is_too_large_is_refused_alone(owner: Client) -> None:
    large = item(1)
    large.key.name = "a" * 300_000

    imported = await owner.keys.ImportKeys(key_service_pb2.ImportKeysRequest(items=[item(2), large, item(3)]))

    assert [result.WhichOneof("result") for result in imported.results] == ["key_id", "error", "key_id"]
    assert imported.results[1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
