"""The data directory of a mesh: what lies where, and who holds it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loremesh_cli.errors import CommandError

DEFAULT_NAME = ".loremesh"


class HomeError(CommandError):
    """The data directory cannot be used; the message says why and what to do."""


class Home:
    """Names everything below one data directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.state = self.root / "mesh.json"
        self.lock = self.root / "mesh.lock"
        self.secrets = self.root / "secrets.json"
        self.logs = self.root / "logs"
        self.build = self.root / "build"
        self.descriptor = self.build / "descriptor.binpb"
        self.envoy = self.build / "envoy.yaml"

    def log(self, name: str) -> Path:
        """Return the log file of one process."""
        return self.logs / f"{name}.log"

    def make(self) -> None:
        """Make the directory where it is missing, for its owner alone: it holds people's documents.

        Raises HomeError when it cannot be written to.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.logs, self.build):
                folder.mkdir(exist_ok=True)
            probe = self.root / f".write-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            message = (
                f"cannot write to the data directory {self.root} ({error.strerror}): choose another with --data-dir"
            )
            raise HomeError(message, reason="DATA_DIRECTORY_UNUSABLE") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the directory for this process; the kernel lets go of it however we end. Raises HomeError."""
        with self.lock.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                message = f"another mesh is running on {self.root}"
                raise HomeError(message, reason="DATA_DIRECTORY_UNUSABLE") from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def holder(self) -> int | None:
        """Return the process id of the supervisor that holds this directory, None when nobody does."""
        if not self.lock.exists():
            return None
        with self.lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(file.read().strip() or 0) or None
            return None


def default_root() -> Path:
    """Return $LOREMESH_HOME, or `.loremesh` in the clone this package is run from, or in the current directory."""
    if chosen := os.environ.get("LOREMESH_HOME"):
        return Path(chosen)
    clone = repository()
    return (clone or Path.cwd()) / DEFAULT_NAME


def repository() -> Path | None:
    """Return the clone this package is installed from, None when it was installed without one."""
    candidates = Path(__file__).resolve().parents
    return next((folder for folder in candidates if (folder / "gateway" / "envoy.yaml").exists()), None)
