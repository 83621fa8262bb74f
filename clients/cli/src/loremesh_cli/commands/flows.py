"""`flow list|get|create|delete|run`."""

from pathlib import Path
from typing import Annotated

import typer
from loremesh.crew.v1 import flow_pb2 as pb
from loremesh.crew.v1 import run_pb2
from rich.table import Column, Table

from loremesh_cli import client, field_files
from loremesh_cli.commands import kickoffs
from loremesh_cli.commands.crews import Check, tell_violations
from loremesh_cli.commands.options import AsJson, Url, url_of
from loremesh_cli.inputs import inputs_of
from loremesh_cli.output import Output

PAGE_SIZE = 200

app = typer.Typer(no_args_is_help=True, help="Lists, shows, makes, deletes and runs flows.")

FlowId = Annotated[str, typer.Argument(metavar="FLOW", help="Its id.")]


@app.command("list")
def list_(
    *, limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50, url: Url = "", as_json: AsJson = False
) -> None:
    """List flows, those built in first."""
    output, request, found = Output(as_json=as_json), pb.ListFlowsRequest(), list[pb.Flow]()

    async def work(mesh: client.Mesh) -> None:
        while len(found) < limit:
            request.page_size = min(PAGE_SIZE, limit - len(found))
            page = await mesh.flows.ListFlows(request, timeout=client.UNARY_SECONDS)
            found.extend(page.flows)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break

    client.call(work, url=url_of(url))
    output.result({"flows": found})
    table = Table(Column("id", min_width=12), "revision", "states", "transitions", "what it is for", box=None)
    for flow in found:
        revision = "built in" if flow.built_in else str(flow.revision)
        sizes = (str(len(flow.states)), str(len(flow.transitions)))
        table.add_row(flow.id, revision, *sizes, flow.description or flow.name)
    output.console.print(table)


@app.command()
def get(flow_id: FlowId, *, revision: kickoffs.Revision = 0, url: Url = "", as_json: AsJson = False) -> None:
    """Show a flow as YAML, which `create` takes as a file."""
    request = pb.GetFlowRequest(flow_id=flow_id, revision=revision)
    found = client.call(lambda mesh: mesh.flows.GetFlow(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    output = Output(as_json=as_json)
    output.result(found)
    output.say(field_files.show(found))


@app.command()
def create(
    file: Annotated[Path, typer.Argument(help="JSON, YAML or TOML with its fields; - for standard input.")],
    *,
    flow_id: Annotated[str, typer.Option("--id", help="Its id, in place of the file's.")] = "",
    check: Check = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Make a flow of a file."""
    output, url = Output(as_json=as_json), url_of(url)
    flow = field_files.parse(field_files.read(file, of="a flow"), pb.Flow(), what="flow")
    flow.id = flow_id or flow.id
    if check:
        request = pb.ValidateFlowRequest(flow=flow)
        checked = client.call(lambda mesh: mesh.flows.ValidateFlow(request, timeout=client.UNARY_SECONDS), url=url)
        tell_violations(list(checked.violations), what="flow", output=output)
        return
    made = client.call(
        lambda mesh: mesh.flows.CreateFlow(
            pb.CreateFlowRequest(flow=flow), metadata=kickoffs.new_key(), timeout=client.UNARY_SECONDS
        ),
        url=url,
    )
    output.result(made)
    output.say(f"{made.id}, revision {made.revision}")


@app.command()
def delete(flow_id: FlowId, *, url: Url = "", as_json: AsJson = False) -> None:
    """Delete a flow; its runs stay."""
    request = pb.DeleteFlowRequest(flow_id=flow_id)
    client.call(lambda mesh: mesh.flows.DeleteFlow(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    output = Output(as_json=as_json)
    output.result({"deleted": flow_id})
    output.say(f"{flow_id} is deleted")


@app.command()
def run(
    flow_id: FlowId,
    *,
    inputs: kickoffs.Inputs = [],  # noqa: B006 - typer's way
    file: kickoffs.InputsFile = None,
    example: kickoffs.Example = False,
    revision: kickoffs.Revision = 0,
    detach: kickoffs.Detach = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Run a flow and show its states until it ends: status 0 when all of it is done, 2 when not all is, 1 otherwise.

    Ctrl-C leaves the run alone; `run watch` comes back to it.
    """
    output, url = Output(as_json=as_json), url_of(url)
    request = pb.KickoffFlowRequest(flow_id=flow_id, revision=revision, inputs=inputs_of(inputs, file=file))

    async def work(mesh: client.Mesh) -> run_pb2.Run:
        if example:
            flow = await mesh.flows.GetFlow(
                pb.GetFlowRequest(flow_id=flow_id, revision=revision), timeout=client.UNARY_SECONDS
            )
            request.inputs.CopyFrom(inputs_of(inputs, file=file, example=flow.example_inputs))
        return await mesh.flows.KickoffFlow(request, metadata=kickoffs.new_key(), timeout=client.UNARY_SECONDS)

    kickoffs.accepted(client.call(work, url=url), url=url, detach=detach, output=output)
