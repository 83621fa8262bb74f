"""Outputs of tasks which a human accepts first, on a real Postgres and NATS; the model is scripted."""

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from grpc import aio
from loremesh.agent.v1 import agent_pb2, approval_pb2
from loremesh.agent.v1 import task_pb2 as pb
from loremesh_agent.adapters.memory import ScriptedProvider
from loremesh_agent.adapters.toolbox import FixedToolbox
from loremesh_kit.channel import reason_of
from loremesh_kit.testing import caller

from .order_doubles import COMPLETED, FAILED, WAITING, approvals, asked, decide, order, stands, task
from .replicas import Mesh, Replica, check, kinds, text_of, words
from .tool_doubles import CountingTool

pytestmark = pytest.mark.steelthread

REVIEW = pb.OutputReview(question="Is it any good?", assignee="ada@example.org", max_rounds=2)


async def pass_time(replica: Replica, hours: int) -> None:
    """As though all had been asked so much earlier."""
    statement = """
    UPDATE approvals SET
        create_time = create_time - %(by)s, due_time = due_time - %(by)s, alarm_time = alarm_time - %(by)s
    """
    await replica.database.fetch(statement, {"by": timedelta(hours=hours)})


async def test_an_approved_output_is_the_tasks_and_nothing_worked_meanwhile(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider(words("Roses are red."))
    async with mesh.replica("server") as replica:
        await order(replica, review=REVIEW)
        async with mesh.replica("worker"):
            approval = await asked(replica)
            waiting = await stands(replica, WAITING)
        assert (waiting.approval_id, waiting.output) == (approval.id, "")
        assert (approval.kind, approval.output) == (approval_pb2.APPROVAL_KIND_OUTPUT, "Roses are red.")
        assert (approval.question, approval.assignee) == ("Is it any good?", "ada@example.org")
        assert (approval.root_run_id, approval.task_name, approval.run_id) == ("r", "poem", waiting.run_id)
        (row,) = await replica.database.fetch("SELECT state, lease_until FROM jobs WHERE kind = 'chat'")
        assert row == {"state": "PARKED", "lease_until": None}
        await decide(replica, approval, "APPROVE")
        await decide(replica, approval, "APPROVE")
        # Another process goes on with it.
        async with mesh.replica("worker"):
            done = await stands(replica, COMPLETED)
        assert (done.output, len(mesh.provider.requests)) == ("Roses are red.", 1)
        with pytest.raises(aio.AioRpcError) as refused:
            await decide(replica, approval, "DENY")
        assert reason_of(refused.value) == "APPROVAL_DECIDED"


async def test_a_humans_text_takes_the_outputs_place_and_is_told_as_it_is(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider(words("Roses are red."))
    async with mesh.replica() as replica:
        made = await order(replica, review=REVIEW)
        await decide(replica, await asked(replica), "ANSWER", answer="Violets are blue [1].")
        assert (await stands(replica, COMPLETED)).output == "Violets are blue [1]."
        events = await replica.watch(made.run_id)
        check(events)
        assert text_of(events, 1) == "Roses are red.Violets are blue [1]."
        assert {"waiting", "resumed"} < set(kinds(events))
        assert events[-1].completed.response == "Violets are blue [1]."
        assert not events[-1].completed.grounded


async def test_an_output_in_place_of_another_must_fulfil_the_schema(mesh: Mesh) -> None:
    schema = Struct()
    schema.update({"type": "object", "required": ["verse"], "properties": {"verse": {"type": "string"}}})
    mesh.provider = ScriptedProvider(words('{"verse": "Roses"}'))
    async with mesh.replica() as replica:
        await order(replica, review=REVIEW, response_schema=schema)
        approval = await asked(replica)
        for answer in ("Violets", '{"line": 1}', "[]"):
            with pytest.raises(aio.AioRpcError) as refused:
                await decide(replica, approval, "ANSWER", answer=answer)
            assert reason_of(refused.value) == "DECISION_INVALID"
        await decide(replica, approval, "ANSWER", answer='{"verse": "Violets"}')
        assert (await stands(replica, COMPLETED)).output_json["verse"] == "Violets"


async def test_a_comment_goes_back_to_the_model_until_the_rounds_are_over(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider(words("One."), words("Two."), words("Three."))
    async with mesh.replica() as replica:
        await order(replica, review=REVIEW)
        approval = await asked(replica)
        for text, said in (("One.", "Longer, please."), ("Two.", "It must rhyme."), ("Three.", "No.")):
            assert approval.output == text
            await decide(replica, approval, "DENY", comment=said)
            if text != "Three.":
                approval = await asked(replica, before=approval.id)
        done = await stands(replica, FAILED)
        assert (done.reason, done.retryable) == ("OUTPUT_REJECTED", False)
        told = mesh.provider.requests[2].messages
        assert [message.role for message in told[-4:]] == ["assistant", "user", "assistant", "user"]
        assert ("Longer, please." in told[-3].content, "It must rhyme." in told[-1].content) == (True, True)
        # A human is trusted: nothing marks it as a stranger's.
        assert "<" not in told[-1].content
        assert len(mesh.provider.requests) == 3


async def test_who_denies_without_a_word_ends_it(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider(words("Roses are red."))
    async with mesh.replica() as replica:
        await order(replica, review=REVIEW)
        await decide(replica, await asked(replica), "DENY", comment="  ")
        assert (await stands(replica, FAILED)).reason == "OUTPUT_REJECTED"
        assert len(mesh.provider.requests) == 1


@pytest.mark.parametrize(("policy", "state"), [("DENY", FAILED), ("FAIL", FAILED), ("APPROVE", COMPLETED)])
async def test_nobody_deciding_is_as_the_policy_says(mesh: Mesh, policy: str, state: int) -> None:
    mesh.provider = ScriptedProvider(words("Roses are red."))
    async with mesh.replica() as replica:
        on_expiry = agent_pb2.ExpiryPolicy.Value(f"EXPIRY_POLICY_{policy}")
        await order(replica, review=pb.OutputReview(on_expiry=on_expiry))
        approval = await asked(replica)
        assert approval.question == "Is this output good?"
        await pass_time(replica, hours=25)
        done = await stands(replica, state)
        assert (done.reason, done.output) == (("", "Roses are red.") if state == COMPLETED else ("OUTPUT_REJECTED", ""))
        with pytest.raises(aio.AioRpcError) as refused:
            await decide(replica, approval, "APPROVE")
        assert reason_of(refused.value) == "APPROVAL_DECIDED"


async def test_what_a_tool_answers_can_be_reviewed_and_not_be_sent_back(mesh: Mesh) -> None:
    mesh.toolbox = FixedToolbox([CountingTool()])
    call = pb.ToolInvocation(tool=agent_pb2.ToolUse(name="read"))
    call.arguments.update({"x": "a"})
    async with mesh.replica() as replica:
        await order(replica, invocation=call, review=REVIEW)
        await order(replica, task_id="r.2", invocation=call, review=REVIEW, root_run_id="other")
        assert (await asked(replica)).output == "read says a"
        await decide(replica, await asked(replica), "APPROVE")
        assert (await stands(replica, COMPLETED)).output == "read says a"
        await decide(replica, await asked(replica, run_id="other"), "DENY", comment="Read it again.")
        assert (await stands(replica, FAILED, "r.2")).reason == "OUTPUT_REJECTED"


async def test_a_cancelled_task_asks_nobody_any_more(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        await order(replica, review=REVIEW)
        await asked(replica)
        await replica.tasks.CancelTask(pb.CancelTaskRequest(task_id="r.1"))
        assert await approvals(replica, run_id="r") == []


async def test_another_tenant_sees_and_decides_nothing_of_it(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        await order(replica, review=REVIEW)
        approval = await asked(replica)
        with caller(tenant="other"):
            assert await approvals(replica) == []
            for attempt in (
                decide(replica, approval, "APPROVE"),
                replica.approvals.ReassignApproval(_reassigning(approval.id, "eve")),
                task(replica),
            ):
                with pytest.raises(aio.AioRpcError) as refused:
                    await attempt
                assert reason_of(refused.value) in ("APPROVAL_NOT_FOUND", "TASK_NOT_FOUND")
        assert await asked(replica) == approval


def _reassigning(approval_id: str, assignee: str, **fields: Any) -> approval_pb2.ReassignApprovalRequest:
    return approval_pb2.ReassignApprovalRequest(approval_id=approval_id, assignee=assignee, **fields)


async def test_an_approval_is_given_to_somebody_else_and_its_watchers_are_told(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        await order(replica, review=REVIEW)
        await order(replica, task_id="other.1", root_run_id="other", review=pb.OutputReview())
        approval = await asked(replica)
        await asked(replica, run_id="other")
        watch = replica.approvals.WatchApprovals(approval_pb2.WatchApprovalsRequest(run_id="r"), timeout=30)
        assert (await watch.read()).approval == approval
        given = await replica.approvals.ReassignApproval(_reassigning(approval.id, "bob", etag=approval.etag))
        assert (given.assignee, given.due_time) == ("bob", approval.due_time)
        assert (await watch.read()).approval == given
        # The same again changes nothing, whatever was read.
        assert await replica.approvals.ReassignApproval(_reassigning(approval.id, "bob", etag="1")) == given
        with pytest.raises(aio.AioRpcError) as refused:
            await replica.approvals.ReassignApproval(_reassigning(approval.id, "eve", etag="1"))
        assert reason_of(refused.value) == "ETAG_MISMATCH"
        assert [each.id for each in await approvals(replica, assignee="bob", run_id="r")] == [approval.id]
        assert len(await approvals(replica, assignee="bob")) == 2
        assert [each.assignee for each in await approvals(replica, assignee="ada@example.org")] == [""]
        await decide(replica, given, "APPROVE")
        assert (await watch.read()).approval.state == approval_pb2.APPROVAL_STATE_APPROVED
        with pytest.raises(aio.AioRpcError) as refused:
            await replica.approvals.ReassignApproval(_reassigning(approval.id, "eve"))
        assert reason_of(refused.value) == "APPROVAL_DECIDED"
        watch.cancel()


async def test_reminders_of_a_reassigned_approval_go_on_and_are_told(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        await order(replica, review=REVIEW)
        approval = await asked(replica)
        await replica.approvals.ReassignApproval(_reassigning(approval.id, "bob"))
        watch = replica.approvals.WatchApprovals(approval_pb2.WatchApprovalsRequest(run_id="r"), timeout=30)
        assert not (await watch.read()).approval.HasField("remind_time")
        past = (
            "UPDATE approvals SET {0} = {0} - interval '13 h', {1} = {1} - interval '13 h', {2} = {2} - interval '13 h'"
        )
        await replica.database.fetch(past.format("create_time", "due_time", "alarm_time"))
        reminded = (await watch.read()).approval
        assert (reminded.assignee, reminded.HasField("remind_time")) == ("bob", True)
        watch.cancel()
