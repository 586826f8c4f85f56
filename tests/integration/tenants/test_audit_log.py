"""Every mutation leaves one audit event, in its own transaction; nothing else leaves any (spec §6)."""

import hashlib
from collections.abc import AsyncIterator

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from latchkey.v1 import admin_service_pb2 as admin_pb
from latchkey.v1 import api_pb2, audit_pb2, identity_pb2, key_pb2, management_key_pb2, workspace_pb2
from latchkey.v1 import key_service_pb2 as keys_pb
from tests.integration.keys.test_keys import at
from tests.support.clock import TICK, Hands, instant, owner_by
from tests.support.matrix_calls import Answer, call
from tests.support.matrix_world import own_workspace, random_id
from tests.support.service import Client

NOW = instant("2026-05-30T12:34:56.789012")
OTHER = key_pb2.REVOKE_REASON_OTHER


async def events(owner: Client, asked: admin_pb.ListAuditEventsRequest | None = None) -> list[audit_pb2.AuditEvent]:
    """Return the audit events of a workspace that a request selects, newest first."""
    request = asked or admin_pb.ListAuditEventsRequest(page_size=1_000)
    return list((await owner.admin.ListAuditEvents(request)).audit_events)


async def sent(owner: Client, request: Message) -> Message:
    """Send a request that succeeds and return its answer."""
    answer: Answer = await call(owner.channel, request)
    assert answer.response is not None, answer.outcome
    return answer.response


async def _every_mutation(owner: Client) -> AsyncIterator[tuple[str, str]]:
    """Make every kind of change in a workspace; yield what was done to what."""
    api = (await owner.admin.CreateApi(admin_pb.CreateApiRequest(api=api_pb2.Api(name="made")))).api
    yield "api.create", api.api_id
    await sent(owner, admin_pb.UpdateApiRequest(api=api_pb2.Api(api_id=api.api_id, name="renamed")))
    yield "api.update", api.api_id
    await sent(owner, admin_pb.DeleteApiRequest(api_id=api.api_id))
    yield "api.delete", api.api_id
    wanted = admin_pb.UpdateIdentityRequest(identity=identity_pb2.Identity(external_id="acme"), allow_missing=True)
    identity_id = (await owner.admin.UpdateIdentity(wanted)).identity.identity_id
    yield "identity.create", identity_id
    await sent(owner, admin_pb.UpdateIdentityRequest(identity=identity_pb2.Identity(identity_id=identity_id)))
    yield "identity.update", identity_id
    await sent(owner, admin_pb.DeleteIdentityRequest(identity_id=identity_id))
    yield "identity.delete", identity_id
    credits = key_pb2.Credits(amount=5)
    key = (await owner.create_key(key_pb2.Key(name="first", credits=credits, external_id="made with the key"))).key
    yield "identity.create", key.identity_id
    yield "key.create", key.key_id
    await sent(owner, keys_pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key.key_id, name="second")))
    yield "key.update", key.key_id
    await sent(owner, keys_pb.AdjustCreditsRequest(key_id=key.key_id, add=2))
    yield "key.adjust_credits", key.key_id
    await sent(owner, keys_pb.RotateKeyRequest(key_id=key.key_id))
    yield "key.rotate", key.key_id
    await sent(owner, keys_pb.DeleteKeyRequest(key_id=key.key_id))
    yield "key.delete", key.key_id
    await sent(owner, keys_pb.UndeleteKeyRequest(key_id=key.key_id))
    yield "key.undelete", key.key_id
    await sent(owner, keys_pb.RevokeKeyRequest(key_id=key.key_id, reason=OTHER, note="n"))
    yield "key.revoke", key.key_id
    items = [keys_pb.ImportKeyItem(secret_sha256=hashlib.sha256(bytes([number])).digest()) for number in (1, 2)]
    imported = await owner.keys.ImportKeys(keys_pb.ImportKeysRequest(items=items))
    for result in imported.results:
        yield "key.import", result.key_id
    made = (await owner.create_management_key(management_key_pb2.ROLE_VIEWER)).management_key
    named = management_key_pb2.ManagementKey(management_key_id=made.management_key_id, name="renamed")
    yield "management_key.create", made.management_key_id
    await sent(owner, admin_pb.UpdateManagementKeyRequest(management_key=named))
    yield "management_key.update", made.management_key_id
    await sent(owner, admin_pb.RotateManagementKeyRequest(management_key_id=made.management_key_id))
    yield "management_key.rotate", made.management_key_id
    await sent(owner, admin_pb.RevokeManagementKeyRequest(management_key_id=made.management_key_id, reason=OTHER))
    yield "management_key.revoke", made.management_key_id
    own = await own_workspace(owner)
    named_workspace = workspace_pb2.Workspace(workspace_id=own.workspace_id, name="renamed")
    await sent(owner, admin_pb.UpdateWorkspaceRequest(workspace=named_workspace))
    yield "workspace.update", own.workspace_id


async def test_every_mutation_leaves_its_audit_event_and_each_begins_where_the_last_one_ended(owner: Client) -> None:
    before = await events(owner)
    done = [each async for each in _every_mutation(owner)]

    told = (await events(owner))[: -len(before)][::-1]

    assert [(event.action, event.target_id) for event in told] == done
    last: dict[str, Struct] = {}
    for event in told:
        verb = event.action.partition(".")[2]
        if event.action != "key.adjust_credits":
            assert event.HasField("before") == (verb not in ("create", "import")), event.action
            assert event.HasField("after") == (event.action not in ("api.delete", "identity.delete")), event.action
            if event.HasField("before") and event.target_id in last:
                assert event.before == last[event.target_id], event.action
            last[event.target_id] = event.after
    assert {event.actor_id for event in told} == {before[0].target_id}
    assert {event.workspace_id for event in told} == {before[0].workspace_id}


