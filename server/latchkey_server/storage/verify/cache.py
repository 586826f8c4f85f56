"""One process's cache of keys and credentials, and how changes invalidate it (architecture: Freshness).

Nothing here waits: loads come in through ``add_records`` and ``add_credentials``, changes through ``committed`` (this
process's own) and ``apply`` (everybody's, in order). Bounded by number and bytes; the least recently used goes first.
"""

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

from lru import LRU

from latchkey_server.domain.access.credentials import Credential
from latchkey_server.domain.freshness import HARD_BOUND, NEVER, Confirmed, History, Instant
from latchkey_server.domain.model import Change, ChangeKind, Revision
from latchkey_server.domain.verify.model import Record

V = TypeVar("V", bound=Confirmed)

UNKNOWN_MAX: Final = 10_000
"""Unknown secrets cached as such, apart from the known ones: junk can't evict those."""

CREDENTIALS_MAX: Final = 10_000
_RECORD_BYTES: Final = 1_660
"""What every record takes, and what counting its verifications remembers of it."""

_OBJECT_BYTES, _LIMIT_BYTES, _IDENTITY_BYTES = 60, 250, 450
"""What a text or a time takes beside its characters, a rate limit, and an identity."""

IDLE_SECONDS: Final = 60.0
"""How long a workspace of which nothing is cached is still followed: longer than any load that may be under way."""


class CacheEntries(Generic[V]):
    """Entries by SHA-256, within bounds, that can be dropped by what they refer to."""

    def __init__(
        self,
        keys_max: int,
        bytes_max: int,
        targets: Callable[[V], Iterable[UUID]],
        footprint: Callable[[V], int],
    ) -> None:
        self._entries: LRU[bytes, V] = LRU(keys_max + 1)
        self._keys_max = keys_max
        self._bytes_max = bytes_max
        self._targets = targets
        self._footprint = footprint
        self._by_target: dict[UUID, bytes | set[bytes]] = {}
        self.bytes = 0
        self.evicted = 0
        """Entries that made room for others."""
        self.invalidated = 0
        """Entries that a change dropped."""
        self.get = self._entries.get
        """Return the entry of a SHA-256 and make it the most recently used, or None."""

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, sha256: bytes, value: V) -> None:
        """Add an entry; may evict the least recently used ones."""
        self.drop(sha256)
        self._entries[sha256] = value
        value.footprint = self._footprint(value)
        self.bytes += value.footprint
        value.history.entries += 1
        value.cached = True
        for target in self._targets(value):
            _add(self._by_target, target, sha256)
        self._evict()

    def grow(self, value: V, more: int) -> None:
        """Count bytes that an entry takes in addition; may evict the least recently used ones."""
        if value.cached:
            value.footprint += more
            self.bytes += more
            self._evict()

    def _evict(self) -> None:
        while len(self._entries) > self._keys_max or (self.bytes > self._bytes_max and len(self._entries) > 1):
            self._forget(*self._entries.popitem(least_recent=True))
            self.evicted += 1

    def drop(self, sha256: bytes) -> None:
        """Drop an entry, if it is cached."""
        value = self._entries.pop(sha256, None)
        if value is not None:
            self._forget(sha256, value)

    def _forget(self, sha256: bytes, value: V) -> None:
        self.bytes -= value.footprint
        value.history.entries -= 1
        value.cached = False
        if not value.history.dropped:
            _detach(value, value.history.revision, value.history.confirmed_at)
        for target in self._targets(value):
            _discard(self._by_target, target, sha256)

    def drop_target(self, target: UUID, before: int) -> None:
        """Drop what refers to a target and was read at a revision before ``before``."""
        for sha256 in _all(self._by_target.get(target)):
            value = self._entries.get(sha256)
            if value is not None and value.revision < before:
                self.drop(sha256)
                self.invalidated += 1


class Load(NamedTuple):
    """When a load was begun, and what must be unchanged for its result to be cached."""

    begun_at: Instant
    resets: int
    additions: int


