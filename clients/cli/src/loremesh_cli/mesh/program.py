"""What one process of the mesh is: how it is run, when it is ready, how it is stopped."""

import os
import pwd
import signal
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PASSED_ON = ("HOME", "LANG", "LC_ALL", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ")


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system account a process runs as."""

    user: int
    group: int
    name: str

    @classmethod
    def unprivileged(cls, directory: Path) -> "Account | None":
        """Return who runs a program that refuses root: `nobody`, or who owns its `directory` already.

        None means "the account we already are", which is not root then.
        """
        if os.geteuid() != 0:
            return None
        owner = directory.stat().st_uid if directory.exists() else 0
        entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
        return cls(user=entry.pw_uid, group=entry.pw_gid, name=entry.pw_name)


def plain_environment(**more: str) -> dict[str, str]:
    """Return the few variables any server may see, and `more`: a caller's PGHOST or S3 keys must not steer ours."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | more


def script(name: str) -> str:
    """Return the path of a command that was installed into this Python's environment."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def package_folder(name: str) -> Path:
    """Return the folder of an installed package without importing it. Raises ModuleNotFoundError with advice."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        message = f"the package {name} is not installed: install loremesh-cli[embedded]"
        raise ModuleNotFoundError(message)
    return Path(spec.origin).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One process: `ready` asks it once, quickly, whether it can take work; times are in seconds."""

    name: str
    command: tuple[str, ...]
    ready: Callable[[], bool] = bool  # steps are never ready: they end
    environment: Mapping[str, str] = field(default_factory=plain_environment)
    directory: Path | None = None
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    start_seconds: float = 30.0
    stop_seconds: float = 10.0
    before_stop: Callable[[], None] | None = None
    leftovers: tuple[Path, ...] = ()  # files it does not remove itself

    def clean_up(self) -> None:
        """Remove what an ended process left behind."""
        for path in self.leftovers:
            path.unlink(missing_ok=True)

    def process_options(self) -> dict[str, Any]:
        """Return the keyword arguments which `subprocess` needs to run it in a session of its own."""
        options: dict[str, Any] = {
            "env": dict(self.environment),
            "cwd": str(self.directory) if self.directory else None,
            "start_new_session": True,
        }
        if self.account is not None:
            options |= {"user": self.account.user, "group": self.account.group, "extra_groups": []}
        return options
