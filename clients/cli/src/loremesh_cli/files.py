"""The files a person means by some paths: folders are walked, what is never a document is left out."""

import hashlib
import mimetypes
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from loremesh_cli.errors import UsageError

NEVER = frozenset({"__pycache__", "node_modules"})
PIECE_BYTES = 256 * 1024
LIMIT_BYTES = 100 * 1024 * 1024


def find(paths: Sequence[Path]) -> list[Path]:
    """Return the named files, and in named folders every file that is not hidden and not empty, each once.

    Raises UsageError for a path which is not there or may not be read.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder", reason="NO_SUCH_FILE")
        if not os.access(path, os.R_OK):
            raise UsageError(f"{path}: no permission to read it", reason="NOT_READABLE")
        found |= dict.fromkeys(_walk(path) if path.is_dir() else (path,))
    return list(found)


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in NEVER)
        paths = (Path(root) / name for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if path.is_file() and path.stat().st_size)


def legible(path: Path | str) -> str:
    """Return a path as text: the bytes of a name that is no UTF-8 as escapes, so that no two are the same."""
    return os.fsencode(path).decode(errors="backslashreplace")


def sha256(path: Path) -> str:
    """Return the digest of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pieces(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes in pieces the mesh takes; one empty piece for an empty file."""
    with path.open("rb") as file:
        piece = file.read(PIECE_BYTES)
        yield piece
        while piece := file.read(PIECE_BYTES):
            yield piece


def media_type(path: Path) -> str:
    """Return the type a file's name suggests; the mesh decides by content."""
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"
