"""The embedded default's pepper: complete or absent, for without it no secret is ever accepted again."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from latchkey_server.storage.embedded.private_file import create_private_file

STEPS = ["open", "fsync", "link"]


def test_a_private_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    create_private_file(tmp_path / "peppers", "p1:secret\n")

    assert (tmp_path / "peppers").read_text() == "p1:secret\n"
    assert stat.S_IMODE((tmp_path / "peppers").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["peppers"]


@pytest.mark.parametrize("step", STEPS)
def test_a_writing_that_fails_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as failing:
        failing.setattr(os, step, fail)
        with pytest.raises(OSError, match="no room"):
            create_private_file(tmp_path / "peppers", "p1:secret\n")
    left = os.listdir(tmp_path)
    create_private_file(tmp_path / "peppers", "p1:secret\n")

    assert left == []
    assert os.listdir(tmp_path) == ["peppers"]


@pytest.mark.parametrize("step", STEPS)
def test_a_process_that_dies_while_writing_leaves_no_half_file(tmp_path: Path, step: str) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from latchkey_server.storage.embedded.private_file import create_private_file\n"
        f"os.{step} = lambda *_, **__: os._exit(9)\n"
        "create_private_file(Path(sys.argv[1]), 'p1:secret')\n"
    )
    path = tmp_path / "peppers"

    died = subprocess.run([sys.executable, "-c", program, path], check=False)
    create_private_file(path, "p1:another")

    assert died.returncode == 9
    assert path.read_text() == "p1:another"


def test_a_private_file_is_never_replaced(tmp_path: Path) -> None:
    create_private_file(tmp_path / "peppers", "p1:first")

    with pytest.raises(FileExistsError):
        create_private_file(tmp_path / "peppers", "p1:second")

    assert (tmp_path / "peppers").read_text() == "p1:first"
