"""The cache of keys and credentials, and what invalidates it (spec §4, Freshness)."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from latchkey_server.domain.access.credentials import Credential
from latchkey_server.domain.freshness import HARD_BOUND
from latchkey_server.domain.model import Change, ChangeKind, Key, KeyFields, Revision
from latchkey_server.domain.verify.model import Record
from latchkey_server.storage.verify.cache import IDLE_SECONDS, KeyCache, Load, footprint
from tests.unit.builders import (
    IDENTITY_ID,
    KEY_ID,
    MANAGEMENT_KEY_ID,
    OTHER_KEY_ID,
    OTHER_WORKSPACE_ID,
    WORKSPACE_ID,
    make_key,
    make_management_key,
    make_record,
    some_credits,
    some_spend,
    uuid_of,
)

AT = 1_000.0
SECRET, OTHER_SECRET, THIRD_SECRET = b"1" * 32, b"2" * 32, b"3" * 32
PLENTY = 1_000_000


@pytest.fixture
def cache() -> KeyCache:
    """A cache that has room for whatever a test puts there."""
    return KeyCache(PLENTY, PLENTY)


def record_of(cache: KeyCache, revision: int = 7, key: Key | None = None, **changes: Any) -> Record:
    """Return a record as a load brings it that read it at a revision."""
    key = key or make_key()
    history = cache.history(key.workspace_id, revision, AT)
    return make_record(key, revision=revision, read_at=AT, history=history, **changes)


def credential_of(cache: KeyCache, revision: int = 7) -> Credential:
    """Return a credential as a load brings it that read it at a revision."""
    history = cache.history(WORKSPACE_ID, revision, AT)
    return Credential(make_management_key(), False, None, False, revision, AT, history)


def keep(cache: KeyCache, found: Mapping[bytes, Record], load: Load | None = None) -> None:
    """Bring what a load found, by default one that nothing came in between."""
    cache.add_records(list(found), found, load or cache.loading(AT))


def keep_credential(cache: KeyCache, credential: Credential, load: Load | None = None) -> None:
    cache.add_credentials([SECRET], {SECRET: credential}, load or cache.loading(AT))


def keep_keys(cache: KeyCache, *numbers: int) -> None:
    """Keep a key for each number, by a secret of that number."""
    for number in numbers:
        keep(cache, {secret_of(number): record_of(cache, key=make_key(key_id=uuid_of(100 + number)))})


def secret_of(number: int) -> bytes:
    return bytes([number]) * 32


def kept_numbers(cache: KeyCache) -> set[int]:
    return {number for number in range(1, 10) if cache.records.get(secret_of(number)) is not None}


def usable(cache: KeyCache, sha256: bytes = SECRET) -> bool:
    """Tell whether a secret's record is kept and was not dropped with its workspace."""
    record = cache.records.get(sha256)
    return record is not None and not record.history.dropped


def changed(kind: ChangeKind = ChangeKind.KEY_CHANGED, target: UUID = KEY_ID) -> Change:
    return Change(kind, target)


def apply(cache: KeyCache, revision: int, *changes: Change, workspace_id: UUID = WORKSPACE_ID) -> None:
    """Take account of the last changes up to a revision."""
    first = revision - len(changes) + 1
    numbered = [(first + at, change) for at, change in enumerate(changes)]
    cache.apply(Revision(workspace_id, revision), numbered)


def commit(cache: KeyCache, revision: int, *changes: Change, workspace_id: UUID = WORKSPACE_ID) -> None:
    cache.committed(Revision(workspace_id, revision), changes)


CHANGES = {
    "a change of the feed": apply,
    "a change of this process": commit,
}
either_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


# Room.


def test_what_was_not_used_for_longest_gives_way_to_what_comes() -> None:
    cache = KeyCache(3, PLENTY)
    keep_keys(cache, 1, 2, 3)
    cache.records.get(secret_of(1))

    keep_keys(cache, 4)

    assert kept_numbers(cache) == {1, 3, 4}
    assert len(cache.records) == 3