class KeyCache:
    """Records and credentials, the unknown secrets, and how far each workspace's changes are followed."""

    def __init__(self, keys_max: int, bytes_max: int) -> None:
        self.records: CacheEntries[Record] = CacheEntries(keys_max, bytes_max, _record_targets, footprint)
        self.credentials: CacheEntries[Credential] = CacheEntries(
            CREDENTIALS_MAX, bytes_max, lambda value: (value.management_key.management_key_id,), lambda _value: 1_500
        )
        self._unknown_keys: LRU[bytes, Instant] = LRU(UNKNOWN_MAX)
        self._unknown_credentials: LRU[bytes, Instant] = LRU(UNKNOWN_MAX)
        self.histories: dict[UUID, History] = {}
        self._resets = 0
        self._additions = 0

    def history(self, workspace_id: UUID, revision: int, read_at: Instant) -> History:
        """Return the history of a workspace, begun at what was just read of it if it is not followed yet."""
        history = self.histories.get(workspace_id)
        if history is None:
            history = self.histories[workspace_id] = History(workspace_id, revision, read_at, used_at=read_at)
        history.highest = max(history.highest, revision)
        return history

    def loading(self, at: Instant) -> Load:
        """Return what must not change before the result of a load that begins now is cached."""
        return Load(at, self._resets, self._additions)

    def add_records(self, asked: Collection[bytes], found: Mapping[bytes, Record], load: Load) -> None:
        """Cache what was loaded, unless it is older than what is known, or verifications of it spend a budget."""
        for sha256, record in found.items():
            if not record.metered and self._addable(record, load) and not _older(record, self.records.get(sha256)):
                self.records.put(sha256, record)
            else:
                _detach(record, record.revision, record.read_at)
        self._add_unknown(self._unknown_keys, asked, found, load)

    def add_credentials(self, asked: Collection[bytes], found: Mapping[bytes, Credential], load: Load) -> None:
        """Cache what was loaded, unless it is older than what is known."""
        for sha256, credential in found.items():
            if self._addable(credential, load) and not _older(credential, self.credentials.get(sha256)):
                self.credentials.put(sha256, credential)
            else:
                _detach(credential, credential.revision, credential.read_at)
        self._add_unknown(self._unknown_credentials, asked, found, load)

    def forget_unknown(self) -> None:
        """Forget which secrets are unknown: one of them, it is not said which, has become known."""
        self._additions += 1
        self._unknown_keys.clear()
        self._unknown_credentials.clear()

    def unknown_key(self, sha256: bytes, at: Instant) -> bool:
        """Tell whether a secret was found unknown within the hard bound."""
        return at - self._unknown_keys.get(sha256, NEVER) <= HARD_BOUND

    def unknown_credential(self, sha256: bytes, at: Instant) -> bool:
        """Tell whether a management secret was found unknown within the hard bound."""
        return at - self._unknown_credentials.get(sha256, NEVER) <= HARD_BOUND

    def committed(self, revision: Revision, changes: Sequence[Change]) -> None:
        """Apply what this process changed: what was read before it is dropped, and is not cached again."""
        if not changes:
            return
        history = self.histories.get(revision.workspace_id)
        if history is None:
            # A load under way may have been read before.
            history = self.history(revision.workspace_id, revision.number, NEVER)
        history.floor = max(history.floor, revision.number)
        history.highest = max(history.highest, revision.number)
        first = revision.number - len(changes) + 1
        self._invalidate(revision.workspace_id, [(first + offset, change) for offset, change in enumerate(changes)])

    def apply(self, revision: Revision, changes: Sequence[tuple[int, Change]]) -> None:
        """Apply the changes up to ``revision``, in order and without a gap."""
        self._invalidate(revision.workspace_id, changes)
        history = self.histories[revision.workspace_id]
        history.revision = max(history.revision, revision.number)
        history.floor = max(history.floor, revision.number)
        history.highest = max(history.highest, revision.number)

    def drop_workspace(self, workspace_id: UUID) -> None:
        """Drop everything of a workspace, and cache nothing of it that was read before."""
        history = self.histories.pop(workspace_id, None)
        if history is not None:
            history.drop()
        self._resets += 1
        self.forget_unknown()

    def drop_all(self) -> None:
        """Drop everything, and cache nothing that was read before."""
        for workspace_id in list(self.histories):
            self.drop_workspace(workspace_id)
        self._resets += 1

    def followed(self, watched: Collection[UUID], at: Instant, *, everything: bool = False) -> dict[UUID, int]:
        """Return the workspaces to follow with the highest revision seen of each.

        Those that are not watched and of which nothing was cached for a while are no longer followed.
        """
        for history in list(self.histories.values()):
            if history.entries or everything or history.workspace_id in watched or history.used_at == NEVER:
                history.used_at = at
            elif at - history.used_at > IDLE_SECONDS:
                # A load under way may have been read before a change that only this history remembers.
                self._resets += 1
                del self.histories[history.workspace_id]
                history.drop()
        return dict.fromkeys(watched, 0) | {known: history.highest for known, history in self.histories.items()}

    def _addable(self, value: Confirmed, load: Load) -> bool:
        history = value.history
        return load.resets == self._resets and not history.dropped and value.revision >= history.floor

    def _add_unknown(
        self, unknown: "LRU[bytes, Instant]", asked: Collection[bytes], found: Container[bytes], load: Load
    ) -> None:
        if (load.resets, load.additions) == (self._resets, self._additions):
            for sha256 in asked:
                if sha256 not in found:
                    unknown[sha256] = load.begun_at

    def _invalidate(self, workspace_id: UUID, changes: Sequence[tuple[int, Change]]) -> None:
        for revision, change in changes:
            match change.kind:
                case ChangeKind.KEY_CHANGED | ChangeKind.IDENTITY_CHANGED:
                    self.records.drop_target(change.target_id, revision)
                case ChangeKind.SECRET_ADDED:
                    self.records.drop_target(change.target_id, revision)
                    self.forget_unknown()
                case ChangeKind.MANAGEMENT_KEY_CHANGED:
                    self.credentials.drop_target(change.target_id, revision)
                    self.forget_unknown()
                case ChangeKind.WORKSPACE_CHANGED:
                    self._begin_anew(workspace_id)
                case ChangeKind.API_CHANGED:
                    pass  # Nothing that a verdict depends on is read from an api: its keys carry its id for life.

    def _begin_anew(self, workspace_id: UUID) -> None:
        """Drop all that is cached of a workspace in one step; its revisions go on, so that nothing older is cached."""
        history = self.histories[workspace_id]
        self.histories[workspace_id] = replace(history, entries=0, serialized=None)
        history.drop()


