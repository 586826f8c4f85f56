"""No field of a key, a verification or an event is forgotten in any code that lists fields by name.

The tests walk the descriptors: a field that is added to a proto fails here until all of that code knows it, and each
failure names what does not.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from latchkey import v1
from latchkey.v1 import key_pb2, usage_pb2, verification_pb2
from latchkey.v1 import verify_service_pb2 as pb
from latchkey_server.domain import ids
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.keys import fields as key_fields
from latchkey_server.domain.keys.maker import KeyDraft
from latchkey_server.domain.model import CreditState, KeyFields, KeyStatus, KeyView, ModelLimits
from latchkey_server.domain.outcomes.notes import VerificationNotes
from latchkey_server.domain.snapshots import snapshot
from latchkey_server.domain.usage.event import UsageEvent, content_hash
from latchkey_server.domain.usage.report import UsageRecord
from latchkey_server.domain.validation import Violations
from latchkey_server.domain.verify.decide import decide
from latchkey_server.domain.verify.model import Record
from latchkey_server.observability import Metrics
from latchkey_server.storage.verify.cache import footprint
from latchkey_server.transport.convert.key import MUTABLE, key_message, read_draft
from latchkey_server.transport.convert.usage import read_event, record_message
from latchkey_server.transport.verify.fast_path import FastPath
from latchkey_server.transport.verify.reader import read_item
from latchkey_server.transport.verify.writer import answer_bytes, decided_bytes
from tests.property.transport.verify.test_fast_path import OneRecord
from tests.support.filling import IMMUTABLE, behaves, fill, filled, inputs, names, outputs, overridden, within
from tests.unit.builders import (
    API_ID,
    IDENTITY_ID,
    KEY_ID,
    NOW,
    OTHER_API_ID,
    OTHER_WORKSPACE_ID,
    REVOCATION,
    WORKSPACE_ID,
    make_caller,
    make_identity,
    make_key,
    make_ratelimit,
    make_record,
    make_secret,
    some_spend,
)

CALLER = make_caller()
KEY_TEXT, API_TEXT = ids.format_id(ids.KEY, KEY_ID), ids.format_id(ids.API, API_ID)
WORKSPACE_TEXT = ids.format_id(ids.WORKSPACE, WORKSPACE_ID)
DESCRIPTORS = {
    descriptor.name: descriptor
    for module in (key_pb2, verification_pb2, usage_pb2, pb)
    for descriptor in module.DESCRIPTOR.message_types_by_name.values()
}

NOT_BUILT_YET = {
    "retry_after",
    "reservation",
    "ratelimits.remaining",
    "ratelimits.reset_time",
    "ratelimits.exceeded",
    *(f"reservation.{name}" for name in names(verification_pb2.Reservation.DESCRIPTOR)),
}
"""Fields of an answer that belong to limits, which are not enforced yet."""


def test_values_are_given_by_hand_only_to_fields_that_there_are() -> None:
    assert [path for path in overridden() if path[1] not in names(DESCRIPTORS[path[0]])] == []
    assert v1.__name__ == "latchkey.v1"


def key_of(*fields: str) -> key_pb2.Key:
    """Return a key message with some fields set."""
    message = key_pb2.Key()
    for field in fields:
        fill(message, field)
    if message.api_id:
        message.api_id = API_TEXT
    return message


def draft_of(message: key_pb2.Key) -> KeyDraft:
    draft = read_draft(message)
    assert draft.found == ()
    return draft


def view_of(fields: KeyFields, **facts: Any) -> KeyView:
    """Return a key as KeyService returns it, with everything that is derived or kept beside it."""
    key = make_key(fields, identity_id=IDENTITY_ID, revocation=REVOCATION, delete_time=NOW, **facts)
    secret = make_secret(end_time=NOW)
    return KeyView(key, (secret,), KeyStatus.DELETED, CreditState(5, NOW), some_spend(3), NOW)


@pytest.mark.parametrize("field", inputs(key_pb2.Key.DESCRIPTOR))
def test_every_field_of_a_key_is_read(field: str) -> None:
    assert draft_of(key_of(field)) != draft_of(key_pb2.Key()), (
        f"Key.{field} is not read: transport/convert/key.py, read_key_fields or read_draft"
    )


@pytest.mark.parametrize("field", inputs(key_pb2.Key.DESCRIPTOR))
def test_every_field_of_a_key_outlives_its_normalisation(field: str) -> None:
    found = Violations()
    given = draft_of(key_of(field)).fields

    assert key_fields.normalized(given, found) == given, f"Key.{field} is altered: domain/keys/fields.py, normalized"
    assert found.found == []


@pytest.mark.parametrize("field", inputs(key_pb2.Key.DESCRIPTOR))
def test_every_field_of_a_key_is_shown(field: str) -> None:
    sent = key_of(field)
    draft = draft_of(sent)
    shown = key_message(view_of(draft.fields, prefix=draft.prefix or "sk"))

    assert getattr(shown, field) == getattr(sent, field), (
        f"Key.{field} is not shown as it was sent: transport/convert/key.py, fields_message or key_message"
    )


@pytest.mark.parametrize("field", outputs(key_pb2.Key.DESCRIPTOR))
def test_every_field_of_a_key_that_is_not_sent_is_shown(field: str) -> None:
    shown = dict(key_message(view_of(draft_of(key_pb2.Key(external_id="customer-1")).fields)).ListFields())

    assert field in {descriptor.name for descriptor in shown}, (
        f"Key.{field} is not shown: transport/convert/key.py, key_message"
    )


@pytest.mark.parametrize("field", inputs(key_pb2.Key.DESCRIPTOR))
def test_every_field_of_a_key_that_may_change_has_a_path_for_masks(field: str) -> None:
    fixed = behaves(key_pb2.Key.DESCRIPTOR.fields_by_name[field], IMMUTABLE)

    assert (field in MUTABLE) is not fixed, f"Key.{field}: transport/convert/key.py, MUTABLE"


@pytest.mark.parametrize("field", inputs(key_pb2.Key.DESCRIPTOR))
def test_every_field_of_a_key_is_in_its_audit(field: str) -> None:
    draft, plain = draft_of(key_of(field)), draft_of(key_pb2.Key())
    facts = [
        snapshot(make_key(item.fields, prefix=item.prefix, api_id=item.api_id or KEY_ID)) for item in (draft, plain)
    ]

    assert facts[0] != facts[1], f"Key.{field} is not in audit: domain/snapshots.py"


def record_of(message: key_pb2.Key) -> Record:
    """Return a record as the cache holds one, of a key with these fields and an identity."""
    draft = draft_of(message)
    identity = make_identity(make_ratelimit("of the identity"), external_id=draft.fields.external_id or "customer-1")
    key = make_key(
        replace(draft.fields, metadata={}),
        prefix=draft.prefix or "sk",
        identity_id=IDENTITY_ID,
    )
    text = "{}" if not draft.fields.metadata else '{"metadata": "first"}'
    return make_record(
        key, identity=identity, secret_end_time=NOW + timedelta(days=1), metadata=text, identity_metadata='{"a": 1}'
    )


def everything() -> key_pb2.Key:
    message = key_pb2.Key()
    filled(message, "api_id", "credits", "spend_limit", "ratelimits")
    # A verified key tells no presence of its switch: only what is on can be seen.
    message.enabled = True
    return message


def slow(record: Record, request: pb.VerifyRequest) -> verification_pb2.Verification:
    """Return what the slow path answers."""
    item = read_item(request.SerializeToString())
    assert not isinstance(item, LatchkeyError)
    verdict = decide(record, item.question, make_caller(), NOW)
    raw = answer_bytes(verdict, decided_bytes(NOW), omit_metadata=item.question.omit_metadata)
    return pb.VerifyResponse.FromString(raw).verification


@pytest.mark.parametrize("field", names(verification_pb2.VerifiedKey.DESCRIPTOR))
def test_every_field_of_a_verified_key_is_written(field: str) -> None:
    revoked = replace(record_of(everything()).key, revocation=REVOCATION)
    shown = slow(replace(record_of(everything()), key=revoked), pb.VerifyRequest(key="sk_secret")).key

    assert field in {descriptor.name for descriptor, _ in shown.ListFields()}, (
        f"VerifiedKey.{field} is not written: transport/verify/writer.py, _verified_key"
    )


SHARED = sorted(set(names(verification_pb2.VerifiedKey.DESCRIPTOR)) & set(inputs(key_pb2.Key.DESCRIPTOR)) - {"api_id"})
"""The fields that a verified key has from its key, by the same name."""


@pytest.mark.parametrize("field", SHARED)
def test_every_field_of_a_verified_key_is_what_its_key_has(field: str) -> None:
    sent = key_of(field)

    assert getattr(slow(record_of(sent), pb.VerifyRequest(key="sk_secret")).key, field) == getattr(sent, field), (
        f"VerifiedKey.{field} is not what the key has: transport/verify/writer.py, _verified_key"
    )


def lengthen(message: Any, field: Any) -> int:
    """Make a field as long as none would be, and return by how many bytes; 0 for one whose size is fixed."""
    long = "x" * 10_000
    if field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct":
        getattr(message, field.name).update({"long": long})
    elif field.message_type is not None:
        texts = [inner for inner in field.message_type.fields if inner.cpp_type == inner.CPPTYPE_STRING]
        if field.is_repeated or not texts:
            return 0
        return sum(lengthen(getattr(message, field.name), inner) for inner in texts)
    elif field.cpp_type != field.CPPTYPE_STRING:
        return 0
    elif field.is_repeated:
        getattr(message, field.name).append(long)
    else:
        setattr(message, field.name, long)
    return len(long)


@pytest.mark.parametrize("field", [*SHARED, "external_id"])
def test_every_field_of_a_verified_key_counts_in_the_cache_s_footprint(field: str) -> None:
    message = key_pb2.Key()
    longer = lengthen(message, key_pb2.Key.DESCRIPTOR.fields_by_name[field])
    draft = read_draft(message)
    metadata = "x" * 10_000 if field == "metadata" else "{}"
    key = make_key(replace(draft.fields, metadata={}), prefix=draft.prefix or "sk")

    grown = footprint(make_record(key, metadata=metadata)) - footprint(make_record())

    # The answer that is kept ready counts when it is made.
    assert grown >= 0.95 * longer, f"VerifiedKey.{field} is not counted: storage/verify/cache.py, footprint"


@pytest.mark.parametrize(
    "facts",
    [
        {"key": make_key(KeyFields(ratelimits=(make_ratelimit("x" * 10_000),)))},
        {"identity": make_identity(make_ratelimit("x" * 10_000))},
        {"key": make_key(revocation=replace(REVOCATION, note="x" * 10_000))},
        {"identity_metadata": "x" * 10_000},
    ],
    ids=["a limit of the key", "a limit of its identity", "the note of its revocation", "its identity's metadata"],
)
def test_whatever_else_a_record_holds_counts_in_the_cache_s_footprint(facts: dict[str, Any]) -> None:
    assert footprint(make_record(**facts)) - footprint(make_record()) >= 9_900


def _nothing(_request: pb.VerifyRequest) -> None:
    """Need nothing more."""


QUESTION_VALUES: dict[str, Callable[[pb.VerifyRequest], None]] = {
    "api_id": lambda request: setattr(request, "api_id", API_TEXT),
    "min_revision": lambda request: setattr(request.min_revision, "workspace_id", WORKSPACE_TEXT),
    "estimated_cost": lambda request: setattr(request, "operation_id", "op-1"),
}
"""What a field of a request needs beside a value that its type gives."""


def asking(field: str, *, second: bool = False) -> pb.VerifyRequest:
    """Return a request in which one field is set beside the secret, to one of two values."""
    request = pb.VerifyRequest(key="sk_secret")
    if field != "key":
        fill(request, field, second=second)
    QUESTION_VALUES.get(field, _nothing)(request)
    return request


@pytest.mark.parametrize("field", names(pb.VerifyRequest.DESCRIPTOR))
def test_every_field_of_a_verification_s_request_is_read(field: str) -> None:
    plain = pb.VerifyRequest(key="another" if field == "key" else "sk_secret")
    items = [read_item(request.SerializeToString()) for request in (asking(field), plain)]

    assert not any(isinstance(item, LatchkeyError) for item in items)
    assert items[0] != items[1], f"VerifyRequest.{field} is not read: transport/verify/reader.py, _question"


@pytest.mark.parametrize(("field", "inner"), within(pb.VerifyRequest.DESCRIPTOR))
def test_every_field_inside_a_field_of_a_verification_s_request_is_read(field: str, inner: str) -> None:
    requests = [asking(field), asking(field)]
    value = getattr(requests[1], field)
    changed = value[0] if pb.VerifyRequest.DESCRIPTOR.fields_by_name[field].is_repeated else value
    changed.ClearField(inner)
    fill(changed, inner, second=True)
    if inner == "workspace_id":
        changed.workspace_id = ids.format_id(ids.WORKSPACE, OTHER_WORKSPACE_ID)
    items = [read_item(request.SerializeToString()) for request in requests]

    assert not any(isinstance(item, LatchkeyError) for item in items)
    assert items[0] != items[1], f"VerifyRequest.{field}.{inner} is not read: transport/verify/reader.py, _question"


def record_with(**fields: Any) -> Record:
    """Return a record that nothing refuses and nothing limits, of a key with these fields."""
    return make_record(make_key(KeyFields(**fields)), metadata='{"a": 1}')


ALTERING: dict[str, Callable[[], Record]] = {
    "api_id": lambda: make_record(make_key(api_id=OTHER_API_ID)),
    "required_scopes": lambda: record_with(scopes=("any_of-first",)),
    "environments": lambda: record_with(environment="environments-first"),
    "client_ip": lambda: record_with(allow_ips=("203.0.113.7",)),
    "model": lambda: record_with(model_limits=ModelLimits(True, ("model-first",))),
    "omit_metadata": record_with,
}
"""Fields that alter an answer from the cache, and a record for which they do."""

COUNTED = {"model", "tags", "dry_run"}
"""Fields that alter how a verification is counted."""

ASKED_ANEW = {"ratelimits", "explain", "min_revision", "max_staleness", "operation_id", "estimated_cost"}
"""Fields with which no ready answer is given."""

OTHERWISE = {
    "key": "finds the record",
    "cost": "counts where something is limited, and then no ready answer is given",
}


def fast_path(record: Record) -> tuple[FastPath, VerificationNotes]:
    notes = VerificationNotes()
    return FastPath(OneRecord(record), notes, Metrics(), lambda: NOW), notes


def in_turns(field: str) -> list[bytes]:
    """Return two questions with a field and one that asks nothing more, three times in turns."""
    requests = [asking(field), asking(field, second=True), pb.VerifyRequest(key="sk_secret")]
    for request in requests:
        assert not isinstance(read_item(request.SerializeToString()), LatchkeyError)
    return [request.SerializeToString() for request in requests] * 3


def test_of_every_field_of_a_verification_s_request_it_is_known_what_it_alters() -> None:
    known = {*ALTERING, *COUNTED, *ASKED_ANEW, *OTHERWISE}

    assert known == set(names(pb.VerifyRequest.DESCRIPTOR)), (
        "a field of VerifyRequest is new or gone: say above whether it alters the answer, the count, or neither"
    )


@pytest.mark.parametrize("field", ALTERING)
def test_a_ready_answer_to_one_question_is_never_given_to_one_that_differs_in_a_field(field: str) -> None:
    record = ALTERING[field]()
    expected = [slow(record, pb.VerifyRequest.FromString(raw)) for raw in in_turns(field)]
    fast, _ = fast_path(record)
    answers = [fast.result(raw, CALLER, 0.0) for raw in in_turns(field)]

    assert expected[0] != expected[1] or expected[0] != expected[2], (
        f"VerifyRequest.{field} alters no answer here: choose another record"
    )
    for raw, wanted in zip(answers, expected, strict=True):
        # To whom there is no such key, nothing is cached about it either.
        assert (raw is None) is (wanted.code == verification_pb2.VERIFY_CODE_NOT_FOUND)
        assert raw is None or pb.VerifyResponse.FromString(raw).verification == wanted, (
            f"VerifyRequest.{field} alters an answer and not the ready one: transport/verify/fast_path.py or reader.py"
        )


@pytest.mark.parametrize("field", sorted(COUNTED))
def test_a_ready_answer_is_counted_by_what_its_question_asks(field: str) -> None:
    record = record_with()
    expected = VerificationNotes()
    for raw in in_turns(field):
        item = read_item(raw)
        assert not isinstance(item, LatchkeyError)
        if not item.question.dry_run:
            expected.note(CALLER, item.question, "", decide(record, item.question, CALLER, NOW))
    fast, notes = fast_path(record)
    answers = [fast.result(raw, CALLER, 0.0) for raw in in_turns(field)]

    assert None not in answers
    assert notes.counter.take() == expected.counter.take(), (
        f"VerifyRequest.{field} alters a count and not that of the ready answer: transport/verify/fast_path.py"
    )


@pytest.mark.parametrize("field", sorted(ASKED_ANEW))
def test_some_fields_ask_for_more_than_a_ready_answer(field: str) -> None:
    fast, _ = fast_path(record_with())

    answers = [fast.result(raw, CALLER, 0.0) for raw in in_turns(field)]

    assert [raw is None for raw in answers] == [True, True, False] * 3, (
        f"VerifyRequest.{field} is answered from the cache"
    )


@pytest.mark.parametrize("field", names(pb.VerifyRequest.DESCRIPTOR))
def test_of_what_is_limited_no_ready_answer_is_given(field: str) -> None:
    record = make_record(make_key(KeyFields(ratelimits=(make_ratelimit("name-first"),))))
    fast, _ = fast_path(record)

    assert [fast.result(raw, CALLER, 0.0) for raw in in_turns(field)] == [None] * 9


@pytest.mark.parametrize(
    "field", sorted(set(names(verification_pb2.Verification.DESCRIPTOR)) - NOT_BUILT_YET - {"credits_remaining"})
)
def test_every_field_of_a_verification_is_written(field: str) -> None:
    budgets = {"credits": CreditState(5, None), "spend": some_spend(3)}
    key = make_key(KeyFields(ratelimits=(make_ratelimit(),)))
    explained = slow(make_record(key, **budgets), pb.VerifyRequest(key="sk_secret", explain=True))
    reusable = slow(make_record(), pb.VerifyRequest(key="sk_secret"))
    written = {descriptor.name for answer in (explained, reusable) for descriptor, _ in answer.ListFields()}

    assert field in written, f"Verification.{field} is not written: transport/verify/writer.py"
    assert explained.credits_remaining == 5


@pytest.mark.parametrize(
    ("message", "field", "inner"),
    [
        *(("Verification", *path) for path in within(verification_pb2.Verification.DESCRIPTOR) if path[0] != "key"),
        *(("VerifiedKey", *path) for path in within(verification_pb2.VerifiedKey.DESCRIPTOR)),
    ],
)
def test_every_field_inside_a_field_of_a_verification_is_written(message: str, field: str, inner: str) -> None:
    record = replace(
        record_of(everything()), credits=CreditState(5, None), spend=replace(some_spend(3), window_end=NOW)
    )
    answer = slow(record, pb.VerifyRequest(key="sk_secret", explain=True))
    value = getattr(answer if message == "Verification" else answer.key, field)
    held = value[0] if DESCRIPTORS[message].fields_by_name[field].is_repeated else value

    written = {descriptor.name for descriptor, _ in held.ListFields()}
    assert inner in written or f"{field}.{inner}" in NOT_BUILT_YET, (
        f"{message}.{field}.{inner} is not written: transport/verify/writer.py"
    )


def event_of(field: str, *, second: bool = False) -> usage_pb2.UsageEvent:
    """Return an event that is accepted, with one field at one of two values."""
    message = usage_pb2.UsageEvent()
    filled(message, "requests", "cached_tokens", field)
    fill(message, field, second=second)
    message.key_id = KEY_TEXT
    if field == "key_id" and second:
        message.key_id = ids.format_id(ids.KEY, WORKSPACE_ID)
    if field == "type" and second:
        message.type = usage_pb2.USAGE_TYPE_REFUND
    return message


def read(message: usage_pb2.UsageEvent) -> UsageEvent:
    event = read_event(message.SerializeToString())
    assert not isinstance(event, LatchkeyError)
    return event


@pytest.mark.parametrize("field", names(usage_pb2.UsageEvent.DESCRIPTOR))
def test_every_field_of_an_event_is_read(field: str) -> None:
    assert read(event_of(field)) != read(event_of(field, second=True)), (
        f"UsageEvent.{field} is not read: transport/convert/usage.py, read_event"
    )


@pytest.mark.parametrize("field", sorted(set(names(usage_pb2.UsageEvent.DESCRIPTOR)) - {"source", "event_id"}))
def test_every_field_of_an_event_beside_its_identity_tells_two_events_apart(field: str) -> None:
    assert content_hash(read(event_of(field))) != content_hash(read(event_of(field, second=True))), (
        f"UsageEvent.{field} is not part of an event's content: domain/usage/event.py, content_hash"
    )


@pytest.mark.parametrize("field", names(usage_pb2.UsageEvent.DESCRIPTOR))
def test_every_field_of_an_event_is_shown(field: str) -> None:
    sent = event_of(field)
    shown = record_message(UsageRecord(read(sent), NOW, "")).event

    assert getattr(shown, field) == getattr(sent, field), (
        f"UsageEvent.{field} is not shown as it was sent: transport/convert/usage.py, record_message"
    )
