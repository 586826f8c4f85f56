"""The glossary: one word an idea, each explained once (docs/glossary.md)."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (?P<word>[^|]+?) \| (?P<meaning>[^|]+?) \|$", re.MULTILINE)


def test_words_are_in_alphabetical_order_and_each_is_explained_once() -> None:
    found = [row["word"] for row in ROW.finditer((ROOT / "docs/glossary.md").read_text())]
    words = [word for word in found if word not in ("word", "---")]

    assert len(words) > 30
    assert words == sorted(set(words))
