"""`status`: what runs where."""

import typer

from loremesh_cli.commands.options import AsJson, DataDir, home_of
from loremesh_cli.mesh import front_door, lifecycle
from loremesh_cli.mesh.state import Phase
from loremesh_cli.output import Output
from loremesh_cli.overview import describe, show


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
        output.say(f"\nThe front door: {front_door.message_of(answer)}", style="red")
    if not ready or state.phase is not Phase.READY:
        raise typer.Exit(1)
