"""`approvals ...`: what runs ask of humans."""

import json
from datetime import UTC
from enum import StrEnum
from typing import Annotated, Any
from uuid import uuid4

import typer
from google.protobuf.json_format import ParseDict, ParseError
from loremesh.agent.v1 import approval_pb2 as pb
from rich.table import Column, Table
from rich.text import Text

from loremesh_cli import client, deciding
from loremesh_cli.commands.options import AsJson, Url, url_of
from loremesh_cli.errors import UsageError
from loremesh_cli.output import Output, printable

PAGE_SIZE = 200

app = typer.Typer(no_args_is_help=True, help="See what runs ask of humans, and decide.")

Comment = Annotated[str, typer.Option(help="What the model is told beside it.")]
Run = Annotated[str, typer.Option(metavar="RUN", help="Only those of this run, or of this run's tasks.")]


class State(StrEnum):
    """Where an approval stands."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    ANSWERED = "answered"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@app.command("list")
def list_(
    *,
    state: Annotated[State, typer.Option(help="Only those that stand so.")] = State.PENDING,
    run: Run = "",
    assignee: Annotated[str, typer.Option(help="Only those that this one is asked, or anyone.")] = "",
    limit: int = 50,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """List approvals, those due first."""
    output, url = Output(as_json=as_json), url_of(url)
    found = client.run(_list(url, limit, state, run, assignee), url=url)
    output.result({"approvals": found})
    table = Table(Column("id", min_width=36), "asks for", "of", "who", "due", "question", box=None)
    for each in found:
        due = f"{each.due_time.ToDatetime(UTC).astimezone():%Y-%m-%d %H:%M}"
        row = (each.id, _kind(each), each.tool_name or each.task_name, each.assignee, due, each.question)
        table.add_row(*(Text(printable(part)) for part in row))
    output.console.print(table)


@app.command()
def show(approval_id: str, *, url: Url = "", as_json: AsJson = False) -> None:
    """Show one approval, with the exact arguments or the whole output."""
    output, url = Output(as_json=as_json), url_of(url)

    async def work() -> pb.Approval:
        async with client.connect(url) as mesh:
            request = pb.GetApprovalRequest(approval_id=approval_id)
            return await mesh.approvals.GetApproval(request, timeout=client.UNARY_SECONDS)

    approval = client.run(work(), url=url)
    output.result(approval)
    deciding.show(approval, output=output)
    due = f"{approval.due_time.ToDatetime(UTC).astimezone():%Y-%m-%d %H:%M}"
    run = approval.root_run_id or approval.run_id
    output.say(f"{approval.id}: {_kind(approval)}, {_state(approval)}, due {due}, run {run}")
    for name, said in (("answer", approval.answer), ("comment", approval.comment)):
        if said:
            output.say(f"{name}: {said}")


@app.command()
def approve(
    approval_id: str,
    *,
    arguments: Annotated[str, typer.Option(metavar="JSON", help="Call the tool with these instead.")] = "",
    comment: Comment = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Approve: the run goes on."""
    request = pb.DecideApprovalRequest(approval_id=approval_id, decision=pb.DECISION_APPROVE, comment=comment)
    if arguments:
        try:
            ParseDict(json.loads(arguments), request.arguments)
        except (ValueError, ParseError) as error:
            raise UsageError("--arguments is no JSON object", reason="ARGUMENTS_INVALID") from error
    _decide(request, url=url, as_json=as_json)


@app.command()
def deny(approval_id: str, *, comment: Comment = "", url: Url = "", as_json: AsJson = False) -> None:
    """Deny: the run goes on without; a task's output goes back to the agent with the comment."""
    request = pb.DecideApprovalRequest(approval_id=approval_id, decision=pb.DECISION_DENY, comment=comment)
    _decide(request, url=url, as_json=as_json)


@app.command()
def answer(approval_id: str, text: str, *, comment: Comment = "", url: Url = "", as_json: AsJson = False) -> None:
    """Answer a question of an agent, or put another output in the place of a task's."""
    request = pb.DecideApprovalRequest(
        approval_id=approval_id, decision=pb.DECISION_ANSWER, answer=text, comment=comment
    )
    _decide(request, url=url, as_json=as_json)


@app.command()
def reassign(
    approval_id: str,
    assignee: Annotated[str, typer.Argument(help="Who is asked from now on; empty means anyone.")],
    *,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Give an approval to somebody else."""
    request = pb.ReassignApprovalRequest(approval_id=approval_id, assignee=assignee)
    approval = client.call(
        lambda mesh: mesh.approvals.ReassignApproval(request, timeout=client.UNARY_SECONDS), url=url_of(url)
    )
    output = Output(as_json=as_json)
    output.result(approval)
    output.say(f"{approval.id}: {approval.assignee or 'anyone'} is asked")


@app.command()
def watch(*, run: Run = "", url: Url = "", as_json: AsJson = False) -> None:
    """Print approvals as they are asked for and decided, those pending first, until interrupted."""
    output, url = Output(as_json=as_json), url_of(url)

    async def work() -> None:
        async with client.connect(url) as mesh:
            async for event in mesh.approvals.WatchApprovals(pb.WatchApprovalsRequest(run_id=run)):
                if event.WhichOneof("payload") == "approval":
                    output.result(event.approval)
                    output.say(f"{event.approval.id}  {_state(event.approval)}  {event.approval.question}")

    client.run(work(), url=url)


async def _list(url: str, limit: int, state: State, run: str, assignee: str) -> list[pb.Approval]:
    wanted = pb.ApprovalState.Value(f"APPROVAL_STATE_{state.name}")
    request = pb.ListApprovalsRequest(state=wanted, run_id=run, assignee=assignee)
    found: list[pb.Approval] = []
    async with client.connect(url) as mesh:
        while len(found) < limit:
            request.page_size = min(PAGE_SIZE, limit - len(found))
            page = await mesh.approvals.ListApprovals(request, timeout=client.UNARY_SECONDS)
            found += page.approvals
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
    return found


def _decide(request: pb.DecideApprovalRequest, *, url: str, as_json: bool) -> None:
    output, url = Output(as_json=as_json), url_of(url)

    async def work() -> pb.Approval:
        async with client.connect(url) as mesh:
            key: Any = (("idempotency-key", str(uuid4())),)
            return await mesh.approvals.DecideApproval(request, timeout=client.UNARY_SECONDS, metadata=key)

    decided = client.run(work(), url=url)
    output.result(decided)
    output.say(f"{decided.id}: {_state(decided)}")


def _kind(approval: pb.Approval) -> str:
    return pb.ApprovalKind.Name(approval.kind).removeprefix("APPROVAL_KIND_").lower()


def _state(approval: pb.Approval) -> str:
    return pb.ApprovalState.Name(approval.state).removeprefix("APPROVAL_STATE_").lower()
