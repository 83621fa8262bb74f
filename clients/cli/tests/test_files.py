"""Which files are meant, and how they are read."""

import os
from pathlib import Path

import pytest
from loremesh_cli import files
from loremesh_cli.errors import UsageError

pytestmark = pytest.mark.unit


def test_folders_are_walked_without_what_is_hidden_or_empty_or_no_document(tmp_path: Path) -> None:
    for name in ("b.md", "a/c.txt", ".git/config", "a/.hidden", "node_modules/x.js", "a/__pycache__/y.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "a" / "empty.txt").touch()
    assert files.find([tmp_path]) == [tmp_path / "b.md", tmp_path / "a" / "c.txt"]


def test_a_file_named_twice_is_taken_once_and_a_named_hidden_one_is_taken(tmp_path: Path) -> None:
    hidden = tmp_path / ".notes.md"
    hidden.write_text("text")
    assert files.find([hidden, hidden]) == [hidden]


def test_a_path_which_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        files.find([tmp_path / "missing"])


@pytest.mark.parametrize("size", [0, 1, files.PIECE_BYTES, files.PIECE_BYTES + 1])
def test_the_pieces_of_a_file_are_the_file(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    pieces = list(files.pieces(tmp_path / "file"))
    assert b"".join(pieces) == content
    assert 1 <= len(pieces) <= size // files.PIECE_BYTES + 1
