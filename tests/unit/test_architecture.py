"""ARCHITECTURE.md speaks of what there is: its packages are the tree, and each file that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
SERVER = ROOT / "server" / "latchkey_server"


def test_its_table_names_every_package_and_no_other() -> None:
    named = set(re.findall(r"^\| `…/([a-z/_]+)` \|", TEXT, re.MULTILINE))
    packages = {str(init.parent.relative_to(SERVER)) for init in SERVER.rglob("__init__.py")} - {"."}

    assert named == packages


def test_every_file_that_it_names_exists() -> None:
    named = re.findall(r"`((?:domain|storage|transport|tests|docs|proto|clients)/[\w/.]+\.(?:py|md|proto))`", TEXT)
    roots = (SERVER, ROOT)

    assert len(named) > 40
    assert [name for name in named if not any((root / name).is_file() for root in roots)] == []
