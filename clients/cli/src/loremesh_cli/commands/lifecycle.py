"""`up` and `down`: the mesh on this machine."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from loremesh_cli import tour
from loremesh_cli.commands.options import AsJson, DataDir, home_of
from loremesh_cli.errors import CommandError
from loremesh_cli.mesh import lifecycle, logfiles
from loremesh_cli.mesh.home import Home
from loremesh_cli.mesh.state import MeshState
from loremesh_cli.output import Output
from loremesh_cli.overview import STOPS, Progress, describe, show

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
    output, home, complete = Output(as_json=as_json), home_of(data_dir), True
    if mesh := lifecycle.find(home):
        output.say(f"The mesh in {home.root} is up already.\n")
        state = lifecycle.wait_until_up(mesh, seen=lambda _: None)
    else:
        mesh = lifecycle.start(home, gateway_port=port, tied=foreground)
        state = _bring_up(mesh, output)
        if tour_wanted is not False and (tour_wanted or not tour.taken(home)) and not as_json:
            complete = _take_tour(home, state, output)
    output.result(describe(state))
    show(state, output)
    output.say()
    for line in tour.next_steps(state.gateway_url, home):
        output.say(line)
    if foreground:
        _stay(mesh, output)
    if not complete:
        raise typer.Exit(1)


def _take_tour(home: Home, state: MeshState, output: Output) -> bool:
    """Take the tour; when it breaks off the mesh stays up, and False is returned."""
    try:
        tour.take(state.gateway_url, home=home, output=output)
    except CommandError as error:
        output.say(f"\nThe tour ended early: {error}\n", style="red")
        return False
    return True


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
    try:
        with _terminated_as_interrupted():
            output.say("\nCtrl-C stops the mesh.")
            for log, line in logfiles.follow([mesh.home.log("mesh")], until=lambda: not mesh.supervisor.alive()):
                output.say(f"{log}: {line}")
        output.say("The mesh has stopped.")
    except KeyboardInterrupt:
        output.say("Stopping ...")
        lifecycle.stop(mesh, seen=Progress(output, STOPS).seen)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM (a container's stop, a service manager's) as Ctrl-C, and that even where a shell had it ignored."""
    signals = (signal.SIGTERM, signal.SIGINT)
    earlier = [signal.signal(each, signal.default_int_handler) for each in signals]
    try:
        yield
    finally:
        for each, handler in zip(signals, earlier, strict=True):
            signal.signal(each, handler)


def down(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Stop the mesh: the front door first, the stores last. Its data stay."""
    output, home = Output(as_json=as_json), home_of(data_dir)
    mesh = lifecycle.find(home)
    if mesh is None:
        ended = lifecycle.end_leftovers(home)
        output.result({"stopped": False, "ended": ended})
        output.say(f"No mesh is running in {home.root}.")
        return
    lifecycle.stop(mesh, seen=Progress(output, STOPS).seen)
    output.result({"stopped": True, "ended": []})
    output.say("Stopped.")