def test_what_made_room_and_what_a_change_dropped_are_counted_apart() -> None:
    cache = KeyCache(3, PLENTY)
    keep_keys(cache, 1, 2, 3, 4, 5)

    apply(cache, 8, changed(target=uuid_of(105)))

    assert kept_numbers(cache) == {3, 4}
    assert (cache.records.evicted, cache.records.invalidated) == (2, 1)


def test_what_comes_makes_room_for_its_bytes() -> None:
    cache = KeyCache(PLENTY, 0)
    size = footprint(record_of(cache))
    cache = KeyCache(PLENTY, 3 * size)

    keep_keys(cache, 1, 2, 3, 4)

    assert kept_numbers(cache) == {2, 3, 4}
    assert cache.records.bytes == 3 * size


def test_one_entry_is_kept_however_large_it_is() -> None:
    cache = KeyCache(PLENTY, 1)

    keep_keys(cache, 1, 2)

    assert kept_numbers(cache) == {2}


def test_an_entry_that_is_kept_anew_takes_its_room_once(cache: KeyCache) -> None:
    keep_keys(cache, 1)
    once = cache.records.bytes

    keep_keys(cache, 1)

    assert (cache.records.bytes, len(cache.records)) == (once, 1)
    assert cache.histories[WORKSPACE_ID].entries == 1


def test_more_text_takes_more_room(cache: KeyCache) -> None:
    short = record_of(cache)
    long = record_of(cache, key=make_key(KeyFields(scopes=("a" * 100,))), metadata="b" * 1_000)

    assert footprint(long) > footprint(short) + 1_100


def test_what_gave_way_is_not_looked_for_any_more() -> None:
    cache = KeyCache(1, PLENTY)
    keep_keys(cache, 1, 2)

    apply(cache, 8, changed(target=uuid_of(101)))

    assert kept_numbers(cache) == {2}
    assert cache.histories[WORKSPACE_ID].entries == 1


# What a change takes away.


@either_change
def test_a_change_of_a_key_drops_all_its_secrets_and_no_other_keys(cache: KeyCache, change: Any) -> None:
    record, other = record_of(cache), record_of(cache, key=make_key(key_id=OTHER_KEY_ID))
    keep(cache, {SECRET: record, OTHER_SECRET: record, THIRD_SECRET: other})

    change(cache, 8, changed())

    assert [usable(cache, sha256) for sha256 in (SECRET, OTHER_SECRET, THIRD_SECRET)] == [False, False, True]


@either_change
def test_a_change_of_an_identity_drops_its_keys(cache: KeyCache, change: Any) -> None:
    first, second = make_key(identity_id=IDENTITY_ID), make_key(key_id=OTHER_KEY_ID, identity_id=IDENTITY_ID)
    alone = make_key(key_id=uuid_of(23))
    keep(
        cache,
        dict(
            zip(
                (SECRET, OTHER_SECRET, THIRD_SECRET),
                (record_of(cache, key=key) for key in (first, second, alone)),
                strict=True,
            )
        ),
    )

    change(cache, 8, changed(ChangeKind.IDENTITY_CHANGED, IDENTITY_ID))

    assert [usable(cache, sha256) for sha256 in (SECRET, OTHER_SECRET, THIRD_SECRET)] == [False, False, True]


@either_change
def test_a_change_of_an_api_drops_nothing(cache: KeyCache, change: Any) -> None:
    record = record_of(cache)
    keep(cache, {SECRET: record})

    change(cache, 8, changed(ChangeKind.API_CHANGED, record.key.api_id))

    assert usable(cache)


@either_change
def test_a_change_of_a_management_key_drops_its_credential_and_no_key(cache: KeyCache, change: Any) -> None:
    keep(cache, {SECRET: record_of(cache)})
    keep_credential(cache, credential_of(cache))

    change(cache, 8, changed(ChangeKind.MANAGEMENT_KEY_CHANGED, MANAGEMENT_KEY_ID))

    assert cache.credentials.get(SECRET) is None
    assert usable(cache)


