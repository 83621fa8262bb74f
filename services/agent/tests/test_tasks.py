"""Tasks of crews and flows on a real Postgres and NATS: the model is scripted, and so are its tools."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status as RpcStatus
from grpc import aio
from loremesh.agent.v1 import agent_pb2, approval_pb2, conversation_pb2
from loremesh.agent.v1 import chat_job_pb2 as jobs
from loremesh.agent.v1 import task_pb2 as pb
from loremesh_agent.adapters.memory import Pause, ScriptedProvider
from loremesh_agent.adapters.postgres_chat_jobs import PostgresChatJobs
from loremesh_agent.adapters.task_callers import WaitingCallers
from loremesh_agent.adapters.toolbox import FixedToolbox
from loremesh_agent.domain.chat_jobs import ChatJob, Status
from loremesh_agent.domain.tools import Effect, ToolResult
from loremesh_agent.errors import ProviderRefused, ProviderUnavailable
from loremesh_agent.ports import ModelText
from loremesh_kit.channel import reason_of
from loremesh_kit.postgres import Connection
from loremesh_kit.testing import caller

from .replicas import DONE, Mesh, Replica, until, words
from .tool_doubles import CountingTool, calls

pytestmark = pytest.mark.steelthread

ENDED = (
    pb.AGENT_TASK_STATE_COMPLETED,
    pb.AGENT_TASK_STATE_INCOMPLETE,
    pb.AGENT_TASK_STATE_FAILED,
    pb.AGENT_TASK_STATE_CANCELLED,
)


class Transaction(Connection):
    """One that remembers what is to be done when it has ended, and is connected to nothing."""

    def __init__(self) -> None:
        self.afterwards = []

    def __del__(self) -> None:
        pass


ENDING = ChatJob(id="job", status=Status.COMPLETED, conversation_id="c", attempt=1, create_time=datetime.now(UTC))
FACTS = """
SELECT subject, data ->> 'task_id' AS task_id FROM outbox WHERE subject LIKE 'events.Task%' ORDER BY id
"""


def request(task_id: str = "run.1", message: str = "Write a poem.", **fields: Any) -> pb.CreateTaskRequest:
    if not {"reference", "invocation", "agent"} & set(fields):
        fields["agent"] = agent_pb2.Agent(id="poet", system_prompt="You write poems.", top_k_documents=0)
    return pb.CreateTaskRequest(task_id=task_id, message=message, **fields)


async def get(replica: Replica, task_id: str = "run.1") -> pb.AgentTask:
    return await replica.tasks.GetTask(pb.GetTaskRequest(task_id=task_id))


async def stands(replica: Replica, *states: int, task_id: str = "run.1") -> pb.AgentTask:
    async def does() -> bool:
        return (await get(replica, task_id)).state in states

    await until(does)
    return await get(replica, task_id)


async def ended(replica: Replica, task_id: str = "run.1") -> pb.AgentTask:
    return await stands(replica, *ENDED, task_id=task_id)


async def facts(replica: Replica) -> list[str]:
    rows = await replica.database.fetch(FACTS)
    return [row["subject"].removeprefix("events.Task") for row in rows]


async def refusal(replica: Replica, **fields: Any) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as raised:
        await replica.tasks.CreateTask(request(**fields))
    return raised.value


def struct(**fields: Any) -> Struct:
    made = Struct()
    made.update(fields)
    return made


def inline(**fields: Any) -> agent_pb2.Agent:
    return agent_pb2.Agent(id="poet", system_prompt="You write poems.", top_k_documents=0, **fields)


def uses(*names: str, **fields: Any) -> list[agent_pb2.ToolUse]:
    return [agent_pb2.ToolUse(name=name, **fields) for name in names]


async def test_a_task_is_done_and_told_of_once(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider(words("Roses are red."))
    async with mesh.replica() as replica:
        made = await replica.tasks.CreateTask(request(name="poem", root_run_id="run"))
        assert (made.task_id, made.state) == ("run.1", pb.AGENT_TASK_STATE_ACTIVE)
        task = await ended(replica)
        assert (task.state, task.output, task.usage.steps) == (pb.AGENT_TASK_STATE_COMPLETED, "Roses are red.", 1)
        assert task.model == mesh.provider.requests[0].model
        assert not task.HasField("output_json")
        assert task.create_time == made.create_time
        assert task.finish_time.ToDatetime() > task.create_time.ToDatetime()
        assert await facts(replica) == ["Finished"]
        assert await replica.tasks.CreateTask(request(name="poem", root_run_id="run")) == task
        assert [message.content.split("\n")[0] for message in mesh.provider.requests[0].messages] == [
            "You write poems.",
            "Write a poem.",
        ]
        assert len(mesh.provider.requests) == 1


async def test_who_waits_for_a_task_is_answered_with_its_end_and_nobody_else_is_told(mesh: Mesh) -> None:
    mesh.toolbox = FixedToolbox([CountingTool()])
    mesh.provider = ScriptedProvider(words("Roses are red."), calls(("read", "a"), text="So far"))
    async with mesh.replica() as replica:
        task = await replica.tasks.CreateTask(request(wait=Duration(seconds=5)))
        assert (task.state, task.output) == (pb.AGENT_TASK_STATE_COMPLETED, "Roses are red.")
        assert await get(replica) == task
        assert await replica.tasks.CreateTask(request()) == task
        limited = request("run.2", agent=inline(tools=uses("read")), limits=agent_pb2.Limits(max_steps=1))
        limited.wait.seconds = 5
        cut = await replica.tasks.CreateTask(limited)
        assert (cut.state, cut.reason) == (pb.AGENT_TASK_STATE_INCOMPLETE, "BUDGET_EXHAUSTED")
        assert await get(replica, "run.2") == cut
        assert await facts(replica) == []


async def test_who_waits_in_vain_is_told_how_the_task_stands_and_everybody_how_it_ends(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ModelText("Roses"), Pause(1), DONE])
    async with mesh.replica() as replica:
        task = await replica.tasks.CreateTask(request(wait=Duration(nanos=100_000_000)))
        assert task.state == pb.AGENT_TASK_STATE_ACTIVE
        assert (await ended(replica)).output == "Roses"
        assert await facts(replica) == ["Finished"]


async def test_a_caller_who_has_gone_is_not_counted_on(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ModelText("Roses"), Pause(1), DONE])
    async with mesh.replica() as replica:
        waiting = asyncio.ensure_future(replica.tasks.CreateTask(request(wait=Duration(seconds=5))))
        await until(mesh.asked)
        waiting.cancel()
        assert (await ended(replica)).output == "Roses"
        assert await facts(replica) == ["Finished"]


async def test_a_caller_stays_while_the_end_that_is_to_answer_them_is_being_written() -> None:
    callers, connection = WaitingCallers(), Transaction()
    with caller(tenant="acme"):
        assert not callers.tells(connection, "run.1", ENDING)
        for committed in (True, False):
            with callers.waiting("run.1") as call:
                assert callers.tells(connection, "run.1", ENDING)
                waiting = asyncio.ensure_future(call.wait(0.01))
                await asyncio.sleep(0.1)
                assert not waiting.done()
                connection.afterwards.pop()(committed)
                assert await asyncio.wait_for(waiting, 5) == (ENDING if committed else None)
    with caller(tenant="other"):
        assert not callers.tells(connection, "run.1", ENDING)


async def test_requests_with_one_id_make_one_task_and_others_are_refused(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ModelText("Roses"), Pause(60), DONE])
    async with mesh.replica() as replica:
        made = await asyncio.wait_for(_at_once(replica), 20)
        assert len({each.run_id for each in made}) == 1
        assert reason_of(await refusal(replica, message="Write another.")) == "IDEMPOTENCY_CONFLICT"
        assert reason_of(await refusal(replica, message="Write another.", agent=inline(model="no/such"))) == (
            "IDEMPOTENCY_CONFLICT"
        )
        assert len(await replica.database.fetch("SELECT 1 FROM chat_jobs")) == 1


async def _at_once(replica: Replica) -> list[pb.AgentTask]:
    async with asyncio.TaskGroup() as group:
        made = [group.create_task(_create(replica)) for _ in range(4)]
    return [each.result() for each in made]


async def _create(replica: Replica) -> pb.AgentTask:
    return await replica.tasks.CreateTask(request())


async def test_only_so_many_tasks_of_a_tenant_wait(mesh: Mesh) -> None:
    async with mesh.replica("server", chat_jobs_waiting=1) as replica:
        made = await replica.tasks.CreateTask(request())
        assert reason_of(await refusal(replica, task_id="run.2")) == "QUEUE_FULL"
        assert await replica.tasks.CreateTask(request()) == made
        with caller(tenant="other"):
            await replica.tasks.CreateTask(request())


async def test_what_a_task_says_is_in_no_list_and_is_found_by_its_run(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        made = await replica.tasks.CreateTask(request())
        await ended(replica)
        listed = await replica.conversations.ListConversations(conversation_pb2.ListConversationsRequest())
        assert not listed.conversations
        assert not (await replica.jobs.ListChatJobs(jobs.ListChatJobsRequest())).jobs
        job = await replica.job(made.run_id)
        assert (job.record.agent_id, job.conversation_id != "") == ("poet", True)
        assert (await replica.watch(made.run_id))[-1].HasField("completed")
        steps = await replica.jobs.ListRunSteps(jobs.ListRunStepsRequest(job_id=made.run_id))
        assert len(steps.steps) == 1
        for refused in (
            replica.create("And now?", conversation_id=job.conversation_id),
            replica.conversations.DeleteConversation(
                conversation_pb2.DeleteConversationRequest(conversation_id=job.conversation_id)
            ),
        ):
            with pytest.raises(aio.AioRpcError) as raised:
                await refused
            assert reason_of(raised.value) == "CONVERSATION_NOT_FOUND"


async def test_a_task_goes_with_its_run_and_shared_memories_with_the_last(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica:
        for task_id in ("run.1", "run.2"):
            await replica.tasks.CreateTask(request(task_id, memory_run_id="run"))
            await replica.tasks.CancelTask(pb.CancelTaskRequest(task_id=task_id))
        store = PostgresChatJobs(database=replica.database, waiting_limit=1, seconds=1)
        for task_id, left in (("run.1", 2), ("run.2", 0)):
            await replica.database.fetch(
                "UPDATE chat_jobs SET finish_time = now() - interval '8 days' WHERE task_id = %s", [task_id]
            )
            await store.purge()
            assert len(await replica.database.fetch("SELECT 1 FROM conversations")) == left
        assert not await replica.database.fetch("SELECT 1 FROM tasks")
        with pytest.raises(aio.AioRpcError) as raised:
            await get(replica)
        assert reason_of(raised.value) == "TASK_NOT_FOUND"


async def test_an_agent_that_nobody_keeps_has_tools_and_a_schema(mesh: Mesh) -> None:
    tool = CountingTool()
    mesh.toolbox = FixedToolbox([tool])
    mesh.provider = ScriptedProvider(calls(("read", "a")), words('{"lines": 4}'))
    schema = struct(type="object", properties={"lines": {"type": "integer"}}, required=["lines"])
    async with mesh.replica() as replica:
        await replica.tasks.CreateTask(request(agent=inline(tools=uses("read"), response_schema=schema)))
        task = await ended(replica)
        assert (task.output, dict(task.output_json)) == ('{"lines": 4}', {"lines": 4})
        assert len(tool.calls) == 1
        assert mesh.provider.requests[0].response_schema is not None
        assert await facts(replica) == ["Finished"]


async def test_a_kept_agent_is_taken_as_it_was_and_changed_for_the_task_alone(mesh: Mesh) -> None:
    mesh.toolbox = FixedToolbox([CountingTool(), CountingTool(name="send")])
    mesh.provider = ScriptedProvider(words("Done."))
    async with mesh.replica() as replica:
        kept = agent_pb2.Agent(
            id="writer", system_prompt="First.", top_k_documents=0, tools=uses("read"),
            limits=agent_pb2.Limits(max_steps=3, max_tokens=9000),
        )  # fmt: skip
        await replica.agents.CreateAgent(agent_pb2.CreateAgentRequest(agent=kept))
        changed = agent_pb2.Agent(id="writer", system_prompt="Second.")
        await replica.agents.UpdateAgent(agent_pb2.UpdateAgentRequest(agent=changed))
        runs = []
        for number, (revision, more) in enumerate(
            [
                (1, {}),
                (0, {}),
                (2, {"replace_tools": True, "tools": uses("send"), "limits": agent_pb2.Limits(max_steps=2)}),
                (1, {"replace_tools": True}),
            ]
        ):
            reference = pb.AgentReference(agent_id="writer", revision=revision)
            made = await replica.tasks.CreateTask(request(f"run.{number}", reference=reference, **more))
            await ended(replica, f"run.{number}")
            job = await replica.job(made.run_id)
            asked = mesh.provider.requests[number]
            rules = await replica.database.fetch("SELECT record FROM chat_jobs WHERE id = %s", [made.run_id])
            budget = rules[0]["record"]["rules"]["budget"]
            first, tools = asked.messages[0].content.split("\n")[0], [each.name for each in asked.tools]
            runs.append((first, job.record.agent_revision, tools, (budget["steps"], budget["tokens"])))
        assert runs == [
            ("First.", 1, ["read"], (3, 9000)),
            ("Second.", 2, ["read"], (3, 9000)),
            ("Second.", 2, ["send"], (2, 9000)),
            ("First.", 1, [], (3, 9000)),
        ]


async def test_a_task_is_done_by_the_revision_there_was_when_it_was_accepted(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica:
        kept = agent_pb2.Agent(id="writer", system_prompt="First.", top_k_documents=0)
        await replica.agents.CreateAgent(agent_pb2.CreateAgentRequest(agent=kept))
        reference = pb.AgentReference(agent_id="writer")
        await replica.tasks.CreateTask(request(reference=reference))
        changed = agent_pb2.Agent(id="writer", system_prompt="Second.")
        await replica.agents.UpdateAgent(agent_pb2.UpdateAgentRequest(agent=changed))
        await replica.agents.DeleteAgent(agent_pb2.DeleteAgentRequest(agent_id="writer"))
        # It is the same task, though nobody could ask for it now.
        assert (await replica.tasks.CreateTask(request(reference=reference))).state == pb.AGENT_TASK_STATE_ACTIVE
        async with replica.worker():
            await ended(replica)
        assert mesh.provider.requests[0].messages[0].content.startswith("First.")


@pytest.mark.parametrize(
    ("fields", "reason", "named"),
    [
        ({"agent": inline(model="no/such")}, "MODEL_UNKNOWN", ["agent.model"]),
        ({"agent": inline(tools=uses("nothing"))}, "TOOL_NOT_FOUND", ["agent.tools[0].name"]),
        ({"replace_tools": True, "tools": uses("nothing")}, "TOOL_NOT_FOUND", ["tools[0].name"]),
        ({"response_schema": struct(type="array")}, "SCHEMA_INVALID", ["response_schema"]),
        (
            {"agent": inline(model="no/such"), "replace_tools": True, "tools": uses("nothing")},
            "AGENT_INVALID",
            ["agent.model", "tools[0].name"],
        ),
        ({"reference": pb.AgentReference(agent_id="nobody")}, "AGENT_NOT_FOUND", []),
        ({"reference": pb.AgentReference(agent_id="default", revision=7)}, "AGENT_REVISION_NOT_FOUND", []),
        ({"invocation": pb.ToolInvocation(tool=uses("nothing")[0])}, "TOOL_NOT_FOUND", []),
        ({"invocation": pb.ToolInvocation(tool=uses("read")[0])}, "TOOL_ARGUMENTS_INVALID", ["invocation.arguments"]),
        ({"message": " "}, "MESSAGE_EMPTY", ["message"]),
        ({"message": "word " * 20_000}, "MESSAGE_TOO_LONG", ["message"]),
    ],
)
async def test_what_can_never_be_done_is_refused(
    mesh: Mesh, fields: dict[str, Any], reason: str, named: list[str]
) -> None:
    mesh.toolbox = FixedToolbox([CountingTool()])
    async with mesh.replica("server") as replica:
        error = await refusal(replica, **fields)
        assert reason_of(error) == reason
        assert [each.field for each in violations(error)] == named
        assert not await replica.database.fetch("SELECT 1 FROM tasks")


def violations(error: aio.AioRpcError) -> list[Any]:
    found = BadRequest()
    for detail in details(error):
        detail.Unpack(found)
    return list(found.field_violations)


def details(error: aio.AioRpcError) -> list[Any]:
    trailing = dict(error.trailing_metadata() or ())
    return list(RpcStatus.FromString(trailing["grpc-status-details-bin"]).details)


def invocation(name: str = "read", policy: str = "AS_NEEDED", **arguments: Any) -> pb.ToolInvocation:
    approval = agent_pb2.ApprovalPolicy.Value(f"APPROVAL_POLICY_{policy}")
    (tool,) = uses(name, approval=approval)
    return pb.ToolInvocation(tool=tool, arguments=struct(**(arguments or {"x": "a"})))


async def test_a_task_can_be_one_call_of_a_tool_without_a_model(mesh: Mesh) -> None:
    said = {"a": '{"said": "a"}', "d": f'{{"a": {"[" * 99}{"]" * 99}}}', "e": f'{{"a": {"9" * 400}}}'}

    async def answers(arguments: Any) -> ToolResult:
        return ToolResult(content=said.get(arguments["x"], "Hm."), failed=arguments["x"] == "b")

    tool = CountingTool(untrusted=True, answers=answers)
    mesh.toolbox = FixedToolbox([tool])
    async with mesh.replica() as replica:
        for number, x in enumerate("abcde"):
            await replica.tasks.CreateTask(request(f"run.{number}", "", invocation=invocation(x=x)))
            await ended(replica, f"run.{number}")
        done, failed, *others = [await get(replica, f"run.{number}") for number in range(5)]
        assert (done.state, done.output, dict(done.output_json)) == (3, '{"said": "a"}', {"said": "a"})
        assert (done.usage.tool_calls, done.usage.steps) == (1, 0)
        assert (failed.state, failed.reason, failed.message, failed.retryable) == (5, "TOOL_FAILED", "Hm.", False)
        assert [(each.output, each.HasField("output_json")) for each in others] == [
            ("Hm.", False),
            (said["d"], False),
            (said["e"], False),
        ]
        steps = (await replica.jobs.ListRunSteps(jobs.ListRunStepsRequest(job_id=done.run_id))).steps
        assert [(step.number, step.name, step.state) for step in steps] == [(1, "read", jobs.STEP_STATE_DONE)]
        assert steps[0].idempotency_key == tool.calls[0][1].idempotency_key
        assert await facts(replica) == ["Finished"] * 5
        assert mesh.provider.requests == []


async def decide(replica: Replica, task: pb.AgentTask, decision: str, **fields: Any) -> None:
    await replica.approvals.DecideApproval(
        approval_pb2.DecideApprovalRequest(
            approval_id=task.approval_id, decision=approval_pb2.Decision.Value(f"DECISION_{decision}"), **fields
        )
    )


@pytest.mark.parametrize("effect", [Effect.SIDE_EFFECTING, Effect.READ_ONLY])
async def test_one_call_waits_for_a_human_who_may_refuse_it(mesh: Mesh, effect: Effect) -> None:
    tool = CountingTool(name="pay", effect=effect)
    mesh.toolbox = FixedToolbox([tool])
    policy = "ALWAYS" if effect is Effect.READ_ONLY else "AS_NEEDED"
    async with mesh.replica() as replica:
        for number, decision in enumerate(("APPROVE", "DENY")):
            task_id = f"run.{number}"
            await replica.tasks.CreateTask(request(task_id, "", invocation=invocation("pay", policy)))
            waiting = await stands(replica, pb.AGENT_TASK_STATE_WAITING, task_id=task_id)
            assert not tool.calls[number:]
            await decide(replica, waiting, decision)
            await ended(replica, task_id)
        done, denied = [await get(replica, f"run.{number}") for number in range(2)]
        assert (done.state, done.output, done.approval_id) == (3, "pay says a", "")
        assert (denied.state, denied.reason) == (5, "TOOL_DENIED")
        assert len(tool.calls) == 1
        assert await facts(replica) == ["Waiting", "Resumed", "Finished"] * 2


async def test_one_call_is_finished_by_another_worker_and_never_made_twice(mesh: Mesh) -> None:
    begun = asyncio.Event()

    async def answers(_: Any) -> ToolResult:
        if not begun.is_set():
            begun.set()
            await asyncio.sleep(60)
        return ToolResult(content="done")

    effects = {"read": Effect.READ_ONLY, "pay": Effect.SIDE_EFFECTING}
    tools = {name: CountingTool(name=name, effect=effect, answers=answers) for name, effect in effects.items()}
    mesh.toolbox = FixedToolbox(tools.values())
    async with mesh.replica() as replica, mesh.replica():
        for name, tool in tools.items():
            begun.clear()
            made = await replica.tasks.CreateTask(request(name, "", invocation=invocation(name, "NEVER")))
            await begun.wait()
            await lose(replica, made)
            task = await stands(replica, *ENDED, pb.AGENT_TASK_STATE_WAITING, task_id=name)
            if name == "pay":
                assert (task.state, len(tool.calls)) == (pb.AGENT_TASK_STATE_WAITING, 1)
                await decide(replica, task, "ANSWER", answer="It was paid.")
                assert (await ended(replica, name)).output == "It was paid."
            else:
                assert (task.output, len(tool.calls)) == ("done", 2)


async def lose(replica: Replica, task: pb.AgentTask) -> None:
    """Have the task taken from its worker, as from one whose lease ran out."""
    taken = "UPDATE jobs SET state = 'QUEUED', fence = fence + 1, lease_until = NULL, announced_at = NULL WHERE id = %s"
    await replica.database.fetch(taken, [task.run_id])


async def test_a_lost_workers_task_is_finished_by_another_and_told_once(mesh: Mesh) -> None:
    tool = CountingTool()
    mesh.toolbox = FixedToolbox([tool])
    mesh.provider = ScriptedProvider(calls(("read", "a")), [ModelText("Ro"), Pause(60), DONE], words("Roses."))
    async with mesh.replica() as one, mesh.replica() as other:
        made = await one.tasks.CreateTask(request(agent=inline(tools=uses("read"))))
        await until(lambda: mesh.asked(2))
        await lose(one, made)
        assert (await ended(other)).output == "Roses."
        assert (await one.job(made.run_id)).attempt == 2
        assert len(tool.calls) == 1
        assert await facts(other) == ["Finished"]


async def test_a_cancelled_task_stops_what_it_does_and_is_told_once(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ModelText("Roses"), Pause(60), DONE])
    async with mesh.replica() as replica:
        await replica.tasks.CreateTask(request())
        await until(mesh.asked)
        for _ in range(2):
            task = await replica.tasks.CancelTask(pb.CancelTaskRequest(task_id="run.1"))
            assert (task.state, task.reason) == (pb.AGENT_TASK_STATE_CANCELLED, "RUN_CANCELLED")
        await until(mesh.closed)
        assert await facts(replica) == ["Finished"]


async def test_a_task_that_fails_or_is_cut_says_why(mesh: Mesh) -> None:
    mesh.toolbox = FixedToolbox([CountingTool()])
    mesh.provider = ScriptedProvider(
        [ProviderRefused("No.", provider="local", model="m")], calls(("read", "a"), text="So far"),
        [ModelText("Roses"), Pause(60), DONE],
    )  # fmt: skip
    async with mesh.replica() as replica:
        await replica.tasks.CreateTask(request())
        failed = await ended(replica)
        assert (failed.state, failed.reason, failed.retryable) == (5, "PROVIDER_REFUSED", False)
        limits = agent_pb2.Limits(max_steps=1)
        await replica.tasks.CreateTask(request("run.2", agent=inline(tools=uses("read")), limits=limits))
        cut = await ended(replica, "run.2")
        assert (cut.state, cut.reason, cut.output) == (4, "BUDGET_EXHAUSTED", "So far")
        assert cut.message == "The run reached its limit of steps."
        limits = agent_pb2.Limits(max_time=Duration(seconds=1))
        await replica.tasks.CreateTask(request("run.3", limits=limits))
        late = await ended(replica, "run.3")
        assert (late.state, late.reason, late.output) == (4, "TASK_TIMEOUT", "Roses")
        assert await facts(replica) == ["Finished"] * 3


async def test_an_id_that_no_row_can_have_is_of_no_task(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        for call in (
            replica.tasks.GetTask(pb.GetTaskRequest(task_id="run.2\0")),
            replica.tasks.CancelTask(pb.CancelTaskRequest(task_id="run.2\0")),
            replica.tasks.AnswerDelegation(pb.AnswerDelegationRequest(task_id="run.2\0", delegation_id="d")),
        ):
            with pytest.raises(aio.AioRpcError) as raised:
                await call
            assert reason_of(raised.value) == "TASK_NOT_FOUND"


async def test_a_task_is_its_tenants_own(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        made = await replica.tasks.CreateTask(request())
        with caller(tenant="other"):
            for call in (
                replica.tasks.GetTask(pb.GetTaskRequest(task_id="run.1")),
                replica.tasks.CancelTask(pb.CancelTaskRequest(task_id="run.1")),
            ):
                with pytest.raises(aio.AioRpcError) as raised:
                    await call
                assert reason_of(raised.value) == "TASK_NOT_FOUND"
            theirs = await replica.tasks.CreateTask(request())
            assert theirs.run_id != made.run_id
            assert (await ended(replica)).run_id == theirs.run_id
        assert (await ended(replica)).run_id == made.run_id


def remembering(id_: str, **settings: Any) -> agent_pb2.Agent:
    memory = agent_pb2.MemorySettings(recall=True, extract=True, **settings)
    return agent_pb2.Agent(id=id_, system_prompt="You help.", top_k_documents=0, memory=memory)


async def test_what_one_task_of_a_run_comes_to_the_next_recalls(mesh: Mesh) -> None:
    fact = '{"facts": [{"content": "The harbour of Genoa is closed.", "subject": "harbour", "attribute": "",'
    mesh.provider = ScriptedProvider(
        words("Palermo is open instead."), words(fact + ' "kind": "ENTITY", "confidence": 1}]}'),
        words("I know."), words('{"facts": []}'),
        words("I know."), words('{"facts": []}'),
        words("Nothing."),
    )  # fmt: skip
    shared = {"memory_agent_id": "crew.sea", "memory_run_id": "run"}
    said = "The harbour of Genoa is closed."
    async with mesh.replica() as replica:
        await replica.tasks.CreateTask(request(message=said, agent=remembering("one"), name="look", **shared))
        await ended(replica)
        for task_id, more in (
            ("run.2", shared),
            ("run2.1", shared | {"memory_run_id": "run2"}),
            ("alone.1", {}),
        ):
            asked = "Is the harbour of Genoa or Palermo open?"
            await replica.tasks.CreateTask(request(task_id, asked, agent=remembering("other"), **more))
            await ended(replica, task_id)
        told = [mesh.provider.requests[at].messages[-1].content for at in (2, 4, 6)]
        assert ["The harbour of Genoa is closed." in each for each in told] == [True, True, False]
        assert ["look: Palermo is open instead." in each for each in told] == [True, False, False]


async def test_an_agents_model_is_asked_so_often_in_a_minute(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loremesh_agent.adapters.postgres_minutes._SECONDS", 1.0)
    limits = agent_pb2.Limits(max_rpm=2, max_time=Duration(nanos=0, seconds=1))
    async with mesh.replica() as replica, mesh.replica() as other:
        (began,) = await replica.database.fetch("SELECT floor(extract(epoch FROM clock_timestamp()))::int AS second")
        for number in range(5):
            await (replica, other)[number % 2].tasks.CreateTask(request(f"run.{number}", agent=inline(limits=limits)))
        tasks = [await ended(replica, f"run.{number}") for number in range(5)]
        # Waiting for its minute counts as nobody's work.
        assert {task.state for task in tasks} == {pb.AGENT_TASK_STATE_COMPLETED}
        # Five at two a minute take three of them.
        (last,) = await replica.database.fetch(
            "SELECT count(*) AS agents, max(minute)::int AS second FROM agent_minutes"
        )
        assert last["agents"] == 1
        assert last["second"] - began["second"] >= 2


async def test_what_others_wrote_in_a_task_has_a_human_asked_before_anything_changes(mesh: Mesh) -> None:
    tool = CountingTool("pay", Effect.SIDE_EFFECTING)
    mesh.toolbox = FixedToolbox([tool])
    mesh.provider = ScriptedProvider(calls(("pay", "a")), words("Paid."), calls(("pay", "b")))
    agent = inline(tools=uses("pay"))
    async with mesh.replica() as replica:
        await replica.tasks.CreateTask(request(agent=agent))
        assert (await ended(replica)).output == "Paid."
        await replica.tasks.CreateTask(request("run.2", agent=agent, untrusted=True))
        assert (await stands(replica, pb.AGENT_TASK_STATE_WAITING, task_id="run.2")).approval_id
        assert len(tool.calls) == 1


@pytest.mark.parametrize(("effect", "retryable"), [(Effect.SIDE_EFFECTING, False), (Effect.IDEMPOTENT, True)])
async def test_a_task_that_changed_something_is_not_to_be_done_anew(
    mesh: Mesh, effect: Effect, retryable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loremesh_agent.adapters.postgres_tasks.MAX_ATTEMPTS", 1)
    mesh.toolbox = FixedToolbox([CountingTool("pay", effect)])
    away = ProviderUnavailable("No.", provider="local", model="m")
    mesh.provider = ScriptedProvider(calls(("pay", "a")), *[[away]] * 20)
    async with mesh.replica() as replica:
        await replica.tasks.CreateTask(request(agent=inline(tools=uses("pay"))))
        failed = await ended(replica)
        assert (failed.reason, failed.retryable) == ("PROVIDER_UNAVAILABLE", retryable)
