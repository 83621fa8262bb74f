"""`run list|get|watch|tree|file|cancel|pause|resume|signal|replay|fork|diff|export|explain`."""

import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.json_format import Parse, ParseError
from loremesh.crew.v1 import run_pb2 as pb
from rich.table import Column, Table
from rich.text import Text
from rich.tree import Tree

from loremesh_cli import client, run_watching
from loremesh_cli.commands import kickoffs
from loremesh_cli.commands.options import AsJson, Url, url_of
from loremesh_cli.errors import CommandError, UsageError
from loremesh_cli.inputs import inputs_of
from loremesh_cli.output import Output, printable
from loremesh_cli.run_drawing import run_status

PAGE_SIZE = 200

app = typer.Typer(no_args_is_help=True, help="Shows runs of crews and flows, and steers them.")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Its id.")]


class Status(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    IN_PROGRESS = "in-progress"
    INTERRUPTED = "interrupted"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Format(StrEnum):
    """As what a run is exported."""

    MERMAID = "mermaid"
    JSON = "json"


@app.command("list")
def list_(
    *,
    definition: Annotated[str, typer.Option("--of", metavar="NAME", help="Only runs of this crew or flow.")] = "",
    status: Annotated[Status | None, typer.Option(help="Only runs that stand so.")] = None,
    children: Annotated[bool, typer.Option("--children", help="Child runs, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    wanted = pb.RunStatus.Value(f"RUN_STATUS_{status.name if status else 'UNSPECIFIED'}")
    request = pb.ListRunsRequest(definition_id=definition, status=wanted, children=children)
    output, found = Output(as_json=as_json), list[pb.Run]()

    async def work(mesh: client.Mesh) -> None:
        while len(found) < limit:
            request.page_size = min(PAGE_SIZE, limit - len(found))
            page = await mesh.runs.ListRuns(request, timeout=client.UNARY_SECONDS)
            found.extend(page.runs)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break

    client.call(work, url=url_of(url))
    output.result({"runs": found})
    table = Table(Column("id", min_width=36), "of", "status", "began", "tokens", "why", box=None)
    for run in found:
        began = f"{run.create_time.ToDatetime(UTC).astimezone():%Y-%m-%d %H:%M:%S}"
        tokens = f"{run.usage.input_tokens + run.usage.output_tokens:,}"
        table.add_row(run.id, run.definition_id, run_status(run.status), began, tokens, run.reason)
    output.console.print(table)


@app.command()
def get(run_id: RunId, *, url: Url = "", as_json: AsJson = False) -> None:
    """Show a run: its output, and what each task took."""
    request = pb.GetRunRequest(run_id=run_id)
    run = client.call(lambda mesh: mesh.runs.GetRun(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    output = Output(as_json=as_json)
    output.result(run)
    run_watching.show(run, output=output)


@app.command()
def watch(run_id: RunId, *, url: Url = "", as_json: AsJson = False) -> None:
    """Show a run from its beginning until it ends; with --json every event, then the run. Statuses as of `crew run`."""
    raise typer.Exit(run_watching.attend(run_id, url=url_of(url), output=Output(as_json=as_json), each=True))


@app.command()
def tree(run_id: RunId, *, url: Url = "", as_json: AsJson = False) -> None:
    """Show a run with its child runs, and theirs."""
    request = pb.GetRunTreeRequest(run_id=run_id)
    found = client.call(lambda mesh: mesh.runs.GetRunTree(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    output = Output(as_json=as_json)
    output.result(found)
    output.console.print(_grown(found))


@app.command()
def file(run_id: RunId, name: str, *, url: Url = "") -> None:
    """Write a file that a run offers to standard output."""
    request = pb.GetRunFileRequest(run_id=run_id, file_name=name)
    body = client.call(lambda mesh: mesh.runs.GetRunFile(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    _raw(body.data)


@app.command()
def cancel(
    run_id: RunId,
    *,
    comment: Annotated[str, typer.Option(help="Why, for those who read it later.")] = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Cancel a run and its child runs."""
    request = pb.CancelRunRequest(run_id=run_id, comment=comment)
    run = client.call(lambda mesh: mesh.runs.CancelRun(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    _tell(run, as_json=as_json)


@app.command()
def pause(run_id: RunId, *, url: Url = "", as_json: AsJson = False) -> None:
    """Let nothing new begin in a run."""
    request = pb.PauseRunRequest(run_id=run_id)
    run = client.call(lambda mesh: mesh.runs.PauseRun(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    _tell(run, as_json=as_json)


@app.command()
def resume(run_id: RunId, *, url: Url = "", as_json: AsJson = False) -> None:
    """Let a paused run go on."""
    request = pb.ResumeRunRequest(run_id=run_id)
    run = client.call(lambda mesh: mesh.runs.ResumeRun(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    _tell(run, as_json=as_json)


@app.command()
def signal(
    run_id: RunId,
    name: Annotated[str, typer.Argument(help="The signal's name.")],
    *,
    payload: Annotated[str, typer.Option(metavar="JSON", help="What it carries.")] = "",
    signal_id: Annotated[str, typer.Option("--id", help="The same signal sent again is one, by its id.")] = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Give a flow's run a signal that a state waits for."""
    request = pb.SignalRunRequest(run_id=run_id, signal=name, signal_id=signal_id)
    if payload:
        try:
            Parse(payload, request.payload)
        except ParseError as error:
            raise UsageError("--payload is no JSON", reason="PAYLOAD_INVALID") from error
    run = client.call(lambda mesh: mesh.runs.SignalRun(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    _tell(run, as_json=as_json)


@app.command()
def replay(run_id: RunId, *, url: Url = "", as_json: AsJson = False) -> None:
    """Decide a run's log anew: status 0 when every decision is what it was, 1 when one is not. Changes nothing."""
    request = pb.ReplayRunRequest(run_id=run_id)
    replayed = client.call(lambda mesh: mesh.runs.ReplayRun(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    output = Output(as_json=as_json)
    output.result(replayed)
    for each in replayed.differences:
        output.say(f"decision {each.decision}, on {each.event}", style="bold")
        output.say(f"  then: {each.recorded}\n  now:  {each.replayed}")
    if replayed.differences:
        raise typer.Exit(1)
    output.say(f"{replayed.decisions} decisions, each as it was")


@app.command()
def fork(
    run_id: RunId,
    *,
    after: Annotated[
        int, typer.Option(min=0, metavar="SEQ", help="What it did up to this event is taken as done.")
    ] = 0,
    inputs: kickoffs.Inputs = [],  # noqa: B006 - typer's way
    inputs_file: kickoffs.InputsFile = None,
    model: Annotated[str, typer.Option(help="The model of all its agents, as provider/model.")] = "",
    describe: Annotated[
        list[str],
        typer.Option(
            metavar="TASK=TEXT",
            help="What a task is to do now, below a flow STATE/TASK; TASK=@FILE takes a file's text.",
        ),
    ] = [],  # noqa: B006
    detach: kickoffs.Detach = False,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Start a run that goes on from where another was, with other inputs, another model or other descriptions."""
    output, url = Output(as_json=as_json), url_of(url)
    request = pb.ForkRunRequest(
        run_id=run_id,
        after_seq=after,
        inputs=inputs_of(inputs, file=inputs_file),
        model=model,
        descriptions={key: str(value) for key, value in inputs_of(describe).items()},
    )
    forked = client.call(
        lambda mesh: mesh.runs.ForkRun(request, metadata=kickoffs.new_key(), timeout=client.UNARY_SECONDS), url=url
    )
    kickoffs.accepted(forked, url=url, detach=detach, output=output)


@app.command()
def diff(run_id: RunId, other: RunId, *, url: Url = "", as_json: AsJson = False) -> None:
    """Say what differs between two runs."""
    request = pb.DiffRunsRequest(run_id=run_id, other_run_id=other)
    found = client.call(lambda mesh: mesh.runs.DiffRuns(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    output = Output(as_json=as_json)
    output.result(found)
    for each in found.differences:
        output.say(each.field, style="bold")
        output.say(f"- {each.left}", style="red")
        output.say(f"+ {each.right}", style="green")
    if not found.differences:
        output.say("nothing differs")


@app.command()
def export(
    run_id: RunId,
    *,
    form: Annotated[Format, typer.Option("--format", help="A Mermaid graph, or all of it as JSON.")] = Format.MERMAID,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Write a run to standard output, as a Mermaid graph or as JSON."""
    wanted = pb.ExportFormat.Value(f"EXPORT_FORMAT_{'JSON' if as_json else form.name}")
    request = pb.ExportRunRequest(run_id=run_id, format=wanted)
    body = client.call(lambda mesh: mesh.runs.ExportRun(request, timeout=client.UNARY_SECONDS), url=url_of(url))
    _raw(body.data.rstrip(b"\n") + b"\n")


@app.command()
def explain(
    run_id: RunId,
    *,
    state: Annotated[str, typer.Option(help="The state that was left; the last one by default.")] = "",
    visit: Annotated[int, typer.Option(min=0, help="Which visit to it; the last one by default.")] = 0,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Say of each way out of a flow's state whether its condition held, and what it saw."""
    request = pb.ExplainTransitionRequest(run_id=run_id, state=state, visit=visit)
    found = client.call(
        lambda mesh: mesh.runs.ExplainTransition(request, timeout=client.UNARY_SECONDS), url=url_of(url)
    )
    output = Output(as_json=as_json)
    output.result(found)
    report = found.report
    root = Tree(f"{getattr(report, 'from')} (visit {report.visit}) → {report.to or 'nowhere'}")
    for each in report.transitions:
        how = "taken" if each.taken else "held" if each.held else "did not hold"
        _checked(root.add(Text(f"{each.to}, priority {each.priority}: {how}")), each.condition)
    output.console.print(root)


def _checked(branch: Tree, check: pb.ConditionCheck) -> None:
    mark = "!" if check.error else "✓" if check.held else "✗"
    seen = check.error or (f"saw {json.dumps(check.saw, ensure_ascii=False)}" if check.saw else "")
    below = branch.add(Text(printable(f"{mark} {check.condition}  {seen}".rstrip())))
    for each in check.parts:
        _checked(below, each)


def _grown(found: pb.RunTree, parent: Tree | None = None) -> Tree:
    run = found.run
    state = f"{run.parent_state}: " if run.parent_state else ""
    tokens = run.usage.input_tokens + run.usage.output_tokens
    end = run.finish_time if run.HasField("finish_time") else None
    seconds = ((end.ToDatetime(UTC) if end else datetime.now(UTC)) - run.create_time.ToDatetime(UTC)).total_seconds()
    spent = f"{run_status(run.status)}  {seconds:.1f} s  {tokens:,} tokens"
    label = Text(f"{state}{run.name or run.definition_id}  {run.id}  {spent}")
    tree = parent.add(label) if parent else Tree(label)
    for child in found.children:
        _grown(child, tree)
    return tree


def _tell(run: pb.Run, *, as_json: bool) -> None:
    output = Output(as_json=as_json)
    output.result(run)
    output.say(f"{run.id}: {run_status(run.status)}")


def _raw(data: bytes) -> None:
    try:
        text = data.decode()
        sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    except UnicodeDecodeError as error:
        raise CommandError("it is no text", reason="FILE_INVALID") from error
