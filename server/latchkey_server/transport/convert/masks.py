"""Field masks: which fields an update changes, and applying them to a message."""

from collections.abc import Collection
from typing import TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from latchkey_server.domain import errors
from latchkey_server.domain.errors import Violation

M = TypeVar("M", bound=Message)

WHOLE = "*"
PATHS_MAX = 64


def paths_of(mask: FieldMask | None, sent: Message, mutable: Collection[str], at: str) -> list[str]:
    """Return the paths that an update changes: those of the mask, or without one the fields that were sent.

    ``mutable`` holds the paths that may be named; ``*`` stands for all of them. Raises InvalidField for any other, and
    for a switch that is named and not sent, by its path under ``at``: clearing it would mean one of its two states.
    """
    top_level = [path for path in mutable if "." not in path]
    if mask is None or not mask.paths:
        present = {descriptor.name for descriptor, _ in sent.ListFields()}
        return [path for path in top_level if path in present]
    if list(mask.paths) == [WHOLE]:
        return [path for path in top_level if not _unset_switch(sent, path)]
    if len(mask.paths) > PATHS_MAX:
        raise errors.InvalidField.one("update_mask", f"must have at most {PATHS_MAX} paths")
    wrong = [path for path in mask.paths if path not in mutable]
    if wrong:
        problem = "is not a field that can be changed"
        raise errors.InvalidField([Violation("update_mask", f"{path[:64]!r} {problem}") for path in wrong])
    paths = list(dict.fromkeys(mask.paths))
    unset = [path for path in paths if _unset_switch(sent, path)]
    if unset:
        problem = "is named by update_mask and must be true or false"
        raise errors.InvalidField([Violation(f"{at}.{path}", problem) for path in unset])
    return paths


def _unset_switch(sent: Message, path: str) -> bool:
    """Tell whether ``path`` is an `optional bool` without a value."""
    name, _, inner = path.partition(".")
    if inner:
        return _unset_switch(getattr(sent, name), inner)
    field = sent.DESCRIPTOR.fields_by_name[name]
    return field.type == field.TYPE_BOOL and field.has_presence and not sent.HasField(name)


def applied(sent: M, current: M, paths: Collection[str]) -> M:
    """Return ``current`` with the named fields as in ``sent``; what is named and absent there is cleared."""
    merged = type(current)()
    merged.CopyFrom(current)
    for path in paths:
        _replace(sent, merged, path.split("."))
    return merged


def _replace(sent: Message, merged: Message, names: list[str]) -> None:
    name, *inner = names
    if inner:
        _replace(getattr(sent, name), getattr(merged, name), inner)
        return
    merged.ClearField(name)
    if name in {descriptor.name for descriptor, _ in sent.ListFields()}:
        part = type(sent)()
        part.CopyFrom(sent)
        for descriptor, _ in sent.ListFields():
            if descriptor.name != name:
                part.ClearField(descriptor.name)
        merged.MergeFrom(part)
