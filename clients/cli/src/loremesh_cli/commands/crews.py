"""`crew list|get|create|import|delete|run`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from loremesh.crew.v1 import crew_pb2 as pb
from loremesh.crew.v1 import run_pb2
from rich.table import Column, Table

from loremesh_cli import client, crewai_project, field_files
from loremesh_cli.commands import kickoffs
from loremesh_cli.commands.options import AsJson, Url, url_of
from loremesh_cli.errors import CommandError
from loremesh_cli.inputs import inputs_of
from loremesh_cli.output import Output

PAGE_SIZE = 200

app = typer.Typer(no_args_is_help=True, help="Lists, shows, makes, imports, deletes and runs crews of agents.")

CrewId = Annotated[str, typer.Argument(metavar="CREW", help="Its id.")]
Check = Annotated[bool, typer.Option("--check", help="Only say what is wrong with it.")]


class Process(StrEnum):
    """How a crew's tasks come to be done."""

    SEQUENTIAL = "sequential"
    PARALLEL = "parallel"
    HIERARCHICAL = "hierarchical"


@app.command("list")
def list_(
    *, limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50, url: Url = "", as_json: AsJson = False
) -> None:
    """List crews, those built in first."""
    output, request, found = Output(as_json=as_json), pb.ListCrewsRequest(), list[pb.Crew]()

    async def work(mesh: client.Mesh) -> None:
        while len(found) < limit:
            request.page_size = min(PAGE_SIZE, limit - len(found))
            page = await mesh.crews.ListCrews(request, timeout=client.UNARY_SECONDS)
            found.extend(page.crews)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break

    client.call(work, url=url_of(url))
    output.result({"crews": found})
    table = Table(Column("id", min_width=12), "revision", "process", "agents", "tasks", "what it is for", box=None)
    for crew in found:
        process = pb.Process.Name(crew.process).removeprefix("PROCESS_").lower()
        revision = "built in" if crew.built_in else str(crew.revision)
        sizes = (str(len(crew.agents)), str(len(crew.tasks)))
        table.add_row(crew.id, revision, process, *sizes, crew.description or crew.name)
    output.console.print(table)


@app.command()
def get(crew_id: CrewId, *, revision: kickoffs.Revision = 0, url: Url = "", as_json: AsJson = False) -> None:
    """Show a crew as YAML, which `create` takes as a file."""
    request = pb.GetCrewRequest(crew_id=crew_id, revision=revision)
    found = client.call(lambda mesh: mesh.crews.GetCrew(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    output = Output(as_json=as_json)
    output.result(found)
    output.say(field_files.show(found))


@app.command()
def create(
    file: Annotated[Path, typer.Argument(help="JSON, YAML or TOML with its fields; - for standard input.")],
    *,
    crew_id: Annotated[str, typer.Option("--id", help="Its id, in place of the file's.")] = "",
    check: Check = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Make a crew of a file."""
    crew = field_files.parse(field_files.read(file, of="a crew"), pb.Crew(), what="crew")
    crew.id = crew_id or crew.id
    if check:
        request = pb.ValidateCrewRequest(crew=crew)
        checked = client.call(
            lambda mesh: mesh.crews.ValidateCrew(request, timeout=client.UNARY_SECONDS), url=url_of(url)
        )
        tell_violations(list(checked.violations), what="crew", output=Output(as_json=as_json))
        return
    made = client.call(
        lambda mesh: mesh.crews.CreateCrew(
            pb.CreateCrewRequest(crew=crew), metadata=kickoffs.new_key(), timeout=client.UNARY_SECONDS
        ),
        url=url_of(url),
    )
    _tell(made, as_json=as_json)


@app.command("import")
def import_(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A CrewAI project, or its folder with the files.")],
    *,
    crew_id: Annotated[str, typer.Option("--id", help="Its id; one is made if none.")] = "",
    name: Annotated[str, typer.Option(help="Its name, for people.")] = "",
    process: Annotated[Process, typer.Option(help="How the tasks come to be done.")] = Process.SEQUENTIAL,
    check: Annotated[bool, typer.Option("--check", help="Show what it would be, and keep nothing.")] = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Make a crew of the agents.yaml and tasks.yaml of a CrewAI project."""
    agents, tasks = crewai_project.read(directory)
    request = pb.ImportCrewRequest(
        crew_id=crew_id,
        name=name,
        agents_yaml=agents,
        tasks_yaml=tasks,
        process=pb.Process.Value(f"PROCESS_{process.name}"),
        validate_only=check,
    )
    made = client.call(
        lambda mesh: mesh.crews.ImportCrew(request, metadata=kickoffs.new_key(), timeout=client.UNARY_SECONDS),
        url=url_of(url),
    )
    if not check:
        _tell(made, as_json=as_json)
        return
    output = Output(as_json=as_json)
    output.result(made)
    output.say(field_files.show(made))


@app.command()
def delete(crew_id: CrewId, *, url: Url = "", as_json: AsJson = False) -> None:
    """Delete a crew; its runs stay."""
    request = pb.DeleteCrewRequest(crew_id=crew_id)
    client.call(lambda mesh: mesh.crews.DeleteCrew(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    output = Output(as_json=as_json)
    output.result({"deleted": crew_id})
    output.say(f"{crew_id} is deleted")


@app.command()
def run(
    crew_id: CrewId,
    *,
    inputs: kickoffs.Inputs = [],  # noqa: B006 - typer's way
    file: kickoffs.InputsFile = None,
    example: kickoffs.Example = False,
    revision: kickoffs.Revision = 0,
    detach: kickoffs.Detach = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Run a crew and show its tasks until it ends: status 0 when all of it is done, 2 when not all is, 1 otherwise.

    Ctrl-C leaves the run alone; `run watch` comes back to it.
    """
    output, url = Output(as_json=as_json), url_of(url)
    request = pb.KickoffCrewRequest(crew_id=crew_id, revision=revision, inputs=inputs_of(inputs, file=file))

    async def work(mesh: client.Mesh) -> run_pb2.Run:
        if example:
            crew = await mesh.crews.GetCrew(
                pb.GetCrewRequest(crew_id=crew_id, revision=revision), timeout=client.UNARY_SECONDS
            )
            request.inputs.CopyFrom(inputs_of(inputs, file=file, example=crew.example_inputs))
        return await mesh.crews.KickoffCrew(request, metadata=kickoffs.new_key(), timeout=client.UNARY_SECONDS)

    kickoffs.accepted(client.call(work, url=url), url=url, detach=detach, output=output)


def tell_violations(violations: list[pb.Violation], *, what: str, output: Output) -> None:
    """Print each fault; raises CommandError where there is one."""
    output.result({"violations": violations})
    for each in violations:
        output.say(f"{each.field}: {each.reason}: {each.description}", style="red")
    if violations:
        raise CommandError(f"the {what} has {len(violations)} faults", reason=f"{what.upper()}_INVALID")
    output.say(f"nothing is wrong with this {what}")


def _tell(crew: pb.Crew, *, as_json: bool) -> None:
    output = Output(as_json=as_json)
    output.result(crew)
    output.say(f"{crew.id}, revision {crew.revision}")
