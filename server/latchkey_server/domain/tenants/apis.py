"""Apis: named sets of keys."""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

from latchkey_server.domain import errors, ids
from latchkey_server.domain.access.roles import require_unbound
from latchkey_server.domain.model import Api, Caller, Change, ChangeKind, Json
from latchkey_server.domain.mutations import Effects, MutationResult, Mutations, Origin, View, effects_of
from latchkey_server.domain.paging import Page, cut, id_cursor
from latchkey_server.domain.replays import api_json, api_of
from latchkey_server.domain.store import Store
from latchkey_server.domain.tenants.ports import Transaction
from latchkey_server.domain.validation import NAME_MAX, Violations, check_etag, check_text

DEFAULT_NAME = "default"


def new_api(workspace_id: UUID, name: str, now: datetime, revision: int, *, is_default: bool = False) -> Api:
    """Return a fresh api."""
    return Api(workspace_id, ids.new_id(), name, is_default, now, now, revision)


class Apis:
    """Shows and changes apis."""

    def __init__(self, store: Store[Transaction], mutations: Mutations[Transaction]) -> None:
        self._store = store
        self._mutations = mutations

    async def create(self, origin: Origin, name: str) -> MutationResult[Api]:
        """Make an api. Raises InvalidField and ApiBinding."""
        require_unbound(origin.caller)
        _check_name(name)

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            api = new_api(origin.caller.workspace_id, name, now, revision)
            await tx.apis.insert(api)
            return _effects("api.create", None, api, api)

        return await self._mutations.run(origin, work, _view(origin.caller))

    async def get(self, caller: Caller, api_id: UUID) -> Api:
        """Return an api; raises ApiNotFound."""

        async def work(tx: Transaction) -> Api:
            return await _visible(tx, caller, api_id)

        return await self._store.read(work)

    async def list(self, caller: Caller, size: int, cursor: str | None) -> Page[Api]:
        """Return apis newest first."""

        async def work(tx: Transaction) -> Page[Api]:
            found = await tx.apis.page(caller.workspace_id, caller.api_ids, id_cursor(cursor), size + 1)
            return cut(found, size, lambda api: str(api.api_id))

        return await self._store.read(work)

    async def rename(self, origin: Origin, api_id: UUID, name: str | None, etag: str = "") -> MutationResult[Api]:
        """Change an api's name, or leave it for None. Raises ApiNotFound, EtagMismatch and InvalidField."""
        _check_name(name or "")

        async def work(tx: Transaction, now: datetime, revision: int) -> Effects:
            before = await _visible(tx, origin.caller, api_id, etag)
            renamed = before.name if name is None else name
            after = replace(before, name=renamed, update_time=now, revision=revision)
            await tx.apis.update(after)
            return _effects("api.update", before, after, after)

        return await self._mutations.run(origin, work, _view(origin.caller))

    async def delete(self, origin: Origin, api_id: UUID, etag: str = "") -> MutationResult[None]:
        """Remove an api without keys. Raises ApiNotFound, EtagMismatch, DefaultApi and ApiNotEmpty."""

        async def work(tx: Transaction, _now: datetime, _revision: int) -> Effects:
            before = await _visible(tx, origin.caller, api_id, etag)
            shown = ids.format_id(ids.API, api_id)
            if before.is_default:
                raise errors.DefaultApi("The workspace's default api can't be deleted.", api_id=shown)
            if await tx.apis.has_keys(before.workspace_id, api_id):
                raise errors.ApiNotEmpty("The api has keys, or deleted ones.", api_id=shown)
            await tx.apis.delete(before.workspace_id, api_id)
            return _effects("api.delete", before, None, before)

        async def view(_tx: Transaction, _now: datetime, _outcome: Json) -> None:
            return None

        return await self._mutations.run(origin, work, view)


def _check_name(name: str) -> None:
    found = Violations("api")
    check_text(found, "name", name, NAME_MAX)
    found.check()


async def _visible(tx: Transaction, caller: Caller, api_id: UUID, etag: str = "") -> Api:
    api = await tx.apis.get(caller.workspace_id, api_id)
    if api is None or not caller.covers_api(api_id):
        raise errors.ApiNotFound(ids.format_id(ids.API, api_id))
    check_etag(etag, api.revision)
    return api


def _effects(action: str, before: Api | None, after: Api | None, api: Api) -> Effects:
    return effects_of(action, Change(ChangeKind.API_CHANGED, api.api_id), before, after, api_json(api))


def _view(caller: Caller) -> View[Transaction, Api]:
    async def view(_tx: Transaction, _now: datetime, outcome: Json) -> Api:
        api = api_of(outcome)
        if not caller.covers_api(api.api_id):
            raise errors.ApiNotFound(ids.format_id(ids.API, api.api_id))
        return api

    return view
