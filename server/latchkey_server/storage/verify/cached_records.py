"""The source of records: the cache while it is confirmed, else the database, else the rules of an outage."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

from latchkey_server.domain import errors
from latchkey_server.domain.access.credentials import Credential
from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.freshness import HARD_BOUND, Confirmed, Freshness, Instant, age, confirmed, meets
from latchkey_server.domain.verify.model import Record
from latchkey_server.storage.verify.availability import Availability
from latchkey_server.storage.verify.batching import LookupBatcher
from latchkey_server.storage.verify.cache import KeyCache
from latchkey_server.storage.verify.records import DatabaseRecords


class CachedRecords:
    """Answers from the cache within the hard bound; asks the database for the rest, many look-ups in one query."""

    def __init__(
        self,
        database: DatabaseRecords,
        cache: KeyCache,
        availability: Availability,
        stale_if_error: timedelta,
        instant: Callable[[], Instant],
    ) -> None:
        self._database = database
        self._cache = cache
        self._availability = availability
        self._stale_max = max(stale_if_error.total_seconds(), HARD_BOUND)
        self._instant = instant
        self.looked_up = 0
        """Secrets that the database was asked for, and answered."""
        self.expired = 0
        """Those of them that were cached, but not confirmed in time."""
        self.cached, self.cached_credential = cache.records.get, cache.credentials.get
        self._records = LookupBatcher(self._load_records)
        self._credentials = LookupBatcher(self._load_credentials)
        self._revisions = LookupBatcher(self._load_revisions)
        for batcher in (self._records, self._credentials, self._revisions):
            availability.on_lost(partial(batcher.fail, DatabaseUnavailable))

    def fresh(self, sha256: bytes, at: Instant) -> Record | None:
        record = self.cached(sha256)
        return record if record is not None and confirmed(record, at) else None

    def grew(self, record: Record, more: int) -> None:
        self._cache.records.grow(record, more)

    async def records(self, sha256s: Sequence[bytes]) -> Mapping[bytes, Record | DatabaseUnavailable]:
        at = self._instant()
        cached = {sha256: self.fresh(sha256, at) for sha256 in sha256s}
        found: dict[bytes, Record | DatabaseUnavailable] = {
            sha256: record for sha256, record in cached.items() if record is not None
        }
        asked = [sha256 for sha256 in sha256s if sha256 not in found and not self._unknown_key(sha256, at)]
        if asked:
            self.expired += sum(self.cached(sha256) is not None for sha256 in asked)
            found |= await self._ask(asked)
            # A change may have dropped some of it while the rest was looked up.
            if late := [sha256 for sha256, record in found.items() if self._too_old(record)]:
                found = {sha256: found[sha256] for sha256 in found.keys() - late} | dict(await self._ask(late))
        return found

    async def record(self, sha256: bytes, freshness: Freshness) -> Record | None:
        cached = self._cache.records.get(sha256)
        if cached is not None and meets(cached, freshness, self._instant()):
            return cached
        found = await self._now(sha256)
        wanted = freshness.min_revision
        if found is None and wanted is not None:
            # It may have been unknown before the demanded revision: look it up again once that is known to be reached.
            _require_reached(wanted.number, await self._revisions.find(wanted.workspace_id) or 0)
            found = await self._now(sha256)
        if found is not None and wanted is not None and wanted.workspace_id == found.history.workspace_id:
            _require_reached(wanted.number, found.revision)
        return found

    def fresh_credential(self, sha256: bytes, at: Instant) -> Credential | None:
        credential = self.cached_credential(sha256)
        return credential if credential is not None and confirmed(credential, at) else None

    async def credential(self, sha256: bytes) -> Credential | None:
        at = self._instant()
        credential = self.fresh_credential(sha256, at)
        if credential is not None or self.unknown_credential(sha256, at):
            return credential
        try:
            self._availability.require()
            return await self._credentials.find(sha256)
        except DatabaseUnavailable:
            cached = self._cache.credentials.get(sha256)
            if cached is not None and self._may_be_stale(cached):
                return cached
            raise

    async def _ask(self, sha256s: Sequence[bytes]) -> Mapping[bytes, Record | DatabaseUnavailable]:
        try:
            self._availability.require()
            found = await self._records.find_all(sha256s)
            self.looked_up += len(sha256s)
            return found
        except DatabaseUnavailable:
            cached = {sha256: self._cache.records.get(sha256) for sha256 in sha256s}
            return {
                sha256: record if record is not None and self._may_be_stale(record) else DatabaseUnavailable()
                for sha256, record in cached.items()
            }

    async def _now(self, sha256: bytes) -> Record | None:
        """Return the record of a secret as read by a query that is sent from now on."""
        self._availability.require()
        found = await self._records.find(sha256)
        self.looked_up += 1
        return await self._records.find(sha256) if self._too_old(found) else found

    def _too_old(self, found: Record | DatabaseUnavailable | None) -> bool:
        return isinstance(found, Record) and age(found, self._instant()) > HARD_BOUND

    def _unknown_key(self, sha256: bytes, at: Instant) -> bool:
        return not self._availability.lost and self._cache.unknown_key(sha256, at)

    def unknown_credential(self, sha256: bytes, at: Instant) -> bool:
        return not self._availability.lost and self._cache.unknown_credential(sha256, at)

    def _may_be_stale(self, known: Confirmed) -> bool:
        return age(known, self._instant()) <= self._stale_max

    async def _load_records(self, sha256s: Sequence[bytes]) -> Mapping[bytes, Record]:
        load = self._cache.loading(self._instant())
        found = await self._database.records(sha256s)
        self._cache.add_records(sha256s, found, load)
        return found

    async def _load_revisions(self, workspace_ids: Sequence[UUID]) -> Mapping[UUID, int]:
        return {workspace_id: await self._database.revision(workspace_id) for workspace_id in workspace_ids}

    async def _load_credentials(self, sha256s: Sequence[bytes]) -> Mapping[bytes, Credential]:
        load = self._cache.loading(self._instant())
        found = await self._database.credentials(sha256s)
        self._cache.add_credentials(sha256s, found, load)
        return found


def _require_reached(wanted: int, revision: int) -> None:
    if revision < wanted:
        raise errors.RevisionNotReached(
            "This server can't confirm the revision asked for; retry.", revision=str(revision)
        )