@either_change
def test_a_change_of_a_workspace_drops_everything_of_it_at_once_and_nothing_of_another(
    cache: KeyCache, change: Any
) -> None:
    keep(cache, {SECRET: record_of(cache)})
    keep(cache, {OTHER_SECRET: record_of(cache, key=make_key(workspace_id=OTHER_WORKSPACE_ID))})
    credential = credential_of(cache)
    keep_credential(cache, credential)

    change(cache, 8, changed(ChangeKind.WORKSPACE_CHANGED, WORKSPACE_ID))

    assert not usable(cache, SECRET)
    assert credential.history.dropped
    assert usable(cache, OTHER_SECRET)


@either_change
def test_what_was_read_with_a_change_survives_it(cache: KeyCache, change: Any) -> None:
    keep(cache, {SECRET: record_of(cache, revision=7)})
    keep(cache, {SECRET: record_of(cache, revision=8)})

    change(cache, 8, changed())

    assert usable(cache)


def test_one_change_of_several_at_once_counts_by_its_own_number(cache: KeyCache) -> None:
    keep(cache, {SECRET: record_of(cache, revision=7)})
    keep(cache, {OTHER_SECRET: record_of(cache, revision=8, key=make_key(key_id=OTHER_KEY_ID))})

    commit(cache, 9, changed(target=OTHER_KEY_ID), changed())

    assert [usable(cache, sha256) for sha256 in (SECRET, OTHER_SECRET)] == [False, True]


# Nothing older over newer.


@either_change
def test_a_load_begun_before_a_change_is_not_kept(cache: KeyCache, change: Any) -> None:
    cache.history(WORKSPACE_ID, 7, AT)
    load = cache.loading(AT)
    late = record_of(cache, revision=7)

    change(cache, 8, changed())
    keep(cache, {SECRET: late}, load)

    assert cache.records.get(SECRET) is None


@either_change
def test_a_load_that_read_a_change_is_kept(cache: KeyCache, change: Any) -> None:
    cache.history(WORKSPACE_ID, 7, AT)
    load = cache.loading(AT)
    new = record_of(cache, revision=8)

    change(cache, 8, changed())
    keep(cache, {SECRET: new}, load)

    assert usable(cache)


def test_a_load_begun_before_a_reset_is_not_kept(cache: KeyCache) -> None:
    load = cache.loading(AT)

    cache.drop_all()
    keep(cache, {SECRET: record_of(cache)}, load)
    keep_credential(cache, credential_of(cache), load)

    assert cache.records.get(SECRET) is None
    assert cache.credentials.get(SECRET) is None


def test_a_load_begun_before_its_workspace_was_dropped_is_not_kept(cache: KeyCache) -> None:
    keep(cache, {OTHER_SECRET: record_of(cache)})
    load = cache.loading(AT)

    cache.drop_workspace(WORKSPACE_ID)
    keep(cache, {SECRET: record_of(cache)}, load)

    assert cache.records.get(SECRET) is None
    assert not usable(cache, OTHER_SECRET)


@either_change
def test_nothing_from_before_a_change_of_the_workspace_returns(cache: KeyCache, change: Any) -> None:
    cache.history(WORKSPACE_ID, 7, AT)
    load = cache.loading(AT)
    early = record_of(cache, revision=7)

    change(cache, 8, changed(ChangeKind.WORKSPACE_CHANGED, WORKSPACE_ID))
    keep(cache, {SECRET: early, OTHER_SECRET: record_of(cache, revision=7)}, load)
    assert not usable(cache, SECRET)
    assert not usable(cache, OTHER_SECRET)

    keep(cache, {SECRET: record_of(cache, revision=8)}, load)
    assert usable(cache)


