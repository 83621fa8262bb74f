"""`doctor`: what could keep a mesh from running on this machine, and how the one that runs does."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from loremesh_cli.commands.lifecycle import Port
from loremesh_cli.commands.options import AsJson, DataDir, home_of
from loremesh_cli.mesh import envoy, front_door, leftovers, lifecycle, local_model, postgres
from loremesh_cli.mesh.home import Home, repository
from loremesh_cli.mesh.plan import outside
from loremesh_cli.mesh.ports import is_free
from loremesh_cli.mesh.program import script
from loremesh_cli.mesh.state import MeshState, Phase
from loremesh_cli.output import Output

GIBIBYTE = 1024**3
DISK_BYTES = 2 * GIBIBYTE
MEMORY_BYTES = 2 * GIBIBYTE
MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "failed": ("FAILED", "red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `outcome` is ok, warning or failed, `hint` says what to do about it."""

    check: str
    outcome: str
    found: str
    hint: str = ""


def doctor(*, data_dir: DataDir = None, port: Port = 8080, as_json: AsJson = False) -> None:
    """Check this machine and the mesh on it; the status is 1 when something must be changed."""
    output, home = Output(as_json=as_json), home_of(data_dir)
    findings = list(examine(home, port))
    output.result({"findings": [asdict(finding) for finding in findings]})
    for finding in findings:
        mark, style = MARKS[finding.outcome]
        output.say(f"{mark:<8} {finding.check:<15} {finding.found}", style=style)
        if finding.hint:
            output.say(f"{'':<24} {finding.hint}")
    if any(finding.outcome == "failed" for finding in findings):
        raise typer.Exit(1)


def examine(home: Home, port: int) -> Iterator[Finding]:
    """Yield what every check finds."""
    yield _python()
    yield _clone()
    yield _writable(home)
    yield _disk(home)
    yield _memory()
    yield from _servers()
    mesh = lifecycle.find(home)
    state = mesh.state() if mesh else None
    if state is None:
        yield _port(port)
        yield _left_over(home)
    else:
        yield from _parts(state)
        yield from _dependencies(state)


def _python() -> Finding:
    fits = (3, 11) <= sys.version_info < (3, 15)
    return Finding(
        "python", "ok" if fits else "failed", platform.python_version(), "" if fits else "use Python 3.11 to 3.14"
    )


def _clone() -> Finding:
    clone = repository()
    if clone is None:
        return Finding("clone", "failed", "none", "`up` needs the repository; the other commands do not")
    return Finding("clone", "ok", str(clone))


def _writable(home: Home) -> Finding:
    writable = os.access(_existing(home.root), os.W_OK | os.X_OK)
    hint = "" if writable else "no permission to write there: choose another with --data-dir"
    return Finding("data directory", "ok" if writable else "failed", str(home.root), hint)


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())


def _disk(home: Home) -> Finding:
    free = shutil.disk_usage(_existing(home.root)).free
    enough = free >= DISK_BYTES
    return Finding(
        "disk", "ok" if enough else "warning", f"{free / GIBIBYTE:.1f} GiB free", "" if enough else "2 GiB are wanted"
    )


def _memory() -> Finding:
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    enough = free >= MEMORY_BYTES
    hint = "" if enough else "a mesh with its local model takes about 1.6 GiB"
    return Finding("memory", "ok" if enough else "warning", f"{free / GIBIBYTE:.1f} GiB available", hint)


def _servers() -> Iterator[Finding]:
    programs: dict[str, Callable[[], Path]] = {
        "postgres": lambda: postgres.binaries() / "postgres",
        "nats": lambda: Path(script("nats-server")),
        "seaweedfs": lambda: Path(script("weed")),
        "gateway": envoy.binary,
        "local-model": local_model.weights,
    }
    absent = outside(os.environ)
    for name, find in programs.items():
        if name in absent:
            yield Finding(name, "ok", f"outside: {absent[name]}")
            continue
        try:
            path = find()
        except (ModuleNotFoundError, PermissionError) as error:
            yield Finding(name, "failed", "cannot be run", str(error))
            continue
        there = path.exists()
        yield Finding(name, "ok" if there else "failed", str(path), "" if there else "run scripts/up to install it")


def _port(port: int) -> Finding:
    free = is_free(port)
    return Finding(
        "port", "ok" if free else "failed", f"{port} is {'free' if free else 'taken'}", "" if free else "use --port"
    )


def _left_over(home: Home) -> Finding:
    names = ", ".join(leftovers.found(home))
    hint = "a supervisor was killed; the next `up` or `down` ends them" if names else ""
    return Finding("left over", "warning" if names else "ok", names or "nothing", hint)


def _parts(state: MeshState) -> Iterator[Finding]:
    for name, part in state.parts.items():
        if part.phase is Phase.DONE:
            continue
        outcome = "ok" if part.phase is Phase.READY else "failed"
        hint = f"loremesh logs {name}" if outcome == "failed" else ""
        restarts = f", restarted {part.restarts} times ({part.message})" if part.restarts else ""
        yield Finding(name, outcome, f"{part.phase} at {part.address}{restarts}", hint)


def _dependencies(state: MeshState) -> Iterator[Finding]:
    """Yield what the front door says of each service's dependencies."""
    ready, answer = front_door.ask(state.gateway_port)
    if not ready:
        yield Finding("front door", "failed", f"{state.gateway_url}/ready says no", front_door.message_of(answer))
        return
    yield Finding("front door", "ok", f"{state.gateway_url}/ready says ready")
    for component in json.loads(answer).get("components", ()):
        if names := ", ".join(each["name"] for each in component.get("dependencies", ())):
            yield Finding(f"{component['name']} uses", "ok", f"{names}: ready")