class _Held(Protocol):
    """What refers to a history."""

    history: History


def _detach(value: _Held, revision: int, confirmed_at: Instant) -> None:
    """Give what is not cached, or no longer, a history of its own: no change would reach it."""
    value.history = History(value.history.workspace_id, revision, confirmed_at)


def _older(loaded: Confirmed, cached: Confirmed | None) -> bool:
    """Tell whether a load that took longer would replace a newer one."""
    return cached is not None and not cached.history.dropped and loaded.revision < cached.revision


def footprint(record: Record) -> int:
    """Return about how many bytes caching a record takes, with its part of the tables; kept answers ``grow`` it."""
    key, fields = record.key, record.key.fields
    models = fields.model_limits.models if fields.model_limits else ()
    # What many keys have alike is stored once for all of them.
    shared = (key.prefix, fields.environment, fields.member, *fields.scopes)
    own = (
        *(fields.name, fields.external_id, fields.guardrail_id, fields.firewall_policy_id),
        *(key.revocation.note if key.revocation else "", record.metadata, record.identity_metadata),
        *(*fields.allow_ips, *models, *(limit.name for limit in record.ratelimits)),
    )
    times = (fields.expire_time, fields.not_before_time, record.secret_end_time)
    objects = (*filter(None, own), *filter(None, (*times, fields.model_limits, key.revocation)))
    size = _RECORD_BYTES + sum(map(_bytes_of, (*shared, *own))) + 8 * len(shared) + _OBJECT_BYTES * len(objects)
    if record.identity is not None:
        size += _IDENTITY_BYTES
    if record.limited:
        # Its answers are made anew each time, from a part that is kept and that nobody counts later.
        size += _LIMIT_BYTES * len(record.ratelimits) + sum(map(_bytes_of, (*shared, *own)))
    return size


def _bytes_of(text: str) -> int:
    # In a text that is not ASCII, Python stores each character in up to four bytes.
    return len(text) if text.isascii() else 4 * len(text)


def _record_targets(record: Record) -> Iterable[UUID]:
    identity_id = record.key.identity_id
    return (record.key.key_id,) if identity_id is None else (record.key.key_id, identity_id)


def _add(index: dict[UUID, bytes | set[bytes]], target: UUID, sha256: bytes) -> None:
    """Add to an index in which most targets have one entry: a set for each would cost more than the record."""
    present = index.setdefault(target, sha256)
    if isinstance(present, set):
        present.add(sha256)
    elif present != sha256:
        index[target] = {present, sha256}


def _discard(index: dict[UUID, bytes | set[bytes]], target: UUID, sha256: bytes) -> None:
    present = index.get(target)
    if isinstance(present, set):
        present.discard(sha256)
        if present:
            return
    elif present != sha256:
        return
    del index[target]


def _all(present: bytes | set[bytes] | None) -> tuple[bytes, ...]:
    if present is None:
        return ()
    return tuple(present) if isinstance(present, set) else (present,)
