"""What access asks of storage: management keys, their secrets, and whether the apis that they are bound to exist."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from latchkey_server.domain.model import Api, ManagementKey, Secret
from latchkey_server.domain.store import MutationTransaction


class ApiLookup(Protocol):
    """Apis, one by one."""

    async def get(self, workspace_id: UUID, api_id: UUID) -> Api | None:
        """Return an api, or None for an unknown one."""
        ...


class SecretRepository(Protocol):
    """Secrets of keys and management keys, and the one global table of their hashes."""

    async def find(self, hashes: Sequence[bytes]) -> Secret | None:
        """Return the secret that is stored under one of these hashes, in any workspace, or None."""
        ...

    async def claim(self, secrets: Sequence[Secret]) -> set[bytes]:
        """Add the secrets whose hash exists nowhere and return those hashes."""
        ...

    async def hold(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Return those that exist nowhere, locked: nobody else adds one before this transaction ends."""
        ...

    async def of(self, workspace_id: UUID, holder_ids: Sequence[UUID]) -> Mapping[UUID, tuple[Secret, ...]]:
        """Return the secrets of each holder, newest first; holders without any are absent."""
        ...

    async def end(self, workspace_id: UUID, holder_id: UUID, end_time: datetime, at_once: bool) -> None:
        """End every secret of a holder at min(its end, ``end_time``); ``at_once`` marks it as ended."""
        ...


class ManagementKeyRepository(Protocol):
    """Credentials for Latchkey's own RPCs."""

    async def get(self, workspace_id: UUID, management_key_id: UUID) -> ManagementKey | None:
        """Return a management key, revoked ones too, or None for an unknown one."""
        ...

    async def page(
        self, workspace_id: UUID, show_revoked: bool, before: UUID | None, limit: int
    ) -> list[ManagementKey]:
        """Return up to ``limit`` management keys, newest first, those older than ``before``."""
        ...

    async def insert(self, management_key: ManagementKey) -> None:
        """Add a management key; its id is new."""
        ...

    async def update(self, management_key: ManagementKey) -> None:
        """Replace what is stored of a management key, by its id."""
        ...

    async def other_lasting_owner_exists(self, workspace_id: UUID, management_key_id: UUID) -> bool:
        """Tell whether another OWNER has neither a binding nor an end."""
        ...


class Transaction(MutationTransaction, Protocol):
    """A transaction in which management keys are read and changed."""

    @property
    def apis(self) -> ApiLookup: ...
    @property
    def secrets(self) -> SecretRepository: ...
    @property
    def management_keys(self) -> ManagementKeyRepository: ...
