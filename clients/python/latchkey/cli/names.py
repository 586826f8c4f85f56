"""Names of groups in an output: unambiguous, and without characters that a terminal obeys."""

import json

from latchkey.cli.report import Dimension, Filter, Group, Part

UNLABELED = "(unlabeled)"
NONE = "(none)"
OTHER = "(other)"
BEYOND = "(too many to tell)"
_OURS = frozenset({"unlabeled", "none", "other", "total"})


def label(text: str) -> str:
    """Return a text as it is, or in quotes where it could be taken for a word of ours or is not printable."""
    plain = text.isprintable() and text.strip() == text and text[:1] not in ("", "(", '"')
    return text if plain and text.casefold() not in _OURS else json.dumps(text, ensure_ascii=not text.isprintable())


def part_name(part: Part) -> str:
    """Return what a part of a group is called."""
    if part.beyond:
        return BEYOND
    if not part.text:
        return UNLABELED if part.dimension is Dimension.ENVIRONMENT else NONE
    return f"{label(part.name)} {part.text}" if part.name else label(part.text)


def flags(part: Part) -> list[str]:
    """Return what there is to know about a key: that it is deleted or revoked."""
    return [word for word, true in (("deleted", part.deleted), ("revoked", part.revoked)) if true]


def group_name(group: Group) -> str:
    """Return what a group is called in one line, as in a legend."""
    if group.other:
        return OTHER
    return " · ".join(_flagged(part) for part in group.parts)


def _flagged(part: Part) -> str:
    name = part_name(part)
    if part.dimension is Dimension.KEY and part.name:
        name = f"{label(part.name)} …{part.text[-6:]}"
    return " ".join([name, *(f"[{flag}]" for flag in flags(part))])


def filter_name(selected: Filter) -> str:
    """Return what is counted, in words; empty when everything is."""
    filters = []
    for dimension in Dimension:
        names = [label(text) if text else NONE for text in selected.values.get(dimension, ())]
        names += [UNLABELED] if selected.unlabeled and dimension is Dimension.ENVIRONMENT else []
        if names:
            filters.append(f"{dimension} {' or '.join(names)}")
    return ", ".join(filters)


def shown(text: str) -> str:
    """Return a text with characters escaped that are not printable, or that a terminal would obey."""
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
