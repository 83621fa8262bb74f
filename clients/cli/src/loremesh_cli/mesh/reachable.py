"""Installed folders made reachable for any account: nobody cannot walk into a home of mode 0700."""

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path


def reachable(folders: Sequence[Path], *, base: Path, name: str, place: Path) -> Path:
    """Return a folder below which `folders` lie as they do below `base`, and which any account can walk to.

    That is `base` itself where it can be reached, else a copy in `place`, made once. Raises PermissionError when that
    cannot be reached either.
    """
    if all(_walkable(folder) and _readable(folder) for folder in folders):
        return base
    if not _walkable(place):
        message = f"no other account can reach {base}, nor {place}"
        raise PermissionError(message)
    copy = place / name
    if not copy.exists():
        fresh = place / f"{name}.{os.getpid()}"
        for folder in folders:
            shutil.copytree(folder, fresh / folder.relative_to(base))
        for path in (place, fresh, *fresh.rglob("*")):
            _open_to_all(path)
        try:
            fresh.rename(copy)
        except OSError:  # another mesh was first
            shutil.rmtree(fresh)
    return copy


def _walkable(path: Path) -> bool:
    """Tell whether any account may walk to where `path` is or would be."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents if parent.exists())


def _readable(folder: Path) -> bool:
    """Tell whether any account may read what is in a folder: whoever installed it may have had a umask of 077."""
    return all(path.stat().st_mode & stat.S_IROTH for path in (folder, *folder.rglob("*")))


def _open_to_all(path: Path) -> None:
    """Let everybody read, and enter or run, what its owner may."""
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)
