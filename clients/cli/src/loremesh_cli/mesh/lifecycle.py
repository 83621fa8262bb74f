"""Starts a mesh's supervisor as a process of its own, watches it from outside, and ends it."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loremesh_cli.errors import CommandError
from loremesh_cli.mesh import leftovers
from loremesh_cli.mesh.home import Home, repository
from loremesh_cli.mesh.logfiles import last_words
from loremesh_cli.mesh.ports import is_free
from loremesh_cli.mesh.processes import ProcessId
from loremesh_cli.mesh.running import leash
from loremesh_cli.mesh.state import MeshState, Phase, read

START_SECONDS = 240.0
STOP_SECONDS = 90.0
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class RunningMesh:
    """A supervisor somebody started, and the data directory it holds."""

    home: Home
    supervisor: ProcessId
    log_start: int = 0

    def state(self) -> MeshState | None:
        """Return what it last published, None before the first time."""
        state = read(self.home.state)
        return state if state is not None and state.supervisor == self.supervisor else None

    def watch(self, *, seconds: float) -> Iterator[MeshState]:
        """Yield the state again and again, until the supervisor is gone or the time is up."""
        deadline = time.monotonic() + seconds
        while self.supervisor.alive() and time.monotonic() < deadline:
            if state := self.state():
                yield state
            time.sleep(POLL_SECONDS)


def find(home: Home) -> RunningMesh | None:
    """Return the mesh which runs in a data directory."""
    pid = home.holder()
    supervisor = ProcessId.of(pid) if pid else None
    return RunningMesh(home, supervisor) if supervisor else None


def start(home: Home, *, gateway_port: int, tied: bool = False) -> RunningMesh:
    """Start a supervisor in the background; `tied`: it stops when this process ends, however that happens.

    Raises HomeError and CommandError, each saying what to do.
    """
    if repository() is None:
        message = "`up` runs a mesh out of a clone of the repository: the gateway's configuration is there"
        raise CommandError(message, reason="NOT_A_CLONE")
    home.make()
    if not is_free(gateway_port) and not leftovers.found(home):
        message = f"port {gateway_port} is taken by another program: choose another with --port"
        raise CommandError(message, reason="PORT_TAKEN")
    command = [sys.executable, "-m", "loremesh_cli.mesh", str(home.root), str(gateway_port)]
    log_start = home.log("mesh").stat().st_size if home.log("mesh").exists() else 0
    supervisor = ProcessId.of(_spawn([*(leash(signal.SIGTERM) if tied else ()), *command], log=home.log("mesh")))
    if supervisor is None:
        raise CommandError(f"the supervisor did not start:\n{last_words(home.log('mesh'))}", reason="START_FAILED")
    return RunningMesh(home, supervisor, log_start)


def _spawn(command: list[str], *, log: Path) -> int:
    """Start a process in a session of its own, which may outlive ours, and return its id."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), append, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(command[0], command, os.environ, file_actions=files, setsid=True)


def wait_until_up(mesh: RunningMesh, *, seen: Callable[[MeshState], None]) -> MeshState:
    """Wait until everything is ready, calling `seen` with each state on the way.

    Raises CommandError when a part is given up, the supervisor ends, or it takes too long.
    """
    for state in mesh.watch(seconds=START_SECONDS):
        seen(state)
        if state.phase is Phase.READY:
            return state
        if failures := state.failures():
            words = "\n\n".join(f"{name} {part.message}" for name, part in failures.items())
            raise CommandError(words, reason="START_FAILED")
        if state.phase is Phase.STOPPING:
            raise CommandError("the mesh was told to stop while it started", reason="STOPPED")
    if mesh.supervisor.alive():
        raise CommandError(f"the mesh was not ready after {START_SECONDS:.0f} s: see `loremesh status`", reason="SLOW")
    with mesh.home.log("mesh").open("rb") as log:
        log.seek(mesh.log_start)
        words = log.read().decode(errors="replace").strip()
    raise CommandError(f"the mesh could not be started:\n{words}", reason="START_FAILED")


def stop(mesh: RunningMesh, *, seen: Callable[[MeshState], None] = lambda _: None) -> None:
    """Have everything stopped in order; whatever still runs after a minute and a half is killed."""
    mesh.supervisor.signal(signal.SIGTERM)
    for state in mesh.watch(seconds=STOP_SECONDS):
        seen(state)
    if not mesh.supervisor.wait(0):
        mesh.supervisor.signal(signal.SIGKILL)
        mesh.supervisor.wait(5)
    if last := mesh.state():
        seen(last)
    leftovers.end(mesh.home)
    _reap(mesh.supervisor.pid)


def _reap(pid: int) -> None:
    """Take note of the end of a child of ours; a mesh started by another process is not."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def end_leftovers(home: Home) -> list[str]:
    """End what a killed supervisor left running where no mesh is up; return the names."""
    return leftovers.end(home) if home.root.exists() else []
