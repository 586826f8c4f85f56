"""Keys made at the same moment, on one server and on several (spec §3)."""

import asyncio
import hashlib

from pydantic import SecretStr

from latchkey.v1 import (
    key_service_pb2,
)
from tests.support.service import PEPPERS, Client, serving, settings_for


async def test_keys_made_at_once_are_listed_in_the_order_of_their_making(owner: Client) -> None:
    items = [key_service_pb2.ImportKeyItem(secret_sha256=bytes([number]) * 32) for number in range(100)]
    made = (await owner.keys.ImportKeys(key_service_pb2.ImportKeysRequest(items=items))).results

    listed = (await owner.keys.ListKeys(key_service_pb2.ListKeysRequest(page_size=100))).keys

    assert [key.key_id for key in listed] == [result.key_id for result in reversed(made)]


ROUNDS, ITEMS = 6, 200


async def test_two_servers_that_change_peppers_import_no_secret_twice(dsn: str) -> None:
    old, new = PEPPERS, "next:YW5vdGhlciB0ZXN0IHBlcHBlciwgbm90IHNlY3JldA=="
    settings = [
        settings_for(dsn).model_copy(update={"peppers": SecretStr(peppers)})
        for peppers in (f"{old},{new}", f"{new},{old}")
    ]
    async with serving(dsn, settings=settings[0]) as first, serving(dsn, settings=settings[1]) as second:
        second.root_secret = first.root_secret
        owners = [await first.workspace(), await second.workspace()]
        for round_ in range(ROUNDS):
            digests = [hashlib.sha256(bytes([round_, number])).digest() for number in range(ITEMS)]
            items = [key_service_pb2.ImportKeyItem(secret_sha256=digest) for digest in digests]
            forwards = key_service_pb2.ImportKeysRequest(items=items)
            backwards = key_service_pb2.ImportKeysRequest(items=items[::-1])

            one, other = await asyncio.gather(owners[0].keys.ImportKeys(forwards), owners[1].keys.ImportKeys(backwards))

            made = [
                [mine.HasField("error"), theirs.HasField("error")]
                for mine, theirs in zip(one.results, other.results[::-1], strict=True)
            ]
            assert all(sorted(pair) == [False, True] for pair in made)
