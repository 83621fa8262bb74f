"""`up`, `down`, `status`, `logs`: the mesh on this machine."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.table import Table

from loremesh_cli import tour
from loremesh_cli.commands.options import AsJson, DataDir, home_of
from loremesh_cli.errors import CommandError, UsageError
from loremesh_cli.mesh import front_door, lifecycle, logfiles
from loremesh_cli.mesh.home import HomeError
from loremesh_cli.mesh.processes import resident_bytes
from loremesh_cli.mesh.state import MeshState, Phase
from loremesh_cli.output import Output

STYLES = {Phase.READY: "green", Phase.FAILED: "red", Phase.RESTARTING: "yellow", Phase.STOPPED: "dim"}
MEBIBYTE = 1024 * 1024

Port = Annotated[int, typer.Option(min=1, max=65535, help="Port of the front door.")]
Foreground = Annotated[bool, typer.Option("--foreground", help="Stay attached and stop the mesh on Ctrl-C.")]
Tour = Annotated[
    bool | None,
    typer.Option("--tour/--no-tour", help="Put documents in and ask a question; the first time by default."),
]


def up(
    *,
    foreground: Foreground = False,
    data_dir: DataDir = None,
    port: Port = 8080,
    tour_wanted: Tour = None,
    as_json: AsJson = False,
) -> None:
    """Start a mesh on this machine and return when it is ready."""
    output, home = Output(as_json=as_json), home_of(data_dir)
    if mesh := lifecycle.find(home):
        output.say(f"The mesh in {home.root} is up already.")
        state = lifecycle.wait_until_up(mesh, seen=Progress(output).seen)
    else:
        with _plain_errors():
            mesh = lifecycle.start(home, gateway_port=port, tied=foreground)
        state = _bring_up(mesh, output)
        if tour_wanted is not False and (tour_wanted or not tour.taken(home)) and not as_json:
            tour.take(state.gateway_url, home=home, output=output)
    output.result(describe(state))
    show(state, output)
    output.say()
    for line in tour.next_steps(state.gateway_url):
        output.say(line)
    if foreground:
        _stay(mesh, output)


def _bring_up(mesh: lifecycle.RunningMesh, output: Output) -> MeshState:
    """Wait until the mesh is up; when it is not coming up, or nobody wants to wait, take it down again."""
    began = time.monotonic()
    try:
        with _terminated_as_interrupted():
            state = lifecycle.wait_until_up(mesh, seen=Progress(output).seen)
    except (CommandError, KeyboardInterrupt):
        lifecycle.stop(mesh)
        raise
    output.say(f"Ready in {time.monotonic() - began:.1f} s at {state.gateway_url}\n", style="bold green")
    return state


def _stay(mesh: lifecycle.RunningMesh, output: Output) -> None:
    output.say("\nCtrl-C stops the mesh.")
    try:
        with _terminated_as_interrupted():
            for log, line in logfiles.follow([mesh.home.log("mesh")]):
                output.say(f"{log}: {line}")
                if not mesh.supervisor.alive():
                    raise CommandError("the supervisor ended", reason="SUPERVISOR_ENDED")
    except KeyboardInterrupt:
        output.say("Stopping ...")
        lifecycle.stop(mesh, seen=Progress(output).seen)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM (a container's or a service manager's stop) as Ctrl-C."""
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except HomeError as error:
        raise CommandError(str(error), reason="DATA_DIRECTORY_UNUSABLE") from error


