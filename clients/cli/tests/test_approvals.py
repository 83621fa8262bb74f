"""`loremesh approvals`, against a front door in this process."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from loremesh.agent.v1 import approval_pb2 as pb

pytestmark = pytest.mark.unit

Run = Callable[[list[str]], tuple[int, str, str]]


async def approvals(mesh: Any, run: Run, *arguments: str) -> tuple[int, list[Any]]:
    status, out, _ = await asyncio.to_thread(run, ["approvals", *arguments, "--json", "--url", mesh.url])
    return status, list(map(json.loads, out.splitlines()))


async def test_approvals_are_listed_shown_and_watched(mesh: Any, run: Run) -> None:
    mesh.approvals.approvals = [
        pb.Approval(id="a1", state=pb.APPROVAL_STATE_PENDING, question="May it?"),
        pb.Approval(id="a2", state=pb.APPROVAL_STATE_DENIED),
        pb.Approval(id="a3", state=pb.APPROVAL_STATE_PENDING),
    ]
    _, (pending,) = await approvals(mesh, run, "list")
    assert [each["id"] for each in pending["approvals"]] == ["a1", "a3"]
    _, (denied,) = await approvals(mesh, run, "list", "--state", "denied")
    assert [each["id"] for each in denied["approvals"]] == ["a2"]
    _, (shown,) = await approvals(mesh, run, "show", "a1")
    assert shown["question"] == "May it?"
    assert [each["id"] for each in (await approvals(mesh, run, "watch"))[1]] == ["a1", "a2", "a3"]
    assert await approvals(mesh, run, "show", "none") == (
        1,
        [{"error": {"reason": "APPROVAL_NOT_FOUND", "message": "APPROVAL_NOT_FOUND: in words"}}],
    )


async def test_whom_is_asked_can_be_changed_and_asked_for(mesh: Any, run: Run) -> None:
    mesh.approvals.approvals = [
        pb.Approval(id=name, state=pb.APPROVAL_STATE_PENDING, assignee=name) for name in ("ada", "bea", "")
    ]
    _, (listed,) = await approvals(mesh, run, "list", "--assignee", "ada")
    assert [each["id"] for each in listed["approvals"]] == ["ada", ""]
    assert (await approvals(mesh, run, "reassign", "a", "bea"))[1][0]["assignee"] == "bea"
    assert mesh.approvals.reassigned == [pb.ReassignApprovalRequest(approval_id="a", assignee="bea")]


async def test_people_are_shown_what_they_are_to_accept_without_what_steers_their_terminal(mesh: Any, run: Run) -> None:
    kept = pb.Approval(
        id="a", kind=pb.APPROVAL_KIND_OUTPUT, question="Good?", output="\x1b[2Jทะเล [b]", task_name="writing"
    )
    mesh.approvals.approvals = [kept]
    status, out, _ = await asyncio.to_thread(run, ["approvals", "show", "a", "--url", mesh.url])
    assert status == 0
    assert "writing asks: Good?" in out
    assert "[2Jทะเล [b]" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "sent", "state"),
    [
        (["approve", "a"], {"decision": "DECISION_APPROVE"}, "APPROVED"),
        (
            ["approve", "a", "--arguments", '{"to": "bob"}'],
            {"decision": "DECISION_APPROVE", "arguments": {"to": "bob"}},
            "APPROVED",
        ),
        (["deny", "a", "--comment", "No."], {"decision": "DECISION_DENY", "comment": "No."}, "DENIED"),
        (["answer", "a", "At noon."], {"decision": "DECISION_ANSWER", "answer": "At noon."}, "ANSWERED"),
    ],
)
async def test_a_decision_is_sent_under_a_key(
    mesh: Any, run: Run, arguments: list[str], sent: dict[str, Any], state: str
) -> None:
    status, (decided,) = await approvals(mesh, run, *arguments)
    assert (status, decided["state"]) == (0, f"APPROVAL_STATE_{state}")
    (request,) = mesh.approvals.decisions
    assert MessageToDict(request, preserving_proto_field_name=True) == {"approval_id": "a", **sent}
    assert len(mesh.approvals.keys) == 1


@pytest.mark.parametrize("arguments", ["{", "[1]", "7"])
async def test_arguments_that_are_no_object_are_not_sent(mesh: Any, run: Run, arguments: str) -> None:
    status, (said,) = await approvals(mesh, run, "approve", "a", "--arguments", arguments)
    assert (status, said["error"]["reason"]) == (2, "ARGUMENTS_INVALID")
    assert mesh.approvals.decisions == []
