"""What keys ask of storage: the keys and what is stored beside them, beside what tenants ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol
from uuid import UUID

from latchkey_server.domain.model import Balance, EnvironmentCount, Key, KeyStatus
from latchkey_server.domain.tenants import ports as tenants


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys a list holds; None does not filter. An empty ``api_ids`` means all."""

    api_ids: frozenset[UUID] = frozenset()
    labels: tuple[str, ...] = ()
    unlabeled: bool = False
    external_id: str | None = None
    member: str | None = None
    statuses: frozenset[KeyStatus] = frozenset()
    prefix: str | None = None
    expire_before: datetime | None = None
    unused_since: datetime | None = None
    show_deleted: bool = False


class KeyRepository(Protocol):
    """API keys, their balances, their spend and their last use."""

    async def get(self, workspace_id: UUID, key_id: UUID) -> Key | None:
        """Return a key, deleted ones too, or None for an unknown one."""
        ...

    async def page(
        self, workspace_id: UUID, wanted: KeyFilter, before: UUID | None, limit: int, now: datetime
    ) -> list[Key]:
        """Return up to ``limit`` keys, newest first, those older than ``before``.

        A key is included if stored facts alone can't rule out its status.
        """
        ...

    async def insert(self, keys: Sequence[Key]) -> None:
        """Add keys; their ids are new."""
        ...

    async def update(self, key: Key) -> None:
        """Replace what may change of a key, by its id; its attributed environment stays."""
        ...

    async def environments(
        self, workspace_id: UUID, api_ids: frozenset[UUID], after: str | None, limit: int
    ) -> list[EnvironmentCount]:
        """Return how many living keys carry each label, of ``api_ids`` if it names any.

        In the order of the labels, the empty one first, those behind ``after``.
        """
        ...

    async def balances(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> Mapping[UUID, Balance]:
        """Return the balance of each key that has one."""
        ...

    async def insert_balances(self, workspace_id: UUID, balances: Mapping[UUID, Balance]) -> None:
        """Add balances for the keys that have none yet."""
        ...

    async def update_balance(self, workspace_id: UUID, key_id: UUID, balance: Balance) -> None:
        """Replace a key's balance."""
        ...

    async def lock_balance(self, workspace_id: UUID, key_id: UUID) -> Balance | None:
        """Return a key's balance, or None, locked: nobody else changes it until this transaction ends."""
        ...

    async def net_spend(self, workspace_id: UUID, since: Mapping[UUID, date | None]) -> Mapping[UUID, int]:
        """Return each key's net spend in nano-dollars from a UTC day on, or over its life for None.

        Keys that spent nothing may be absent.
        """
        ...

    async def last_used(self, workspace_id: UUID, key_ids: Sequence[UUID]) -> Mapping[UUID, datetime]:
        """Return when each key was last used, to the minute; keys that never were are absent."""
        ...


class Transaction(tenants.Transaction, Protocol):
    """A transaction in which keys are read and changed."""

    @property
    def keys(self) -> KeyRepository: ...
