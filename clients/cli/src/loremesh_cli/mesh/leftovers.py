"""Ends what a supervisor that was killed has left running."""

import logging
import signal

from loremesh_cli.mesh.home import Home
from loremesh_cli.mesh.processes import ProcessId, sweep_group
from loremesh_cli.mesh.state import read

# PostgreSQL takes SIGINT for "disconnect everybody and close"; to the others it means the same as SIGTERM.
GENTLE = signal.SIGINT
GENTLE_SECONDS = 10.0
HARD_SECONDS = 5.0

logger = logging.getLogger("mesh")


def found(home: Home) -> dict[str, ProcessId]:
    """Return the recorded processes which still run, the last started first."""
    state = read(home.state)
    parts = reversed(state.parts.items()) if state else ()
    return {name: part.process for name, part in parts if part.process is not None and part.process.alive()}


def end(home: Home) -> list[str]:
    """End them, front door first; return their names."""
    ended = []
    for name, process in found(home).items():
        logger.warning("ending %s (process %d), left over from a mesh whose supervisor was killed", name, process.pid)
        process.signal(GENTLE)
        if not process.wait(GENTLE_SECONDS):
            process.signal(signal.SIGKILL)
            process.wait(HARD_SECONDS)
        sweep_group(process.pid)
        ended.append(name)
    return ended
