"""A private file that is complete or absent, whatever ends the process that writes it."""

import os
import secrets
from pathlib import Path

from latchkey_server.storage.embedded.data_directory import sync_folder


def create_private_file(path: Path, text: str) -> None:
    """Create a file that only its owner may read, on disk when this returns; raises FileExistsError if it exists."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write(draft, text)
        # Not a rename, which would replace what another process created meanwhile.
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
