"""The agent service asked over gRPC, as it answers."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc import aio
from grpc_status import rpc_status
from loremesh.agent.v1 import agent_pb2, memory_pb2, memory_pb2_grpc
from loremesh.agent.v1 import task_pb2 as pb
from loremesh.agent.v1.task_pb2_grpc import add_TaskServiceServicer_to_server
from loremesh_crew.adapters.agent_tasks import AgentServiceTasks
from loremesh_crew.domain.definitions import HumanInput, ToolUse
from loremesh_crew.domain.machine import (
    AgentReference,
    AgentSpec,
    TaskLimits,
    TaskRequest,
    TaskStatus,
    ToolInvocation,
)
from loremesh_crew.errors import TaskRefused
from loremesh_kit.channel import open_channel
from loremesh_kit.errors import DependencyUnavailable, Internal
from loremesh_kit.testing import caller

pytestmark = [pytest.mark.steelthread, pytest.mark.usefixtures("who")]


class Tasks:
    """Answers as it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer = pb.AgentTask(task_id="r.1", run_id="job", state=pb.AGENT_TASK_STATE_ACTIVE)
        self.refusal: tuple[grpc.StatusCode, str] | None = None

    async def _take(self, request: Any, context: Any, answer: Any) -> Any:
        self.asked.append(request)
        if self.refusal:
            code, reason = self.refusal
            status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message="No.")
            status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason))
            await context.abort_with_status(rpc_status.to_status(status))
        return answer

    async def CreateTask(self, request: Any, context: Any) -> Any:  # noqa: N802 - the rpc's
        return await self._take(request, context, self.answer)

    async def GetTask(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._take(request, context, self.answer)

    async def CancelTask(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._take(request, context, self.answer)

    async def AnswerDelegation(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._take(request, context, pb.AnswerDelegationResponse())

    async def ForgetMemories(self, request: Any, context: Any) -> Any:  # noqa: N802
        return await self._take(request, context, memory_pb2.MemoryReceipt())

    def __getattr__(self, name: str) -> Any:
        """The other rpcs of MemoryService, which nobody asks."""
        if not name[0].isupper():
            raise AttributeError(name)
        return None


@pytest.fixture
def service() -> Tasks:
    return Tasks()


@pytest.fixture
async def tasks(service: Tasks) -> AsyncIterator[AgentServiceTasks]:
    server = aio.server()
    add_TaskServiceServicer_to_server(service, server)
    memory_pb2_grpc.add_MemoryServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield AgentServiceTasks(channel=channel)
    await server.stop(None)


async def test_all_that_a_task_is_asked_with_arrives(service: Tasks, tasks: AgentServiceTasks):
    spec = AgentSpec(id="press.writer", system_prompt="You write.", tools=(ToolUse(name="search"),), recall=True)
    await tasks.create(
        "r.1",
        TaskRequest(
            name="write",
            message="Write.",
            agent=spec,
            tools=(),
            response_schema={"type": "object"},
            limits=TaskLimits(max_steps=3, max_seconds=90.5, max_rpm=6),
            coworkers=(("ada", "Researcher"),),
            review=HumanInput(question="Good?", due_seconds=120.0, assignee="bob", max_rounds=2),
            memory_agent_id="crew.press",
            memory_run_id="r",
            priority=-5,
        ),
        root_run_id="r",
    )

    (asked,) = service.asked
    assert (asked.task_id, asked.root_run_id, asked.name, asked.message) == ("r.1", "r", "write", "Write.")
    assert (asked.agent.id, asked.agent.tools[0].name, asked.agent.memory.recall) == ("press.writer", "search", True)
    assert (list(asked.tools), asked.replace_tools) == ([], True)
    assert dict(asked.response_schema) == {"type": "object"}
    assert (asked.limits.max_steps, asked.limits.max_rpm, asked.limits.max_time.ToMilliseconds()) == (3, 6, 90_500)
    assert [(each.name, each.role) for each in asked.coworkers] == [("ada", "Researcher")]
    assert (asked.review.question, asked.review.due_in.seconds, asked.review.max_rounds) == ("Good?", 120, 2)
    assert asked.review.on_expiry == agent_pb2.EXPIRY_POLICY_DENY
    assert (asked.memory_agent_id, asked.memory_run_id, asked.priority) == ("crew.press", "r", -5)


async def test_each_kind_of_worker_is_named(service: Tasks, tasks: AgentServiceTasks):
    kept = TaskRequest(name="a", message="b", reference=AgentReference(agent_id="known", revision=3))
    tool = TaskRequest(name="a", invocation=ToolInvocation(tool=ToolUse(name="clock"), arguments={"zone": "UTC"}))
    for request in (kept, tool):
        await tasks.create("r.1", request, root_run_id="r")

    assert [each.WhichOneof("worker") for each in service.asked] == ["reference", "invocation"]
    assert service.asked[0].reference.revision == 3
    assert not service.asked[0].replace_tools
    assert dict(service.asked[1].invocation.arguments) == {"zone": "UTC"}


async def test_how_a_task_stands_is_read(service: Tasks, tasks: AgentServiceTasks):
    service.answer = pb.AgentTask(
        task_id="r.1",
        run_id="job",
        state=pb.AGENT_TASK_STATE_WAITING,
        approval_id="approval",
        delegations=[pb.Delegation(id="d", coworker="ada", description="Look it up.", context="Tea.")],
    )
    standing = await tasks.get("r.1")

    assert standing is not None
    assert (standing.waits, standing.approval_id, standing.outcome) == (True, "approval", None)
    assert [(each.id, each.coworker, each.context) for each in standing.delegations] == [("d", "ada", "Tea.")]


async def test_how_a_task_ended_is_read_without_what_no_row_holds(service: Tasks, tasks: AgentServiceTasks):
    service.answer = pb.AgentTask(
        task_id="r.1", run_id="job", state=pb.AGENT_TASK_STATE_FAILED, output="a\0b", reason="X", retryable=True
    )
    service.answer.output_json.update({"k\0": ["v\0"]})
    service.answer.usage.input_tokens = 7
    service.answer.sources.add(number=1, title="Tea")
    outcome = (await tasks.create("r.1", TaskRequest(name="a", message="b"), root_run_id="r")).outcome

    assert outcome is not None
    assert (outcome.status, outcome.output, outcome.output_json) == (TaskStatus.FAILED, "ab", {"k": ["v"]})
    assert (outcome.reason, outcome.retryable, outcome.usage.input_tokens) == ("X", True, 7)
    assert outcome.sources == ({"number": 1, "title": "Tea"},)


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS"])
async def test_what_will_never_be_is_refused_for_good(service: Tasks, tasks: AgentServiceTasks, code: str):
    service.refusal = (grpc.StatusCode[code], "AGENT_NOT_FOUND")
    with pytest.raises(TaskRefused) as refused:
        await tasks.create("r.1", TaskRequest(name="a", message="b"), root_run_id="r")

    assert (refused.value.reason, refused.value.message) == ("AGENT_NOT_FOUND", "No.")


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "INTERNAL", "DEADLINE_EXCEEDED", "ABORTED"])
async def test_what_may_be_later_is_waited_for(service: Tasks, tasks: AgentServiceTasks, code: str):
    service.refusal = (grpc.StatusCode[code], "QUEUE_FULL")
    with pytest.raises(DependencyUnavailable):
        await tasks.create("r.1", TaskRequest(name="a", message="b"), root_run_id="r")
    with pytest.raises(DependencyUnavailable):
        await tasks.cancel("r.1")


async def test_an_answer_that_is_refused_is_not_waited_for(service: Tasks, tasks: AgentServiceTasks):
    service.refusal = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    with pytest.raises(Internal):
        await tasks.answer("r.1", "d", output="o", reason="")


async def test_a_task_there_is_not_is_none_and_needs_no_cancelling(service: Tasks, tasks: AgentServiceTasks):
    service.refusal = (grpc.StatusCode.NOT_FOUND, "TASK_NOT_FOUND")

    assert await tasks.get("r.1") is None
    await tasks.cancel("r.1")
    await tasks.answer("r.1", "d", output="o", reason="")
    assert len(service.asked) == 3


async def test_memories_of_a_run_are_forgotten_for_whose_run_it_was(service: Tasks, tasks: AgentServiceTasks):
    for principal in ("ada", "anonymous"):
        with caller(principal=principal):
            await tasks.forget("r", agent_ids=["crew.press"])

    scopes = [(each.scope.user_id, each.scope.agent_id, each.scope.conversation_id) for each in service.asked]
    assert scopes == [("ada", "crew.press", "r"), ("", "crew.press", "r")]
