"""Which events a change is told by, and which revision it makes (spec §1, §4)."""

import hashlib
import itertools
from collections.abc import AsyncIterator

from latchkey.v1 import admin_service_pb2 as admin_pb
from latchkey.v1 import (
    api_pb2,
    identity_pb2,
    key_pb2,
    management_key_pb2,
    revision_pb2,
    verify_service_pb2,
    workspace_pb2,
)
from latchkey.v1 import key_service_pb2 as keys_pb
from tests.integration.verify.test_watch_keys import watching_keys
from tests.support.matrix_world import own_workspace
from tests.support.service import Client

KEY = verify_service_pb2.WATCH_CHANGE_KIND_KEY_CHANGED
SECRET = verify_service_pb2.WATCH_CHANGE_KIND_SECRET_ADDED
IDENTITY = verify_service_pb2.WATCH_CHANGE_KIND_IDENTITY_CHANGED
API = verify_service_pb2.WATCH_CHANGE_KIND_API_CHANGED
WORKSPACE = verify_service_pb2.WATCH_CHANGE_KIND_WORKSPACE_CHANGED
OTHER = key_pb2.REVOKE_REASON_OTHER

Told = tuple[int, str]


async def _changes(owner: Client) -> AsyncIterator[tuple[str, revision_pb2.Revision, list[Told]]]:
    """Make every change that may alter an answer; yield its name, its revision and the events that tell of it."""
    made = await owner.create_key(key_pb2.Key(credits=key_pb2.Credits(amount=5)))
    key_id = made.key.key_id
    yield "CreateKey", made.revision, [(SECRET, key_id)]
    updated = await owner.keys.UpdateKey(keys_pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key_id, name="n")))
    yield "UpdateKey", updated.revision, [(KEY, key_id)]
    with_identity = keys_pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key_id, external_id="acme"))
    given = await owner.keys.UpdateKey(with_identity)
    yield "UpdateKey", given.revision, [(IDENTITY, given.key.identity_id), (KEY, key_id)]
    rotated = await owner.keys.RotateKey(keys_pb.RotateKeyRequest(key_id=key_id))
    yield "RotateKey", rotated.revision, [(KEY, key_id), (SECRET, key_id)]
    deleted = await owner.keys.DeleteKey(keys_pb.DeleteKeyRequest(key_id=key_id))
    yield "DeleteKey", deleted.revision, [(KEY, key_id)]
    undeleted = await owner.keys.UndeleteKey(keys_pb.UndeleteKeyRequest(key_id=key_id))
    yield "UndeleteKey", undeleted.revision, [(KEY, key_id), (SECRET, key_id)]
    await owner.keys.AdjustCredits(keys_pb.AdjustCreditsRequest(key_id=key_id, add=1))
    revoked = await owner.keys.RevokeKey(keys_pb.RevokeKeyRequest(key_id=key_id, reason=OTHER))
    yield "RevokeKey", revoked.revision, [(KEY, key_id)]
    items = [keys_pb.ImportKeyItem(secret_sha256=hashlib.sha256(bytes([number])).digest()) for number in (1, 2)]
    imported = await owner.keys.ImportKeys(keys_pb.ImportKeysRequest(items=items))
    yield "ImportKeys", imported.revision, [(SECRET, result.key_id) for result in imported.results]
    wanted = identity_pb2.Identity(external_id="beta")
    identity = await owner.admin.UpdateIdentity(admin_pb.UpdateIdentityRequest(identity=wanted, allow_missing=True))
    identity_id = identity.identity.identity_id
    yield "UpdateIdentity", identity.revision, [(IDENTITY, identity_id)]
    gone = await owner.admin.DeleteIdentity(admin_pb.DeleteIdentityRequest(identity_id=identity_id))
    yield "DeleteIdentity", gone.revision, [(IDENTITY, identity_id)]
    api = await owner.admin.CreateApi(admin_pb.CreateApiRequest(api=api_pb2.Api(name="a")))
    api_id = api.api.api_id
    yield "CreateApi", api.revision, [(API, api_id)]
    renamed = await owner.admin.UpdateApi(admin_pb.UpdateApiRequest(api=api_pb2.Api(api_id=api_id, name="b")))
    yield "UpdateApi", renamed.revision, [(API, api_id)]
    removed = await owner.admin.DeleteApi(admin_pb.DeleteApiRequest(api_id=api_id))
    yield "DeleteApi", removed.revision, [(API, api_id)]
    own = await own_workspace(owner)
    settings = workspace_pb2.WorkspaceSettings(default_prefix="lk")
    set_up = workspace_pb2.Workspace(workspace_id=own.workspace_id, settings=settings)
    changed = await owner.admin.UpdateWorkspace(admin_pb.UpdateWorkspaceRequest(workspace=set_up))
    yield "UpdateWorkspace", changed.revision, [(WORKSPACE, own.workspace_id)]
    credential = await owner.create_management_key(management_key_pb2.ROLE_VIEWER)
    yield "CreateManagementKey", credential.revision, []
    last = await owner.create_key()
    yield "CreateKey", last.revision, [(SECRET, last.key.key_id)]


async def test_each_change_is_told_by_its_events_and_makes_the_next_revisions(owner: Client) -> None:
    async with watching_keys(owner) as watch:
        await watch.until_echo(b"begun")
        done = [each async for each in _changes(owner)]
        expected = [event for _, _, events in done for event in events]
        changes = [await watch.change() for _ in expected]

    assert [(change.kind, change.target_id) for change in changes] == expected
    numbers = [revision.number for _, revision, _ in done]
    steps = [len(events) or 1 for _, _, events in done]
    assert [after - before for before, after in itertools.pairwise(numbers)] == steps[1:]
    told = {(change.kind, change.target_id, change.revision.number) for change in changes}
    for name, revision, events in done:
        if events:
            assert (*events[-1], revision.number) in told, name
    assert {change.revision.workspace_id for change in changes} == {done[0][1].workspace_id}
