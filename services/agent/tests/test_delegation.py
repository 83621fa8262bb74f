"""Agents that hand work on to others of their crew, on a real Postgres and NATS; the model is scripted."""

import json
from datetime import timedelta
from typing import Any

import pytest
from grpc import aio
from loremesh.agent.v1 import agent_pb2, chat_pb2
from loremesh.agent.v1 import chat_job_pb2 as jobs_pb
from loremesh.agent.v1 import task_pb2 as pb
from loremesh_agent.adapters.memory import ScriptedProvider
from loremesh_agent.adapters.toolbox import FixedToolbox
from loremesh_agent.domain.tools import Effect, ToolCall, ToolResult
from loremesh_agent.ports import ModelToolCall
from loremesh_kit.channel import reason_of
from loremesh_kit.loops import background
from loremesh_kit.testing import caller

from .order_doubles import CANCELLED, COMPLETED, WAITING, asked, decide, deliver, facts, order, stands, task
from .replicas import Mesh, Replica, Script, check, kinds, until, words
from .tool_doubles import CALLING, CountingTool

pytestmark = pytest.mark.steelthread

CREW = [pb.Coworker(name="Ada", role="Researcher"), pb.Coworker(name="Bob")]


def hands_on(*work: tuple[str, str, str], more: Script | None = None) -> Script:
    """A model that hands on: tool, coworker and what is to be done of each."""
    calls: Script = []
    for tool, to, what in work:
        asked_for = {
            "coworker": to,
            "task" if tool == "delegate_work" else "question": what,
            "context": "It is urgent.",
        }
        calls.append(ModelToolCall(ToolCall(id=f"id{len(calls)}", name=tool, arguments=json.dumps(asked_for))))
    return [*calls, *(more or []), CALLING]


async def open_work(replica: Replica, count: int, task_id: str = "r.1") -> list[pb.Delegation]:
    async def is_waiting() -> bool:
        found = await task(replica, task_id)
        return found.state == WAITING and len(found.delegations) == count

    await until(is_waiting)
    return list((await task(replica, task_id)).delegations)


