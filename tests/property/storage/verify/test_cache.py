"""The key cache against a model of everything that happened: nothing cached is older than what this process knows."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from latchkey_server.domain.freshness import HARD_BOUND
from latchkey_server.domain.model import Change, ChangeKind, Key, Revision
from latchkey_server.domain.verify.model import Record
from latchkey_server.storage.verify.cache import IDLE_SECONDS, KeyCache, Load
from tests.unit.builders import (
    IDENTITY_ID,
    KEY_ID,
    OTHER_KEY_ID,
    WORKSPACE_ID,
    make_key,
    make_record,
    uuid_of,
)

LATE_KEY_ID = uuid_of(23)
KEYS = {
    b"1" * 32: make_key(identity_id=IDENTITY_ID),
    b"2" * 32: make_key(identity_id=IDENTITY_ID),
    b"3" * 32: make_key(key_id=OTHER_KEY_ID),
    b"4" * 32: make_key(key_id=LATE_KEY_ID),
}
LATE = b"4" * 32
"""A secret that is there once a change says so."""

changes = st.sampled_from(
    [
        Change(ChangeKind.KEY_CHANGED, KEY_ID),
        Change(ChangeKind.KEY_CHANGED, OTHER_KEY_ID),
        Change(ChangeKind.IDENTITY_CHANGED, IDENTITY_ID),
        Change(ChangeKind.WORKSPACE_CHANGED, WORKSPACE_ID),
        Change(ChangeKind.SECRET_ADDED, LATE_KEY_ID),
    ]
)


@dataclass(slots=True)
class Loading:
    """A load under way: when it was begun, and the revision that it has read once it has."""

    load: Load
    asked: tuple[bytes, ...]
    revision: int | None = None


def affected(key: Key, change: Change) -> bool:
    """Tell whether a change may alter an answer about a key."""
    return change.kind is ChangeKind.WORKSPACE_CHANGED or change.target_id in (key.key_id, key.identity_id)


class KeyCacheMachine(RuleBasedStateMachine):
    """One workspace, changed here and elsewhere, with loads that take their time."""

    loads: Bundle[Loading] = Bundle("loads")

    def __init__(self) -> None:
        super().__init__()
        self.cache = KeyCache(1_000, 1_000_000)
        self.now = 1_000.0
        self.committed: list[Change] = []
        self.known: set[int] = set()
        """The revisions that this process has made or has been told of."""
        self.told = False
        """Whether this process has made the late secret, or has been told of it while it followed the workspace."""
        self.newest: dict[bytes, int] = {}

    @property
    def revision(self) -> int:
        """The database's revision."""
        return len(self.committed)

    @rule(change=changes)
    def change_elsewhere(self, change: Change) -> None:
        self.committed.append(change)

    @rule(change=changes)
    def change_here(self, change: Change) -> None:
        self.committed.append(change)
        self.known.add(self.revision)
        self.told = self.told or _adds(change)
        self.cache.committed(Revision(WORKSPACE_ID, self.revision), [change])

    @rule(target=loads, asked=st.sampled_from([tuple(KEYS), *((sha256,) for sha256 in KEYS)]), at_once=st.booleans())
    def begin_load(self, asked: tuple[bytes, ...], at_once: bool) -> Loading:
        return Loading(self.cache.loading(self.now), asked, self.revision if at_once else None)

    @rule(loading=consumes(loads))
    def land(self, loading: Loading) -> None:
        read_at = self.revision if loading.revision is None else loading.revision
        found = {sha256: self._record(sha256, read_at) for sha256 in loading.asked if self._exists(sha256, read_at)}
        self.cache.add_records(loading.asked, found, loading.load)

    @rule()
    def look(self) -> None:
        """Follow as the change feed does."""
        if WORKSPACE_ID not in self.cache.followed((), self.now):
            return
        after = self.cache.histories[WORKSPACE_ID].revision
        new = [(at + 1, change) for at, change in enumerate(self.committed) if at + 1 > after]
        self.cache.apply(Revision(WORKSPACE_ID, self.revision), new)
        self.known |= set(range(1, self.revision + 1))
        self.told = self.told or any(_adds(change) for _, change in new)

    @rule(seconds=st.sampled_from([HARD_BOUND, 2 * IDLE_SECONDS]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.revision > 3)
    @rule()
    def reset(self) -> None:
        self.cache.drop_all()

    @invariant()
    def nothing_kept_is_older_than_what_is_known(self) -> None:
        for sha256, record in self._usable().items():
            met = {at for at in self.known if affected(KEYS[sha256], self.committed[at - 1])}
            assert record.revision >= max(met, default=0)

    @invariant()
    def nothing_older_follows_something_newer(self) -> None:
        for sha256, record in self._usable().items():
            assert record.revision >= self.newest.get(sha256, 0)
            self.newest[sha256] = record.revision

    @invariant()
    def no_secret_that_is_known_to_be_there_is_called_unknown(self) -> None:
        if self.told:
            assert not self.cache.unknown_key(LATE, self.now)

    @invariant()
    def what_is_counted_is_what_is_kept(self) -> None:
        alive = [record for record in map(self.cache.records.get, KEYS) if record is not None]
        for history in {id(record.history): record.history for record in alive}.values():
            assert history.entries == sum(record.history is history for record in alive)

    def _usable(self) -> dict[bytes, Record]:
        kept = {sha256: self.cache.records.get(sha256) for sha256 in KEYS}
        return {sha256: record for sha256, record in kept.items() if record is not None and not record.history.dropped}

    def _record(self, sha256: bytes, revision: int) -> Record:
        history = self.cache.history(WORKSPACE_ID, revision, self.now)
        return make_record(KEYS[sha256], revision=revision, read_at=self.now, history=history)

    def _exists(self, sha256: bytes, revision: int) -> bool:
        return sha256 != LATE or any(map(_adds, self.committed[:revision]))


def _adds(change: Change) -> bool:
    """Tell whether the late secret is there from this change on."""
    return change.kind is ChangeKind.SECRET_ADDED


TestKeyCache = KeyCacheMachine.TestCase
TestKeyCache.settings = settings(max_examples=300, stateful_step_count=30, deadline=None, print_blob=True)
