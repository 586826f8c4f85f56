"""KeyService on the wire: convert, call the domain, convert."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from latchkey.v1 import key_service_pb2 as pb
from latchkey.v1 import key_service_pb2_grpc
from latchkey_server.domain import errors, ids
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.keys.commands import Adjustment, Keys
from latchkey_server.domain.keys.importing import ITEMS_MAX, ImportResult, KeyImport
from latchkey_server.domain.model import KeyFields
from latchkey_server.domain.turns import in_slices
from latchkey_server.domain.validation import Violations, require_number
from latchkey_server.transport.call import Context, caller, origin
from latchkey_server.transport.convert.key import (
    MUTABLE,
    canonical_import,
    credit_message,
    environment_count_message,
    fields_message,
    key_message,
    read_draft,
    read_import_item,
    read_key_fields,
    read_key_filter,
)
from latchkey_server.transport.convert.masks import applied, paths_of
from latchkey_server.transport.convert.secret import read_revoke_reason
from latchkey_server.transport.convert.well_known import optional_id, read_duration, required_id, revision
from latchkey_server.transport.grpc.lists import one_page
from latchkey_server.transport.status import status_of


class KeyServicer(key_service_pb2_grpc.KeyServiceServicer):
    """Answers KeyService."""

    def __init__(self, keys: Keys, imports: KeyImport) -> None:
        self._keys = keys
        self._imports = imports

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> pb.CreateKeyResponse:
        found = Violations()
        ttl = read_duration(found, "ttl", request, "ttl")
        found.check()
        draft = replace(read_draft(request.key), ttl=ttl)
        made = await self._keys.create(origin("CreateKey", request), draft)
        return pb.CreateKeyResponse(
            key=key_message(made.value.view),
            secret=made.value.secret,
            replayed=made.replayed,
            revision=revision(made.revision),
        )

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.GetKeyResponse:
        key_id = required_id("key_id", ids.KEY, request.key_id)
        return pb.GetKeyResponse(key=key_message(await self._keys.get(caller(), key_id)))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        shown, token = await one_page(
            request, lambda size, cursor: self._keys.list(caller(), read_key_filter(request), size, cursor), key_message
        )
        return pb.ListKeysResponse(keys=shown, next_page_token=token)

    async def UpdateKey(self, request: pb.UpdateKeyRequest, context: Context) -> pb.UpdateKeyResponse:
        key_id = required_id("key.key_id", ids.KEY, request.key.key_id)
        paths = paths_of(request.update_mask, request.key, MUTABLE, "key")

        def edit(fields: KeyFields, found: Violations) -> KeyFields:
            return read_key_fields(applied(request.key, fields_message(fields), paths), found)

        updated = await self._keys.update(origin("UpdateKey", request), key_id, edit, request.etag)
        return pb.UpdateKeyResponse(key=key_message(updated.value), revision=revision(updated.revision))

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Context) -> pb.RotateKeyResponse:
        key_id = required_id("key_id", ids.KEY, request.key_id)
        found = Violations()
        grace = read_duration(found, "grace", request, "grace") or timedelta(0)
        found.check()
        rotated = await self._keys.rotate(origin("RotateKey", request), key_id, grace, request.etag)
        return pb.RotateKeyResponse(
            key=key_message(rotated.value.view),
            secret=rotated.value.secret,
            replayed=rotated.replayed,
            revision=revision(rotated.revision),
        )

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.RevokeKeyResponse:
        key_id = required_id("key_id", ids.KEY, request.key_id)
        reason = read_revoke_reason(request.reason)
        asked = origin("RevokeKey", request)
        revoked = await self._keys.revoke(asked, key_id, reason, request.note, request.etag)
        return pb.RevokeKeyResponse(key=key_message(revoked.value), revision=revision(revoked.revision))

    async def DeleteKey(self, request: pb.DeleteKeyRequest, context: Context) -> pb.DeleteKeyResponse:
        key_id = required_id("key_id", ids.KEY, request.key_id)
        deleted = await self._keys.delete(origin("DeleteKey", request), key_id, request.etag)
        return pb.DeleteKeyResponse(key=key_message(deleted.value), revision=revision(deleted.revision))

    async def UndeleteKey(self, request: pb.UndeleteKeyRequest, context: Context) -> pb.UndeleteKeyResponse:
        key_id = required_id("key_id", ids.KEY, request.key_id)
        restored = await self._keys.undelete(origin("UndeleteKey", request), key_id)
        return pb.UndeleteKeyResponse(key=key_message(restored.value), revision=revision(restored.revision))

    async def LookupKey(self, request: pb.LookupKeyRequest, context: Context) -> pb.LookupKeyResponse:
        if not request.secret:
            raise errors.InvalidField.one("secret", "is required")
        view, secret_id = await self._keys.lookup(caller(), request.secret)
        return pb.LookupKeyResponse(key=key_message(view), secret_id=ids.format_id(ids.SECRET, secret_id))

    async def ImportKeys(self, request: Any, context: Context) -> pb.ImportKeysResponse:
        require_number("items", len(request.items), ITEMS_MAX)
        items = await in_slices(read_import_item, request.items)
        imported = await self._imports.run(origin("ImportKeys", await canonical_import(request)), items)
        results = await in_slices(_import_result, imported.value)
        return pb.ImportKeysResponse(results=results, revision=revision(imported.revision))

    async def ListEnvironments(
        self, request: pb.ListEnvironmentsRequest, context: Context
    ) -> pb.ListEnvironmentsResponse:
        api_id = optional_id("api_id", ids.API, request.api_id)
        shown, token = await one_page(
            request,
            lambda size, cursor: self._keys.environments(caller(), api_id, size, cursor),
            environment_count_message,
        )
        return pb.ListEnvironmentsResponse(environments=shown, next_page_token=token)

    async def AdjustCredits(self, request: pb.AdjustCreditsRequest, context: Context) -> pb.AdjustCreditsResponse:
        key_id = required_id("key_id", ids.KEY, request.key_id)
        which = request.WhichOneof("adjustment")
        if which is None:
            raise errors.InvalidField.one("adjustment", "is required: set or add")
        adjustment = Adjustment(request.add if which == "add" else request.set, relative=which == "add")
        adjusted = await self._keys.adjust_credits(origin("AdjustCredits", request), key_id, adjustment)
        return pb.AdjustCreditsResponse(balance=credit_message(adjusted.value))


def _import_result(result: ImportResult) -> pb.ImportKeyResult:
    if isinstance(result, LatchkeyError):
        return pb.ImportKeyResult(error=status_of(result))
    return pb.ImportKeyResult(key_id=ids.format_id(ids.KEY, result))