class Progress:
    """Prints a line for each part of a mesh when it has got somewhere."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._shown: dict[str, tuple[Phase, int]] = {}

    def seen(self, state: MeshState) -> None:
        """Print what is new in a state."""
        for name, part in state.parts.items():
            new = (part.phase, part.restarts)
            if part.phase in (Phase.WAITING, Phase.STARTING, Phase.STOPPING) or self._shown.get(name) == new:
                continue
            self._shown[name] = new
            seconds = f"{part.seconds:5.1f} s" if part.phase in (Phase.READY, Phase.DONE) else " " * 7
            first = part.message.partition("\n")[0] if part.phase in (Phase.RESTARTING, Phase.FAILED) else ""
            self._output.say(
                f"  {name:<18} {part.phase:<10} {seconds} {first}".rstrip(), style=STYLES.get(part.phase, "")
            )


def down(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Stop the mesh: the front door first, the stores last. Its data stay."""
    output, home = Output(as_json=as_json), home_of(data_dir)
    mesh = lifecycle.find(home)
    if mesh is None:
        ended = lifecycle.end_leftovers(home)
        output.result({"stopped": False, "ended": ended})
        output.say(f"No mesh is running in {home.root}.")
        return
    lifecycle.stop(mesh, seen=Progress(output).seen)
    output.result({"stopped": True, "ended": []})
    output.say("Stopped.")


def status(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show what runs where and how it does; the status is 0 when everything is ready, else 1."""
    output, home = Output(as_json=as_json), home_of(data_dir)
    mesh = lifecycle.find(home)
    state = mesh.state() if mesh else None
    if state is None:
        output.result({"phase": "stopped", "data_dir": str(home.root)})
        output.say(f"No mesh is running in {home.root}.")
        raise typer.Exit(1)
    ready, answer = front_door.ask(state.gateway_port)
    output.result(describe(state) | {"data_dir": str(home.root), "front_door_ready": ready})
    show(state, output)
    if not ready:
        output.say(f"\nThe front door says it is not ready: {answer}", style="red")
    if not ready or state.phase is not Phase.READY:
        raise typer.Exit(1)


def describe(state: MeshState) -> dict[str, object]:
    """Return a mesh's state for programs."""
    parts = {
        name: {
            "phase": part.phase,
            "address": part.address,
            "pid": part.process.pid if part.process else None,
            "memory_bytes": resident_bytes(part.process.pid) if part.process else 0,
            "restarts": part.restarts,
            "message": part.message,
        }
        for name, part in state.parts.items()
    }
    return {"phase": state.phase, "url": state.gateway_url, "external": state.external, "parts": parts}


def show(state: MeshState, output: Output) -> None:
    """Print what runs where."""
    table = Table("what", "state", "where", "process", "memory", "", box=None, pad_edge=False)
    total = 0
    for name, part in state.parts.items():
        if part.phase is Phase.DONE:
            continue
        memory = resident_bytes(part.process.pid) if part.process else 0
        total += memory
        note = f"restarted {part.restarts} times; {part.message}" if part.restarts else part.message
        style = STYLES.get(part.phase, "")
        pid = str(part.process.pid) if part.process else ""
        table.add_row(
            name, f"[{style}]{part.phase}[/]" if style else part.phase, part.address, pid,
            f"{memory // MEBIBYTE} MB", note.partition("\n")[0],
        )  # fmt: skip
    for name, place in state.external.items():
        table.add_row(name, "outside", place)
    table.add_row("", "", "", "", f"{total // MEBIBYTE} MB")
    output.console.print(table)


def logs(
    service: Annotated[
        str, typer.Argument(help="A part of the mesh, as `status` names it; all of them by default.")
    ] = "",
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines of each.")] = 20,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the last lines of the parts' logs."""
    output, home = Output(as_json=as_json), home_of(data_dir)
    chosen = [home.log(service)] if service else sorted(home.logs.glob("*.log"))
    if missing := [log.stem for log in chosen if not log.exists()]:
        known = ", ".join(sorted(log.stem for log in home.logs.glob("*.log"))) or "none yet"
        raise UsageError(f"there is no log of {missing[0]!r}; there are: {known}", reason="NO_SUCH_LOG")
    for log in chosen:
        for line in logfiles.tail(log, count=lines):
            _print_line(output, log.stem, line)
    for name, line in logfiles.follow(chosen) if follow else ():
        _print_line(output, name, line)


def _print_line(output: Output, name: str, line: str) -> None:
    output.result({"part": name, "line": line})
    output.say(f"{name}: {line}")
    sys.stdout.flush()