def test_a_change_made_here_counts_for_loads_of_a_workspace_of_which_nothing_was_known(cache: KeyCache) -> None:
    load = cache.loading(AT)

    commit(cache, 8, changed())
    keep(cache, {SECRET: record_of(cache, revision=7)}, load)

    assert cache.records.get(SECRET) is None


def test_a_mutation_that_changed_nothing_takes_nothing_away(cache: KeyCache) -> None:
    keep(cache, {SECRET: record_of(cache)})

    commit(cache, 7)

    assert usable(cache)


# What is not kept.


@pytest.mark.parametrize("budget", [{"credits": some_credits()}, {"spend": some_spend()}], ids=["credits", "spend"])
def test_what_a_budget_is_spent_on_is_never_kept(cache: KeyCache, budget: dict[str, Any]) -> None:
    keep(cache, {SECRET: record_of(cache, **budget)})

    assert cache.records.get(SECRET) is None
    assert not cache.unknown_key(SECRET, AT)


def test_a_secret_that_leads_nowhere_is_known_as_such_for_2_seconds_from_before_it_was_asked(cache: KeyCache) -> None:
    cache.add_records([SECRET], {}, cache.loading(AT))
    cache.add_credentials([OTHER_SECRET], {}, cache.loading(AT))

    assert cache.unknown_key(SECRET, AT + HARD_BOUND)
    assert not cache.unknown_key(SECRET, AT + HARD_BOUND + 0.001)
    assert cache.unknown_credential(OTHER_SECRET, AT + HARD_BOUND)
    assert not cache.unknown_credential(OTHER_SECRET, AT + HARD_BOUND + 0.001)


def test_an_unknown_key_says_nothing_of_a_credential_and_the_other_way_round(cache: KeyCache) -> None:
    cache.add_records([SECRET], {}, cache.loading(AT))
    cache.add_credentials([OTHER_SECRET], {}, cache.loading(AT))

    assert not cache.unknown_credential(SECRET, AT)
    assert not cache.unknown_key(OTHER_SECRET, AT)


ADDITIONS = {
    "a secret that the feed tells of": lambda cache: apply(cache, 8, changed(ChangeKind.SECRET_ADDED, OTHER_KEY_ID)),
    "a secret made here": lambda cache: commit(cache, 8, changed(ChangeKind.SECRET_ADDED, OTHER_KEY_ID)),
    "a management key": lambda cache: commit(cache, 8, changed(ChangeKind.MANAGEMENT_KEY_CHANGED, MANAGEMENT_KEY_ID)),
    "a notification": lambda cache: cache.forget_unknown(),
    "a reset": lambda cache: cache.drop_all(),
    "a dropped workspace": lambda cache: cache.drop_workspace(WORKSPACE_ID),
}
any_addition = pytest.mark.parametrize("add", ADDITIONS.values(), ids=ADDITIONS)


@any_addition
def test_after_any_addition_no_secret_is_called_unknown(cache: KeyCache, add: Any) -> None:
    cache.history(WORKSPACE_ID, 7, AT)
    cache.add_records([SECRET], {}, cache.loading(AT))
    cache.add_credentials([SECRET], {}, cache.loading(AT))

    add(cache)

    assert not cache.unknown_key(SECRET, AT)
    assert not cache.unknown_credential(SECRET, AT)


@any_addition
def test_a_load_under_way_at_an_addition_calls_nothing_unknown(cache: KeyCache, add: Any) -> None:
    cache.history(WORKSPACE_ID, 7, AT)
    load = cache.loading(AT)

    add(cache)
    cache.add_records([SECRET], {}, load)
    cache.add_credentials([SECRET], {}, load)

    assert not cache.unknown_key(SECRET, AT)
    assert not cache.unknown_credential(SECRET, AT)


# What is followed.


def test_a_workspace_is_followed_while_something_of_it_is_kept(cache: KeyCache) -> None:
    keep(cache, {SECRET: record_of(cache)})

    assert cache.followed((), AT + 10 * IDLE_SECONDS) == {WORKSPACE_ID: 7}
    assert usable(cache)


