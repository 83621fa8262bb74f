"""Asks the person at the terminal what a run asks of a human."""

import asyncio
import json
import sys
from uuid import uuid4

from google.protobuf.json_format import MessageToDict
from grpc.aio import AioRpcError
from loremesh.agent.v1 import approval_pb2 as pb

from loremesh_cli import client
from loremesh_cli.client import Mesh
from loremesh_cli.output import Output

_APPROVE, _DENY, _ANSWER = ("approve [COMMENT]", "deny [COMMENT]", "answer TEXT")
_WORDS = {"approve": pb.DECISION_APPROVE, "deny": pb.DECISION_DENY, "answer": pb.DECISION_ANSWER}
# What each kind may be decided as; see ApprovalKind.
_CHOICES = {
    pb.APPROVAL_KIND_TOOL_CALL: (_APPROVE, _DENY),
    pb.APPROVAL_KIND_QUESTION: (_ANSWER, _DENY),
    pb.APPROVAL_KIND_BUDGET: (_APPROVE, _DENY),
    pb.APPROVAL_KIND_REVIEW: (_APPROVE, _ANSWER, _DENY),
    pb.APPROVAL_KIND_OUTPUT: (_APPROVE, _DENY, _ANSWER),
}


class Terminal:
    """Lines that a person types, read without holding anything up."""

    async def line(self) -> str:
        """The next line, empty at the end; leaves the terminal alone when it is cancelled."""
        loop, typed = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(sys.stdin.fileno(), typed.set)
        try:
            await typed.wait()
        finally:
            loop.remove_reader(sys.stdin.fileno())
        # It is there: a terminal gives whole lines.
        return sys.stdin.readline()


async def decide(
    mesh: Mesh, approval_id: str, *, terminal: Terminal, gone: asyncio.Event, later: str, output: Output
) -> None:
    """Show an approval and send what the person says, until it is decided, put off, or `gone`.

    `later` is how to decide when it is put off.
    """
    request = pb.GetApprovalRequest(approval_id=approval_id)
    approval = await mesh.approvals.GetApproval(request, timeout=client.UNARY_SECONDS)
    if approval.state != pb.APPROVAL_STATE_PENDING or gone.is_set():
        return
    show(approval, output=output)
    choices = _CHOICES.get(approval.kind, (_APPROVE, _DENY))
    while True:
        output.say(f"{' | '.join((*choices, 'later'))}", style="bold")
        line = await _unless(gone, terminal)
        if line is None:
            output.say("It is decided.")
            return
        if not line or line.strip() == "later":
            output.say(f"Decide it later: {later}")
            return
        decision = parse(line, approval)
        if decision is None:
            output.say("Begin with one of these words.", style="red")
        elif await _sent(mesh, decision, output=output):
            return


def show(approval: pb.Approval, *, output: Output) -> None:
    """Print what is asked, with the exact arguments or the whole output."""
    whose = " ".join(filter(None, (approval.task_name or approval.agent_id, "asks", approval.assignee)))
    output.say(f"\n{whose}: {approval.question}", style="bold yellow")
    if approval.tool_name:
        arguments = json.dumps(MessageToDict(approval.arguments), ensure_ascii=False, indent=2)
        output.say(f"{approval.tool_name} {arguments}")
    if approval.output:
        output.say(f"\n{approval.output}\n")


def parse(line: str, approval: pb.Approval) -> pb.DecideApprovalRequest | None:
    """What a line decides, its first letters being enough; None where it decides nothing."""
    word, _, rest = line.strip().partition(" ")
    choices = [each.split()[0] for each in _CHOICES.get(approval.kind, (_APPROVE, _DENY))]
    # `a` is the first of those which begin so.
    meant = next((each for each in choices if word and each.startswith(word.lower())), None)
    if meant is None or (meant == "answer" and not rest.strip()):
        return None
    request = pb.DecideApprovalRequest(approval_id=approval.id, decision=_WORDS[meant], etag=approval.etag)
    if meant == "answer":
        request.answer = rest.strip()
    else:
        request.comment = rest.strip()
    return request


async def _unless(gone: asyncio.Event, terminal: Terminal) -> str | None:
    typed, over = asyncio.create_task(terminal.line()), asyncio.create_task(gone.wait())
    try:
        await asyncio.wait({typed, over}, return_when=asyncio.FIRST_COMPLETED)
        return typed.result() if typed.done() else None
    finally:
        typed.cancel()
        over.cancel()


async def _sent(mesh: Mesh, decision: pb.DecideApprovalRequest, *, output: Output) -> bool:
    try:
        await mesh.approvals.DecideApproval(
            decision, timeout=client.UNARY_SECONDS, metadata=(("idempotency-key", str(uuid4())),)
        )
    except AioRpcError as error:
        output.say(str(client.as_command_error(error, url="the front door")), style="red")
        info, _ = client.details(error)
        # Somebody else was first; of all else another try may be right.
        return info is not None and info.reason in {"APPROVAL_DECIDED", "APPROVAL_NOT_FOUND", "ETAG_MISMATCH"}
    return True
