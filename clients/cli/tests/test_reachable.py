"""Programs made reachable for an account that cannot walk into ours."""

import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loremesh_cli.mesh.reachable import reachable

pytestmark = pytest.mark.unit


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder everybody can walk to; pytest's own are closed."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def installed(place: Path) -> Path:
    program = place / "package" / "bin" / "program"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh")
    program.chmod(0o700)
    return place


def test_what_everybody_can_reach_is_used_where_it_is(open_folder: Path) -> None:
    base = installed(open_folder)
    (base / "package" / "bin" / "program").chmod(0o755)
    assert reachable([base / "package"], base=base, name="copy", place=open_folder / "shared") == base


def test_what_nobody_can_reach_is_copied_once_and_opened(tmp_path: Path, open_folder: Path) -> None:
    tmp_path.chmod(0o700)
    base = installed(tmp_path)
    arguments = {"base": base, "name": "copy", "place": open_folder / "shared"}
    copy = reachable([base / "package"], **arguments)
    program = copy / "package" / "bin" / "program"
    assert copy == open_folder / "shared" / "copy"
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    program.write_text("as it was copied first")
    assert reachable([base / "package"], **arguments) == copy
    assert program.read_text() == "as it was copied first"


def test_files_of_an_installation_with_a_strict_umask_are_copied_too(open_folder: Path) -> None:
    base = installed(open_folder / "base")
    assert reachable([base / "package"], base=base, name="copy", place=open_folder) == open_folder / "copy"


def test_where_the_place_cannot_be_reached_either_it_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(PermissionError, match="closed"):
        reachable([installed(tmp_path) / "package"], base=tmp_path, name="copy", place=tmp_path / "closed")