async def test_the_audit_of_an_adjustment_holds_the_balance_and_that_of_an_update_what_changed(owner: Client) -> None:
    key = (await owner.create_key(key_pb2.Key(name="old", credits=key_pb2.Credits(amount=5)))).key
    await sent(owner, keys_pb.AdjustCreditsRequest(key_id=key.key_id, add=-2))
    await sent(owner, keys_pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key.key_id, name="new", environment="prod")))

    updated, adjusted, _ = await events(owner, admin_pb.ListAuditEventsRequest(target_id=key.key_id))

    assert (dict(adjusted.before.items()), dict(adjusted.after.items())) == ({"remaining": 5}, {"remaining": 3})
    changed = {
        name for name, value in updated.after.items() if updated.before.fields[name] != updated.after.fields[name]
    }
    assert changed == {"name", "environment", "update_time", "revision"}
    assert (updated.before["name"], updated.after["name"]) == ("old", "new")
    assert (updated.before["environment"], updated.after["environment"]) == ("", "prod")


async def test_what_changes_nothing_leaves_no_audit_event_and_moves_no_revision(owner: Client) -> None:
    request = keys_pb.CreateKeyRequest(key=key_pb2.Key(name="once"), request_id="once")
    made = await owner.keys.CreateKey(request)
    revoke = keys_pb.RevokeKeyRequest(key_id=made.key.key_id, reason=OTHER)
    revoked = await owner.keys.RevokeKey(revoke)
    before = await events(owner)

    replayed = await owner.keys.CreateKey(request)
    again = await owner.keys.RevokeKey(
        keys_pb.RevokeKeyRequest(key_id=made.key.key_id, reason=key_pb2.REVOKE_REASON_COMPROMISED, note="other")
    )
    refused = [
        await call(owner.channel, asked)
        for asked in (
            keys_pb.RotateKeyRequest(key_id=made.key.key_id),
            keys_pb.UpdateKeyRequest(key=key_pb2.Key(key_id=made.key.key_id, name="n"), etag="old"),
            keys_pb.DeleteKeyRequest(key_id=random_id("key")),
            keys_pb.UndeleteKeyRequest(key_id=made.key.key_id),
            keys_pb.CreateKeyRequest(key=key_pb2.Key(name="twice"), request_id="once"),
        )
    ]
    none = await owner.keys.ImportKeys(keys_pb.ImportKeysRequest(items=[keys_pb.ImportKeyItem(secret_sha256=b"short")]))
    await owner.verify(made.secret)

    assert [answer.outcome for answer in refused] == [
        *("KEY_REVOKED", "ETAG_MISMATCH", "KEY_NOT_FOUND", "KEY_NOT_DELETED", "REQUEST_ID_REUSED")
    ]
    assert again == revoked
    assert (replayed.revision, none.revision) == (made.revision, revoked.revision)
    assert await events(owner) == before


async def test_the_member_of_an_audit_event_is_the_one_that_the_actor_had_then(owner: Client) -> None:
    (owners_key,) = (await owner.admin.ListManagementKeys(admin_pb.ListManagementKeysRequest())).management_keys
    for member in ("ann", "bob"):
        named = management_key_pb2.ManagementKey(management_key_id=owners_key.management_key_id, member=member)
        await owner.admin.UpdateManagementKey(admin_pb.UpdateManagementKeyRequest(management_key=named))
        await owner.create_key()

    made = await events(owner, admin_pb.ListAuditEventsRequest(action="key.create"))

    assert [(event.actor_id, event.actor_member) for event in made] == [
        (owners_key.management_key_id, "bob"),
        (owners_key.management_key_id, "ann"),
    ]
    assert all(event.peer.startswith("ipv4:127.0.0.1:") for event in made)


async def test_audit_events_are_those_that_hold_by_every_filter_newest_first(dsn: str) -> None:
    clock = Hands(NOW)
    async with owner_by(dsn, clock) as owner:
        keys = []
        for _ in range(3):
            clock.now += TICK
            keys.append((await owner.create_key()).key.key_id)
            await sent(owner, keys_pb.UpdateKeyRequest(key=key_pb2.Key(key_id=keys[-1], name="renamed")))
        everything = await events(owner)

        ask = admin_pb.ListAuditEventsRequest
        of_one = await events(owner, ask(target_id=keys[1]))
        made = await events(owner, ask(action="key.create"))
        between = await events(owner, ask(start_time=at(NOW + TICK), end_time=at(NOW + 3 * TICK)))
        then = at(NOW + 2 * TICK)
        both = await events(owner, ask(target_id=keys[1], action="key.create", start_time=then))
        neither = await events(owner, ask(target_id=keys[1], action="key.create", end_time=then))
        of_nobody = await events(owner, ask(actor_id=random_id("mk")))
        of_the_owner = await events(owner, ask(actor_id=everything[0].actor_id))

    last, second, first = everything[:2], everything[2:4], everything[4:6]
    assert [event.event_time for event in everything[:6]] == [at(NOW + tick * TICK) for tick in (3, 3, 2, 2, 1, 1)]
    assert of_one == second
    assert made == [last[1], second[1], first[1]]
    assert between == [*second, *first]
    assert (both, neither, of_nobody) == ([second[1]], [], [])
    assert of_the_owner == everything[:6]