def test_a_workspace_of_which_nothing_is_kept_is_given_up_after_a_while(cache: KeyCache) -> None:
    keep(cache, {SECRET: record_of(cache)})
    cache.followed((), AT)
    apply(cache, 8, changed())

    assert cache.followed((), AT + IDLE_SECONDS) == {WORKSPACE_ID: 8}
    assert cache.followed((), AT + IDLE_SECONDS + 0.001) == {}
    assert cache.histories == {}


def test_a_watched_workspace_is_followed_for_as_long_as_it_is(cache: KeyCache) -> None:
    cache.history(WORKSPACE_ID, 7, AT)

    assert cache.followed({WORKSPACE_ID}, AT + 10 * IDLE_SECONDS) == {WORKSPACE_ID: 7}
    assert cache.followed({OTHER_WORKSPACE_ID}, AT + 10 * IDLE_SECONDS) == {WORKSPACE_ID: 7, OTHER_WORKSPACE_ID: 0}
    assert cache.followed((), AT + 12 * IDLE_SECONDS) == {}


def test_somebody_who_watches_everything_keeps_everything_followed(cache: KeyCache) -> None:
    cache.history(WORKSPACE_ID, 7, AT)

    assert cache.followed((), AT + 10 * IDLE_SECONDS, everything=True) == {WORKSPACE_ID: 7}


def test_the_highest_revision_met_is_that_of_loads_and_changes_too(cache: KeyCache) -> None:
    cache.history(WORKSPACE_ID, 7, AT)
    cache.history(WORKSPACE_ID, 9, AT)
    assert cache.followed((), AT) == {WORKSPACE_ID: 9}

    commit(cache, 11, changed())
    assert cache.followed((), AT) == {WORKSPACE_ID: 11}


def test_a_history_begins_where_something_was_first_read(cache: KeyCache) -> None:
    history = cache.history(WORKSPACE_ID, 7, AT)

    assert cache.history(WORKSPACE_ID, 9, AT + 1) is history
    assert (history.revision, history.floor, history.highest, history.confirmed_at) == (7, 7, 9, AT)


def test_of_two_loads_under_way_the_older_never_replaces_the_newer(cache: KeyCache) -> None:
    cache.history(WORKSPACE_ID, 7, AT)
    slow = cache.loading(AT)
    keep(cache, {SECRET: record_of(cache, revision=8)})
    keep_credential(cache, credential_of(cache, revision=8))

    keep(cache, {SECRET: record_of(cache, revision=7)}, slow)
    keep_credential(cache, credential_of(cache, revision=7), slow)

    record, credential = cache.records.get(SECRET), cache.credentials.get(SECRET)
    assert (record and record.revision, credential and credential.revision) == (8, 8)


def test_a_change_made_here_is_remembered_for_longer_than_a_load_takes(cache: KeyCache) -> None:
    load = cache.loading(AT)
    commit(cache, 8, changed())

    cache.followed((), AT)
    cache.followed((), AT + IDLE_SECONDS)
    keep(cache, {SECRET: record_of(cache, revision=7)}, load)

    assert cache.records.get(SECRET) is None


def test_a_load_under_way_when_a_workspace_is_given_up_is_not_kept(cache: KeyCache) -> None:
    cache.history(WORKSPACE_ID, 7, AT)
    load = cache.loading(AT + IDLE_SECONDS)
    commit(cache, 8, changed())

    cache.followed((), AT + IDLE_SECONDS + 0.001)
    keep(cache, {SECRET: record_of(cache, revision=7)}, load)

    assert cache.records.get(SECRET) is None


def test_the_metadata_of_a_key_and_of_its_identity_counts() -> None:
    plain = footprint(make_record())

    for record in (make_record(metadata="x" * 4_000), make_record(identity_metadata="x" * 4_000)):
        assert footprint(record) >= plain + 3_990