async def test_work_is_handed_on_and_its_result_is_the_tools(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider(hands_on(("delegate_work", " ada ", "Find a rhyme.")), words("Roses are red."))
    async with mesh.replica("server") as replica:
        made = await order(replica, coworkers=CREW)
        async with mesh.replica("worker"):
            (work,) = await open_work(replica, 1)
        assert (work.coworker, work.description, work.context) == ("Ada", "Find a rhyme.", "It is urgent.")
        assert (await task(replica)).approval_id == ""
        assert await facts(replica, "WorkDelegated") == ["r.1"]
        (row,) = await replica.database.fetch("SELECT state FROM jobs WHERE kind = 'chat'")
        assert row["state"] == "PARKED"
        await deliver(replica, work.id, "red and bed")
        await deliver(replica, work.id, "blue and clue")
        async with mesh.replica("worker"):
            done = await stands(replica, COMPLETED)
        assert (done.output, list(done.delegations)) == ("Roses are red.", [])
        first, second = mesh.provider.requests
        tools = {spec.name: spec.description for spec in first.tools}
        assert set(tools) == {"delegate_work", "ask_coworker"}
        assert "- Ada: Researcher\n- Bob" in tools["delegate_work"]
        assert second.messages[-1].content == '<tool_result tool="delegate_work">\nred and bed\n</tool_result>'
        events = await replica.watch(made.run_id)
        check(events)
        assert kinds(events).count("tool_call") == kinds(events).count("tool_result") == 1
        assert {event.attempt for event in events} == {1}


async def test_several_are_handed_on_at_once_and_the_run_goes_on_with_all(mesh: Mesh) -> None:
    work = (("delegate_work", "Ada", "One."), ("ask_coworker", "Bob", "Two?"), ("delegate_work", "Eve", "Three."))
    mesh.provider = ScriptedProvider(hands_on(*work), words("Done."))
    async with mesh.replica() as replica:
        made = await order(replica, coworkers=CREW)
        one, two = await open_work(replica, 2)
        assert [(each.coworker, each.description) for each in (one, two)] == [("Ada", "One."), ("Bob", "Two?")]
        await deliver(replica, two.id, reason="BUDGET_EXHAUSTED")
        assert [each.id for each in await open_work(replica, 1)] == [one.id]
        assert len(mesh.provider.requests) == 1
        await deliver(replica, one.id, "1")
        await stands(replica, COMPLETED)
        told = [message.content for message in mesh.provider.requests[1].messages if message.role == "tool"]
        assert "\n1\n" in told[0]
        assert "It was not done: BUDGET_EXHAUSTED." in told[1]
        assert told[2] == "Not handed on. The coworkers are: Ada, Bob."
        results = {
            event.tool_result.call_id: event.tool_result
            for event in await replica.watch(made.run_id)
            if event.WhichOneof("payload") == "tool_result"
        }
        refused = chat_pb2.TOOL_OUTCOME_REFUSED
        assert [(results[id_].outcome, results[id_].reason) for id_ in sorted(results)] == [
            (chat_pb2.TOOL_OUTCOME_OK, ""), (refused, "BUDGET_EXHAUSTED"), (refused, "COWORKER_UNKNOWN"),
        ]  # fmt: skip
        assert await facts(replica, "WorkDelegated") == ["r.1"]


async def test_a_human_and_a_coworker_are_waited_for_together_in_either_order(mesh: Mesh) -> None:
    sent = CountingTool(name="send", effect=Effect.SIDE_EFFECTING)
    mesh.toolbox = FixedToolbox([sent])
    more: Script = [ModelToolCall(ToolCall(id="s", name="send", arguments='{"x": "a"}'))]
    script = hands_on(("delegate_work", "Ada", "One."), more=more)
    mesh.provider = ScriptedProvider(script, script, words("Done."))
    uses = [agent_pb2.ToolUse(name="send", approval=agent_pb2.APPROVAL_POLICY_ALWAYS)]
    async with mesh.replica() as replica:
        await order(replica, coworkers=CREW, of_agent={"tools": uses})
        (work,) = await open_work(replica, 1)
        approval = await asked(replica)
        await decide(replica, approval, "APPROVE")

        async def is_sent() -> bool:
            return len(sent.calls) == 1 and (await task(replica)).state == WAITING

        await until(is_sent)
        await deliver(replica, work.id, "1")
        (again,) = await open_work(replica, 1)
        assert again.id != work.id
        approval = await asked(replica)
        await deliver(replica, again.id, "2")
        assert (await task(replica)).state == WAITING or (await asked(replica)).id == approval.id
        await decide(replica, approval, "APPROVE")
        await stands(replica, COMPLETED)
        assert len(sent.calls) == 2
        # What was told of one attempt was told once.
        (row,) = await replica.database.fetch("SELECT id FROM chat_jobs")
        events = await replica.watch(row["id"])
        check(events)
        calls = [event.tool_call.call_id for event in events if event.WhichOneof("payload") == "tool_call"]
        assert sorted(calls) == sorted(set(calls))
        assert len(calls) == 4


async def test_waiting_for_others_takes_none_of_the_runs_time(mesh: Mesh) -> None:
    limits = agent_pb2.Limits()
    limits.max_time.FromSeconds(60)
    mesh.provider = ScriptedProvider(hands_on(("ask_coworker", "Ada", "Well?")), words("Done."))
    async with mesh.replica() as replica:
        await order(replica, coworkers=CREW, limits=limits)
        (work,) = await open_work(replica, 1)
        earlier = """
        UPDATE chat_jobs SET create_time = create_time - %(by)s, begin_time = begin_time - %(by)s,
            wait_time = wait_time - %(by)s
        """
        await replica.database.fetch(earlier, {"by": timedelta(days=30)})
        await replica.database.fetch("UPDATE jobs SET deadline = now() - interval '1 d'")
        await deliver(replica, work.id, "Well.")
        assert (await stands(replica, COMPLETED)).output == "Done."


async def test_what_comes_after_a_cancellation_changes_nothing(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider(hands_on(("ask_coworker", "Ada", "Well?")))
    async with mesh.replica() as replica:
        await order(replica, coworkers=CREW)
        (work,) = await open_work(replica, 1)
        await replica.tasks.CancelTask(pb.CancelTaskRequest(task_id="r.1"))
        await deliver(replica, work.id, "Well.")
        cancelled = await task(replica)
        assert (cancelled.state, list(cancelled.delegations)) == (CANCELLED, [])
        assert await replica.database.fetch("SELECT output, answer_time FROM delegations") == [
            {"output": "", "answer_time": None}
        ]


async def test_what_was_never_handed_on_cannot_be_delivered(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider(hands_on(("ask_coworker", "Ada", "Well?")))
    async with mesh.replica() as replica:
        await order(replica, coworkers=CREW)
        (work,) = await open_work(replica, 1)
        with caller(tenant="other"), pytest.raises(aio.AioRpcError) as refused:
            await deliver(replica, work.id, "I am another's.")
        assert reason_of(refused.value) == "TASK_NOT_FOUND"
        for task_id, delegation_id in (("none", work.id), ("r.1", "none")):
            with pytest.raises(aio.AioRpcError) as refused:
                await deliver(replica, delegation_id, task_id=task_id)
            assert reason_of(refused.value) == "TASK_NOT_FOUND"
        assert [each.id for each in await open_work(replica, 1)] == [work.id]


async def test_an_agents_own_tool_of_that_name_is_refused_beside_coworkers(mesh: Mesh) -> None:
    mesh.toolbox = FixedToolbox([CountingTool(name="ask_coworker")])
    uses = {"tools": [agent_pb2.ToolUse(name="ask_coworker")]}
    async with mesh.replica() as replica:
        with pytest.raises(aio.AioRpcError) as refused:
            await order(replica, coworkers=CREW, of_agent=uses)
        assert reason_of(refused.value) == "TOOL_NAME_CLASH"
        await order(replica, of_agent=uses)


async def test_answers_that_come_while_it_parks_are_heard(mesh: Mesh) -> None:
    """Many at once, each delivered as soon as it can be seen."""
    work = tuple(("delegate_work", "Ada", f"{at}.") for at in range(4))
    script = hands_on(*work)
    mesh.provider = ScriptedProvider(*[script] * 6, words("Done."))
    seen: set[str] = set()
    async with mesh.replica() as replica:
        made = await order(replica, coworkers=CREW)

        async def is_over() -> bool:
            rows = await replica.database.fetch("SELECT id FROM delegations WHERE answer_time IS NULL")
            async with background() as group:
                for row in rows:
                    seen.add(row["id"])
                    group.create_task(deliver(replica, row["id"], "x"))
            return (await task(replica)).state == COMPLETED

        await until(is_over)
        assert len(seen) == 24
        kept = await replica.jobs.ListRunSteps(jobs_pb.ListRunStepsRequest(job_id=made.run_id, page_size=1000))
        assert all(step.state == jobs_pb.STEP_STATE_DONE for step in kept.steps)


async def test_what_is_delivered_while_the_run_does_something_else_is_heard_before_it_waits(mesh: Mesh) -> None:
    work: list[pb.Delegation] = []

    async def delivering(_: Any) -> ToolResult:
        await deliver(replica, work[0].id, "1")
        return ToolResult(content="sent")

    mesh.toolbox = FixedToolbox([CountingTool(name="send", effect=Effect.SIDE_EFFECTING, answers=delivering)])
    more: Script = [ModelToolCall(ToolCall(id="s", name="send", arguments='{"x": "a"}'))]
    mesh.provider = ScriptedProvider(hands_on(("delegate_work", "Ada", "One."), more=more), words("Done."))
    uses = [agent_pb2.ToolUse(name="send", approval=agent_pb2.APPROVAL_POLICY_ALWAYS)]
    async with mesh.replica() as replica:
        await order(replica, coworkers=CREW, of_agent={"tools": uses})
        work += await open_work(replica, 1)
        await decide(replica, await asked(replica), "APPROVE")
        assert (await stands(replica, COMPLETED)).output == "Done."
