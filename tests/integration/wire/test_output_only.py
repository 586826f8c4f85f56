"""What a caller may not set is ignored where a resource is made, and refused where a mask names it (the protos)."""

from collections.abc import Awaitable, Callable
from typing import Any

from google.api import field_behavior_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from latchkey.v1 import admin_service_pb2 as admin_pb
from latchkey.v1 import api_pb2, identity_pb2, key_pb2, management_key_pb2, workspace_pb2
from latchkey.v1 import key_service_pb2 as keys_pb
from tests.integration.keys.test_keys import full_key
from tests.support.matrix_calls import call
from tests.support.matrix_world import make_api, make_identity, own_workspace
from tests.support.service import Client

OUTPUT_ONLY = field_behavior_pb2.OUTPUT_ONLY
IMMUTABLE = field_behavior_pb2.IMMUTABLE


def fields(message: type[Message], *behaviors: int) -> list[Any]:
    """Return the fields of a message that have one of these behaviours."""
    return [
        field
        for field in message.DESCRIPTOR.fields
        if set(behaviors) & set(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])
    ]


def forged(message: Message) -> Message:
    """Return a copy of a message in which every output-only field is set to something of the caller's making."""
    copy = type(message)()
    copy.CopyFrom(message)
    for field in fields(type(message), OUTPUT_ONLY):
        value = _some_value(field)
        if isinstance(value, list):
            getattr(copy, field.name).extend(value)
        elif isinstance(value, Message):
            getattr(copy, field.name).CopyFrom(value)
        else:
            setattr(copy, field.name, value)
    return copy


def _some_value(field: Any) -> Any:
    if field.message_type is not None:
        inner = GetMessageClass(field.message_type)()
        numbers = [each for each in field.message_type.fields if each.type in (each.TYPE_INT64, each.TYPE_INT32)]
        texts = [each for each in field.message_type.fields if each.type == each.TYPE_STRING]
        for each in numbers:
            setattr(inner, each.name, 1)
        for each in texts:
            setattr(inner, each.name, "forged")
        return [inner] if field.is_repeated else inner
    if field.type == field.TYPE_STRING:
        return "forged"
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    return field.type == field.TYPE_BOOL or 1


async def _make_key(client: Client, wanted: Any) -> Message:
    return (await client.keys.CreateKey(keys_pb.CreateKeyRequest(key=wanted))).key


async def _make_api(client: Client, wanted: Any) -> Message:
    return (await client.admin.CreateApi(admin_pb.CreateApiRequest(api=wanted))).api


async def _make_management_key(client: Client, wanted: Any) -> Message:
    request = admin_pb.CreateManagementKeyRequest(management_key=wanted)
    return (await client.admin.CreateManagementKey(request)).management_key


async def _make_workspace(client: Client, wanted: Any) -> Message:
    return (await client.admin.CreateWorkspace(admin_pb.CreateWorkspaceRequest(workspace=wanted))).workspace


Make = Callable[[Client, Any], Awaitable[Message]]


async def test_output_only_fields_are_ignored_where_a_resource_is_made(root: Client) -> None:
    role = management_key_pb2.ROLE_VIEWER
    cases: list[tuple[Message, Make]] = [
        (full_key(), _make_key),
        (api_pb2.Api(name="api"), _make_api),
        (management_key_pb2.ManagementKey(name="mk", role=role, member="ann"), _make_management_key),
        (workspace_pb2.Workspace(name="ws", enabled=True), _make_workspace),
    ]
    for wanted, make in cases:
        sent = forged(wanted)
        made = await make(root, sent)

        for field in fields(type(wanted), OUTPUT_ONLY):
            assert getattr(made, field.name) != getattr(sent, field.name), field.full_name
        for descriptor, value in wanted.ListFields():
            assert getattr(made, descriptor.name) == value, descriptor.full_name


async def test_a_mask_that_names_what_may_not_change_is_refused_for_each_such_field(root: Client) -> None:
    own = await own_workspace(root)
    await make_identity(root, "acme")
    key_id, api_id = (await root.create_key()).key.key_id, await make_api(root)
    credential = await root.create_management_key(management_key_pb2.ROLE_VIEWER)
    managed = management_key_pb2.ManagementKey(management_key_id=credential.management_key.management_key_id)
    cases: list[tuple[Message, Callable[[FieldMask], Message]]] = [
        (key := key_pb2.Key(key_id=key_id), lambda mask: keys_pb.UpdateKeyRequest(key=key, update_mask=mask)),
        (
            api := api_pb2.Api(api_id=api_id),
            lambda mask: admin_pb.UpdateApiRequest(api=api, update_mask=mask),
        ),
        (
            identity := identity_pb2.Identity(external_id="acme"),
            lambda mask: admin_pb.UpdateIdentityRequest(identity=identity, update_mask=mask),
        ),
        (managed, lambda mask: admin_pb.UpdateManagementKeyRequest(management_key=managed, update_mask=mask)),
        (
            workspace := workspace_pb2.Workspace(workspace_id=own.workspace_id),
            lambda mask: admin_pb.UpdateWorkspaceRequest(workspace=workspace, update_mask=mask),
        ),
    ]
    for resource, update in cases:
        fixed = [field.name for field in fields(type(resource), OUTPUT_ONLY, IMMUTABLE)]

        answer = await call(root.channel, update(FieldMask(paths=fixed)))

        assert answer.refusal is not None
        assert (answer.outcome, answer.refusal.fields) == ("INVALID_FIELD", ["update_mask"] * min(len(fixed), 12))
        told = [violation.description for violation in answer.refusal.bad_request.field_violations]
        assert [name for name, problem in zip(fixed, told, strict=False) if not problem.startswith(f"'{name}' ")] == []
