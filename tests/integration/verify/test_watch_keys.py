"""WatchKeys: changes in order, nonces behind them, and an end with the credential (spec §4)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from latchkey.v1 import (
    admin_service_pb2,
    api_pb2,
    identity_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    verify_service_pb2,
    workspace_pb2,
)
from latchkey_server.domain.verify import watching
from tests.support.service import Client, Rejection, Service, serving

Call = grpc.aio.StreamStreamCall[verify_service_pb2.WatchKeysRequest, verify_service_pb2.WatchKeysResponse]
KEY_CHANGED = verify_service_pb2.WATCH_CHANGE_KIND_KEY_CHANGED
SECRET_ADDED = verify_service_pb2.WATCH_CHANGE_KIND_SECRET_ADDED
RESET = verify_service_pb2.WATCH_CHANGE_KIND_RESET
DEADLINE = 30


@dataclass
class Watching:
    """A watch as a client holds it."""

    call: Call
    cursor: str = ""

    async def send(self, nonce: bytes = b"", cursor: str = "") -> None:
        await self.call.write(verify_service_pb2.WatchKeysRequest(nonce=nonce, resume_cursor=cursor))

    async def event(self) -> verify_service_pb2.WatchKeysResponse:
        async with asyncio.timeout(DEADLINE):
            event = await self.call.read()
        assert isinstance(event, verify_service_pb2.WatchKeysResponse), "the stream has ended"
        self.cursor = event.cursor
        return event

    async def until_echo(self, nonce: bytes) -> list[verify_service_pb2.WatchChange]:
        """Send a nonce and return the changes that came before its echo."""
        await self.send(nonce)
        changes = []
        while True:
            event = await self.event()
            if event.WhichOneof("event") == "change":
                changes.append(event.change)
            elif event.echo.nonce == nonce:
                return changes

    async def change(self) -> verify_service_pb2.WatchChange:
        """Return the next change."""
        while (event := await self.event()).WhichOneof("event") != "change":
            pass
        return event.change

    async def end(self) -> Rejection:
        """Return how the server ended the stream."""
        try:
            async with asyncio.timeout(DEADLINE):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
        except grpc.aio.AioRpcError as error:
            return Rejection(error)
        raise AssertionError("the stream ended well")


@asynccontextmanager
async def watching_keys(client: Client, cursor: str = "") -> AsyncIterator[Watching]:
    """Watch with a first nonce answered."""
    stub = client.verifier
    call: Any = stub.WatchKeys(metadata=(("authorization", f"Bearer {client.secret}"),))
    watch = Watching(call)
    await watch.send(b"first", cursor)
    yield watch
    call.cancel()


async def test_changes_come_in_order_and_before_the_echo_of_a_later_nonce(owner: Client, service: Service) -> None:
    watcher = await service.client(owner.secret)
    async with watching_keys(watcher) as watch:
        await watch.until_echo(b"begun")
        made = await owner.create_key()
        revoked = await owner.keys.RevokeKey(
            key_service_pb2.RevokeKeyRequest(key_id=made.key.key_id, reason=key_pb2.REVOKE_REASON_OTHER)
        )
        changes = [await watch.change()]
        while changes[-1].revision.number < revoked.revision.number:
            changes.append(await watch.change())
        later = await watch.until_echo(b"later")

    assert [change.revision.number for change in changes] == sorted(change.revision.number for change in changes)
    assert changes[0].kind == SECRET_ADDED
    assert (changes[-1].kind, changes[-1].target_id) == (KEY_CHANGED, made.key.key_id)
    assert later == []


async def test_an_echo_tells_how_old_the_last_confirmation_is(owner: Client) -> None:
    async with watching_keys(owner) as watch:
        await watch.send(b"n" * 64)
        echoes = [await watch.event(), await watch.event()]

    assert [event.echo.nonce for event in echoes] == [b"first", b"n" * 64]
    assert all(0 <= event.echo.confirmed_age.ToTimedelta().total_seconds() < 60 for event in echoes)


@pytest.mark.parametrize("missed", [0, 1, 3])
async def test_a_cursor_continues_behind_the_last_event_seen(owner: Client, missed: int) -> None:
    async with watching_keys(owner) as watch:
        await watch.until_echo(b"seen")
        cursor = watch.cursor
    made = [await owner.create_key() for _ in range(missed)]

    async with watching_keys(owner, cursor) as watch:
        changes = await watch.until_echo(b"again")

    assert [change.target_id for change in changes if change.kind == SECRET_ADDED] == [key.key.key_id for key in made]
    assert RESET not in {change.kind for change in changes}


@pytest.mark.parametrize("cursor", ["junk", "..", "00000001.ws_x.1", "a.b.99999999999999999999", "é"])
async def test_an_unknown_cursor_is_answered_with_a_reset(owner: Client, cursor: str) -> None:
    async with watching_keys(owner, cursor) as watch:
        first = await watch.event()

    assert (first.change.kind, first.change.target_id) == (RESET, "")


async def test_a_cursor_of_another_server_continues(dsn: str) -> None:
    async with serving(dsn) as one, serving(dsn) as other:
        here = await one.client(one.root_secret)
        there = await other.client(one.root_secret)
        async with watching_keys(here) as watch:
            await watch.until_echo(b"seen")
            cursor = watch.cursor
        made = await here.create_key()
        async with watching_keys(there, cursor) as watch:
            changes = await watch.until_echo(b"again")

    assert made.key.key_id in {change.target_id for change in changes}


async def test_nothing_of_another_workspace_is_told(owner: Client, service: Service) -> None:
    stranger = await service.workspace("stranger")
    async with watching_keys(owner) as watch:
        await watch.until_echo(b"begun")
        await stranger.create_key()
        mine = await owner.create_key()
        changes = [await watch.change()]
        while changes[-1].target_id != mine.key.key_id:
            changes.append(await watch.change())

    assert {change.revision.workspace_id for change in changes} == {mine.revision.workspace_id}


async def test_a_gateway_of_all_workspaces_learns_of_each_of_them(root: Client, service: Service) -> None:
    wanted = management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_VERIFIER, all_workspaces=True)
    made = await root.admin.CreateManagementKey(admin_service_pb2.CreateManagementKeyRequest(management_key=wanted))
    gateway = await service.client(made.secret)
    known = await service.workspace("known")
    async with watching_keys(gateway) as watch:
        await watch.until_echo(b"begun")
        fresh = await service.workspace("fresh")
        keys = {(await tenant.create_key()).key.key_id for tenant in (known, fresh)}
        seen: set[str] = set()
        while not keys <= seen:
            seen.add((await watch.change()).target_id)


async def test_a_watcher_bound_to_an_api_learns_nothing_of_keys_of_others(owner: Client, service: Service) -> None:
    api = (await owner.admin.CreateApi(admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="mine")))).api
    made = await owner.create_management_key(management_key_pb2.ROLE_VERIFIER, (api.api_id,))
    bound = await service.client(made.secret)
    async with watching_keys(bound) as watch:
        await watch.until_echo(b"begun")
        foreign = await owner.create_key()
        mine = await owner.create_key(key_pb2.Key(api_id=api.api_id))
        changes = [await watch.change()]
        while changes[-1].target_id != mine.key.key_id:
            changes.append(await watch.change())

    assert foreign.key.key_id not in {change.target_id for change in changes}


async def test_identities_apis_and_the_workspace_are_told_by_their_kind(owner: Client) -> None:
    async with watching_keys(owner) as watch:
        await watch.until_echo(b"begun")
        identity = identity_pb2.Identity(external_id="customer")
        await owner.admin.UpdateIdentity(admin_service_pb2.UpdateIdentityRequest(identity=identity, allow_missing=True))
        await owner.admin.CreateApi(admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="more")))
        workspace = (await owner.admin.GetWorkspace(admin_service_pb2.GetWorkspaceRequest())).workspace
        await owner.admin.UpdateWorkspace(
            admin_service_pb2.UpdateWorkspaceRequest(
                workspace=workspace_pb2.Workspace(workspace_id=workspace.workspace_id, name="renamed"),
                update_mask=FieldMask(paths=["name"]),
            )
        )
        changes = [await watch.change() for _ in range(3)]

    assert [change.target_id.partition("_")[0] for change in changes] == ["idn", "api", "ws"]


@pytest.mark.parametrize("how", ["revoked", "demoted"])
async def test_a_watch_ends_with_its_credential(owner: Client, service: Service, how: str) -> None:
    made = await owner.create_management_key(management_key_pb2.ROLE_VERIFIER)
    watcher = await service.client(made.secret)
    key_id = made.management_key.management_key_id
    async with watching_keys(watcher) as watch:
        await watch.until_echo(b"begun")
        if how == "revoked":
            await owner.admin.RevokeManagementKey(
                admin_service_pb2.RevokeManagementKeyRequest(
                    management_key_id=key_id, reason=key_pb2.REVOKE_REASON_OTHER
                )
            )
        else:
            demoted = management_key_pb2.ManagementKey(management_key_id=key_id, role=management_key_pb2.ROLE_VIEWER)
            await owner.admin.UpdateManagementKey(
                admin_service_pb2.UpdateManagementKeyRequest(
                    management_key=demoted, update_mask=FieldMask(paths=["role"])
                )
            )
        ended = await watch.end()

    assert (ended.code, ended.reason) == {
        "revoked": (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID"),
        "demoted": (grpc.StatusCode.PERMISSION_DENIED, "ROLE_TOO_LOW"),
    }[how]


async def test_a_consumer_that_falls_behind_is_told_to_reset(owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "BACKLOG_MAX", 3)
    async with watching_keys(owner) as watch:
        await watch.until_echo(b"begun")
        items = [key_service_pb2.ImportKeyItem(secret_sha256=bytes([number]) * 32) for number in range(50)]
        await owner.keys.ImportKeys(key_service_pb2.ImportKeysRequest(items=items))
        kinds = [(await watch.change()).kind]
        while kinds[-1] != RESET:
            kinds.append((await watch.change()).kind)


async def test_a_nonce_that_is_too_long_ends_the_watch(owner: Client) -> None:
    async with watching_keys(owner) as watch:
        await watch.send(b"n" * 65)
        ended = await watch.end()

    assert (ended.code, ended.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["nonce"])


async def test_a_stop_ends_watches_and_streams_instead_of_waiting_for_them(dsn: str) -> None:
    async with AsyncExitStack() as clients:
        async with serving(dsn) as service:
            channel = await clients.enter_async_context(grpc.aio.insecure_channel(service.address))
            made = await (await service.client(service.root_secret)).create_key()
            credential = (("authorization", f"Bearer {service.root_secret}"),)
            client = Client(channel, service.root_secret)
            watch = await clients.enter_async_context(watching_keys(client))
            await watch.until_echo(b"begun")
            stream: Any = client.verifier.VerifyStream(metadata=credential)
            items = [verify_service_pb2.VerifyRequest(key=made.secret)]
            await stream.write(verify_service_pb2.VerifyStreamRequest(frame_id=1, items=items))
            answer = await stream.read()
        ends = [await watch.end(), await Watching(stream).end()]

    assert answer.results[0].verification.valid
    assert {(end.code, end.reason) for end in ends} == {(grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")}


async def test_a_replay_that_was_cut_short_is_continued_where_it_ended(owner: Client) -> None:
    async with watching_keys(owner) as watch:
        await watch.until_echo(b"seen")
        cursor = watch.cursor
    made = [(await owner.create_key()).key.key_id for _ in range(4)]

    async with watching_keys(owner, cursor) as watch:
        first = await watch.change()
        cursor = watch.cursor
    async with watching_keys(owner, cursor) as watch:
        rest = await watch.until_echo(b"again")

    assert [first.target_id, *(change.target_id for change in rest)] == made


async def test_a_watcher_that_is_bound_to_other_apis_begins_anew(owner: Client, service: Service) -> None:
    apis = [
        (await owner.admin.CreateApi(admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name=name)))).api.api_id
        for name in ("one", "other")
    ]
    made = await owner.create_management_key(management_key_pb2.ROLE_VERIFIER, tuple(apis))
    bound = await service.client(made.secret)
    async with watching_keys(bound) as watch:
        await watch.until_echo(b"begun")
        cursor = watch.cursor
        narrowed = management_key_pb2.ManagementKey(
            management_key_id=made.management_key.management_key_id, api_ids=apis[:1]
        )
        await owner.admin.UpdateManagementKey(
            admin_service_pb2.UpdateManagementKeyRequest(
                management_key=narrowed, update_mask=FieldMask(paths=["api_ids"])
            )
        )
        told = await watch.change()
    async with watching_keys(bound, cursor) as watch:
        resumed = await watch.change()

    assert (told.kind, resumed.kind) == (RESET, RESET)


async def test_what_can_not_be_read_ends_a_watch_as_the_clients_fault(owner: Client) -> None:
    raw: Any = owner.channel.stream_stream("/latchkey.v1.VerifyService/WatchKeys")
    call: Any = raw(metadata=(("authorization", f"Bearer {owner.secret}"),))
    await call.write(b"\xff\xff\xff")

    ended = await Watching(call).end()

    assert (ended.code, ended.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["request"])


async def test_a_watch_that_never_says_anything_is_ended_by_a_stop_too(dsn: str) -> None:
    async with AsyncExitStack() as clients:
        async with serving(dsn) as service:
            channel = await clients.enter_async_context(grpc.aio.insecure_channel(service.address))
            client = Client(channel, service.root_secret)
            call: Any = client.verifier.WatchKeys(metadata=(("authorization", f"Bearer {service.root_secret}"),))
            await call.wait_for_connection()
            await client.verifier.Verify(
                verify_service_pb2.VerifyRequest(key="sk_unknown"),
                metadata=(("authorization", f"Bearer {service.root_secret}"),),
            )
        ended = await Watching(call).end()

    assert (ended.code, ended.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")
