"""What tenants ask of storage: workspaces, apis and identities, beside what access asks."""

from typing import Protocol
from uuid import UUID

from latchkey_server.domain.access import ports as access
from latchkey_server.domain.model import Api, Identity, Workspace
from latchkey_server.domain.store import WorkspaceRevisions


class WorkspaceRepository(WorkspaceRevisions, Protocol):
    """Tenants, and the counter of their changes."""

    async def page(self, before: UUID | None, limit: int) -> list[Workspace]:
        """Return up to ``limit`` workspaces, newest first, those older than ``before``."""
        ...

    async def insert(self, workspace: Workspace) -> None:
        """Add a workspace with its counter, at 0; its id is new."""
        ...

    async def update(self, workspace: Workspace) -> None:
        """Replace what is stored of a workspace, by its id."""
        ...

    async def lock_bootstrap(self) -> None:
        """Make every other first start wait until this transaction ends."""
        ...


class ApiRepository(access.ApiLookup, Protocol):
    """Named sets of keys."""

    async def page(self, workspace_id: UUID, api_ids: frozenset[UUID], before: UUID | None, limit: int) -> list[Api]:
        """Return up to ``limit`` apis, newest first, those older than ``before``; of ``api_ids`` if it names any."""
        ...

    async def insert(self, api: Api) -> None:
        """Add an api; its id is new."""
        ...

    async def update(self, api: Api) -> None:
        """Replace what is stored of an api, by its id."""
        ...

    async def has_keys(self, workspace_id: UUID, api_id: UUID) -> bool:
        """Tell whether keys belong to the api, deleted ones included."""
        ...

    async def delete(self, workspace_id: UUID, api_id: UUID) -> None:
        """Remove an api that has no keys."""
        ...


class IdentityRepository(Protocol):
    """End customers."""

    async def get(self, workspace_id: UUID, identity_id: UUID) -> Identity | None:
        """Return an identity, or None for an unknown one."""
        ...

    async def by_external_id(self, workspace_id: UUID, external_id: str) -> Identity | None:
        """Return the identity with an external id, or None."""
        ...

    async def page(self, workspace_id: UUID, before: UUID | None, limit: int) -> list[Identity]:
        """Return up to ``limit`` identities, newest first, those older than ``before``."""
        ...

    async def insert(self, identity: Identity) -> None:
        """Add an identity; its id and its external id are new."""
        ...

    async def update(self, identity: Identity) -> None:
        """Replace what is stored of an identity, by its id."""
        ...

    async def has_keys(self, workspace_id: UUID, identity_id: UUID) -> bool:
        """Tell whether keys belong to the identity, deleted ones included."""
        ...

    async def delete(self, workspace_id: UUID, identity_id: UUID) -> None:
        """Remove an identity that has no keys."""
        ...


class Transaction(access.Transaction, Protocol):
    """A transaction in which tenants and what they consist of are read and changed."""

    @property
    def workspaces(self) -> WorkspaceRepository: ...
    @property
    def apis(self) -> ApiRepository: ...
    @property
    def identities(self) -> IdentityRepository: ...
