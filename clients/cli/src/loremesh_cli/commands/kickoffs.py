"""What `crew run` and `flow run` have in common: options for inputs, and what is done with a run that was accepted."""

from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from loremesh.crew.v1 import run_pb2 as pb

from loremesh_cli import run_watching, tour
from loremesh_cli.output import Output

Inputs = Annotated[
    list[str],
    typer.Option("--input", "-i", metavar="NAME=TEXT", help="An input; NAME=@FILE takes a file's text. Repeatable."),
]
InputsFile = Annotated[
    Path | None, typer.Option("--inputs", help="JSON, YAML or TOML with inputs; - for standard input.")
]
Example = Annotated[bool, typer.Option("--example", help="Take its example inputs for those not given.")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Print the run's id and leave.")]
Revision = Annotated[int, typer.Option(min=0, help="This revision; the current one by default.")]


def new_key() -> list[tuple[str, str]]:
    """Metadata which make a kickoff one, however often it is sent."""
    return [("idempotency-key", str(uuid4()))]


def accepted(run: pb.Run, *, url: str, detach: bool, output: Output) -> None:
    """Say which run it is, and unless `detach` show it to its end; ends the command with the run's status."""
    if detach:
        output.result(run)
        output.say(run.id)
        output.hint(f"See it: {tour.command_name()} run watch {run.id}")
        return
    output.say(f"run {run.id}", style="bold")
    raise typer.Exit(run_watching.attend(run.id, url=url, output=output))
