"""A mesh at a glance: for programs, for people, and while it moves."""

from rich.table import Table
from rich.text import Text

from loremesh_cli.mesh.processes import own_bytes, tree_bytes
from loremesh_cli.mesh.state import GOOD, MeshState, Part, Phase
from loremesh_cli.output import Output

STYLES = {Phase.READY: "green", Phase.FAILED: "red", Phase.RESTARTING: "yellow", Phase.STOPPED: "dim"}
MEBIBYTE = 1024 * 1024


def describe(state: MeshState) -> dict[str, object]:
    """Return a mesh's state for programs."""
    processes = [
        {
            "name": name,
            "phase": part.phase,
            "address": part.address,
            "pid": part.process.pid if part.process else None,
            "memory_bytes": tree_bytes(part.process.pid) if part.process else 0,
            "restarts": part.restarts,
            "message": part.message,
        }
        for name, part in _lasting(state).items()
    ]
    supervisor = (
        {"pid": state.supervisor.pid, "memory_bytes": own_bytes(state.supervisor.pid)} if state.supervisor else None
    )
    return {
        "phase": state.phase,
        "url": state.gateway_url,
        "supervisor": supervisor,
        "processes": processes,
        "external": state.external,
    }


def show(state: MeshState, output: Output) -> None:
    """Print what runs where."""
    table = Table("what", "state", "where", "process", "memory", "", box=None, pad_edge=False)
    total = 0
    for name, part in _lasting(state).items():
        memory = tree_bytes(part.process.pid) if part.process else 0
        total += memory
        note = f"restarted {part.restarts} times: {part.message}" if part.restarts else part.message
        phase = Text(part.phase, style=STYLES.get(part.phase, ""))
        pid = str(part.process.pid) if part.process else ""
        table.add_row(name, phase, part.address, pid, f"{memory // MEBIBYTE} MB", note.partition("\n")[0])
    for name, place in state.external.items():
        table.add_row(name, "outside", place)
    table.add_row("", "", "", "", f"{total // MEBIBYTE} MB")
    output.console.print(table)


def _lasting(state: MeshState) -> dict[str, Part]:
    """Return the parts of a mesh without the steps of its start that are done."""
    return {name: part for name, part in state.parts.items() if part.phase is not Phase.DONE}


STARTS = frozenset({Phase.READY, Phase.DONE, Phase.RESTARTING, Phase.FAILED})
STOPS = frozenset({Phase.STOPPED})


class Progress:
    """Prints a line for each part of a mesh when it enters one of the `phases`."""

    def __init__(self, output: Output, phases: frozenset[Phase] = STARTS) -> None:
        self._output = output
        self._phases = phases
        self._shown: set[tuple[str, Phase, int]] = set()

    def seen(self, state: MeshState) -> None:
        """Print what is new in a state."""
        for name, part in state.parts.items():
            news = (name, part.phase, part.restarts)
            if part.phase in self._phases and news not in self._shown:
                self._shown.add(news)
                self._output.say(self._line(name, part), style=STYLES.get(part.phase, ""))

    def _line(self, name: str, part: Part) -> str:
        seconds = f"{part.seconds:5.1f} s" if part.phase in GOOD else ""
        why = part.message.partition("\n")[0] if part.phase in (Phase.RESTARTING, Phase.FAILED) else ""
        return f"  {name:<18} {part.phase:<10} {seconds}{why}".rstrip()
