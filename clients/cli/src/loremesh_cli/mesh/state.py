"""What the supervisor tells the world about its mesh: one JSON file, replaced as a whole."""

import json
import os
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from loremesh_cli.mesh.processes import ProcessId


class Phase(StrEnum):
    """Where one part of the mesh, or the mesh as a whole, is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DONE = "done"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


GOOD = frozenset({Phase.READY, Phase.DONE})


@dataclass(slots=True)
class Part:
    """One process (or one step of the start, which ends as DONE)."""

    phase: Phase = Phase.WAITING
    process: ProcessId | None = None
    address: str = ""
    restarts: int = 0
    seconds: float = 0.0
    message: str = ""


@dataclass(slots=True)
class MeshState:
    """The mesh as a whole; `external` names what it uses instead of a server of its own, without secrets."""

    phase: Phase = Phase.STARTING
    supervisor: ProcessId | None = None
    gateway_port: int = 0
    ports: dict[str, int] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def gateway_url(self) -> str:
        """Return the address of the front door."""
        return f"http://127.0.0.1:{self.gateway_port}"

    def failures(self) -> dict[str, Part]:
        """Return the parts that have been given up."""
        return {name: part for name, part in self.parts.items() if part.phase is Phase.FAILED}


def write(path: Path, state: MeshState) -> None:
    """Replace the file: a reader sees the old or the new one, whole."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w") as file:
        json.dump(asdict(state), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read(path: Path) -> MeshState | None:
    """Return the last written state; None when there is none, or none that can be read."""
    try:
        loaded = json.loads(path.read_text())
        parts = {name: _part(part) for name, part in loaded.pop("parts").items()}
        phase, supervisor = Phase(loaded.pop("phase")), _process(loaded.pop("supervisor"))
        return MeshState(phase=phase, supervisor=supervisor, parts=parts, **loaded)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _part(loaded: dict[str, object]) -> Part:
    phase, process = Phase(str(loaded.pop("phase"))), _process(loaded.pop("process"))
    return Part(phase=phase, process=process, **loaded)  # type: ignore[arg-type]


def _process(loaded: object) -> ProcessId | None:
    return ProcessId(**loaded) if isinstance(loaded, dict) else None
