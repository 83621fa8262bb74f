"""`logs`: what the parts of the mesh say."""

import sys
from typing import Annotated

import typer

from loremesh_cli.commands.options import AsJson, DataDir, home_of
from loremesh_cli.errors import UsageError
from loremesh_cli.mesh import logfiles
from loremesh_cli.output import Output


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
    for name, line in logfiles.follow(chosen, until=lambda: False) if follow else ():
        _print_line(output, name, line)


def _print_line(output: Output, name: str, line: str) -> None:
    output.result({"part": name, "line": line})
    output.say(f"{name}: {line}")
    sys.stdout.flush()
