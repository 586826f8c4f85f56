"""Field masks: what is named changes, what is not named stays (spec §2)."""

from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import assume, given
from hypothesis import strategies as st

from latchkey.v1 import key_pb2
from latchkey_server.domain.errors import InvalidField
from latchkey_server.transport.convert.key import MUTABLE
from latchkey_server.transport.convert.masks import applied, paths_of

TOP_LEVEL = [path for path in MUTABLE if "." not in path]
NESTED = [path for path in MUTABLE if "." in path]


@st.composite
def keys(draw: st.DrawFn) -> key_pb2.Key:
    """A key message with any of its fields set, absent, or set to nothing."""
    text = st.none() | st.sampled_from(["", "a", "b"])
    key = key_pb2.Key(
        name=draw(text),
        environment=draw(text),
        enabled=draw(st.none() | st.booleans()),
        guardrail_id=draw(text),
        external_id=draw(text),
        member=draw(text),
        scopes=draw(st.lists(st.sampled_from(["x", "y"]), max_size=2)),
        allow_ips=draw(st.lists(st.just("10.0.0.1"), max_size=1)),
    )
    if draw(st.booleans()):
        if draw(st.booleans()):
            key.model_limits.enabled = draw(st.booleans())
        else:
            key.model_limits.SetInParent()
        key.model_limits.models.extend(draw(st.lists(st.sampled_from(["m", "n"]), max_size=2)))
    if draw(st.booleans()):
        key.expire_time.seconds = draw(st.integers(0, 3))
    if draw(st.booleans()):
        key.metadata.update({"n": draw(st.integers(0, 3))})
    if draw(st.booleans()):
        key.credits.amount = draw(st.integers(0, 3))
    return key


def present(key: key_pb2.Key) -> set[str]:
    return {descriptor.name for descriptor, _ in key.ListFields()}


@given(keys(), keys(), st.sets(st.sampled_from(TOP_LEVEL)))
def test_named_fields_are_as_sent_and_all_others_as_they_were(
    sent: key_pb2.Key, current: key_pb2.Key, named: set[str]
) -> None:
    assume(sent.HasField("enabled") or "enabled" not in named)
    result = applied(sent, current, paths_of(FieldMask(paths=named), sent, MUTABLE, "key") if named else [])

    for field in TOP_LEVEL:
        source = sent if field in named else current
        assert getattr(result, field) == getattr(source, field), field
        assert (field in present(result)) == (field in present(source)), field


@given(keys(), keys())
def test_without_a_mask_the_fields_that_are_present_change(sent: key_pb2.Key, current: key_pb2.Key) -> None:
    result = applied(sent, current, paths_of(None, sent, MUTABLE, "key"))

    for field in TOP_LEVEL:
        source = sent if field in present(sent) else current
        assert getattr(result, field) == getattr(source, field), field


@given(keys(), keys())
def test_a_star_replaces_every_field_that_can_be_changed_but_an_unset_switch(
    sent: key_pb2.Key, current: key_pb2.Key
) -> None:
    result = applied(sent, current, paths_of(FieldMask(paths=["*"]), sent, MUTABLE, "key"))

    expected = key_pb2.Key()
    expected.CopyFrom(sent)
    if not sent.HasField("enabled") and current.HasField("enabled"):
        expected.enabled = current.enabled
    assert result == expected


@given(keys(), keys(), st.sets(st.sampled_from(NESTED), min_size=1))
def test_a_nested_path_changes_nothing_beside_it(sent: key_pb2.Key, current: key_pb2.Key, named: set[str]) -> None:
    assume(sent.model_limits.HasField("enabled") or "model_limits.enabled" not in named)
    result = applied(sent, current, paths_of(FieldMask(paths=named), sent, MUTABLE, "key"))

    for path in NESTED:
        outer, inner = path.split(".")
        source = sent if path in named else current
        assert getattr(getattr(result, outer), inner) == getattr(getattr(source, outer), inner), path
    for field in set(TOP_LEVEL) - {path.partition(".")[0] for path in named}:
        assert getattr(result, field) == getattr(current, field), field


@given(keys(), st.sets(st.sampled_from(MUTABLE), min_size=1))
def test_a_switch_that_is_named_and_not_sent_is_refused_by_name(sent: key_pb2.Key, named: set[str]) -> None:
    switches = {"enabled": sent, "model_limits.enabled": sent.model_limits}
    unset = {path for path, holder in switches.items() if path in named and not holder.HasField("enabled")}
    refused: set[str] = set()
    try:
        paths_of(FieldMask(paths=named), sent, MUTABLE, "key")
    except InvalidField as error:
        refused = {violation.field for violation in error.violations}

    assert refused == {f"key.{path}" for path in unset}


@given(keys(), keys(), st.sets(st.sampled_from(TOP_LEVEL)))
def test_applying_a_mask_twice_is_applying_it_once(sent: key_pb2.Key, current: key_pb2.Key, named: set[str]) -> None:
    paths = sorted(named)
    once = applied(sent, current, paths)

    assert applied(sent, once, paths) == once
