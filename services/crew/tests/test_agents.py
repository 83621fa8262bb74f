"""The agent service, asked about agents over gRPC."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from grpc import StatusCode, aio
from loremesh.agent.v1 import agent_pb2 as pb
from loremesh.agent.v1.agent_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from loremesh_crew.adapters.agents import GrpcAgents
from loremesh_crew.domain.definitions import CrewAgent, CrewTask, MemorySettings, ToolUse
from loremesh_crew.engine.vetting import Vetting, about_agent, about_task
from loremesh_kit.channel import open_channel
from loremesh_kit.errors import Code, DependencyUnavailable, FieldViolation, ServiceError
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.testing import caller, serving

pytestmark = pytest.mark.unit


class Refused(ServiceError):
    """As the agent service would say it."""

    code = Code.NOT_FOUND

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class AgentService(AgentServiceServicer):
    """Knows one agent, and finds wrong what it is told to."""

    found: dict[str, str] = field(default_factory=dict)
    asked: list[pb.Agent] = field(default_factory=list)
    fails: Exception | None = None

    async def ValidateAgent(self, request: pb.ValidateAgentRequest, context: Any) -> pb.ValidateAgentResponse:  # noqa: N802
        self.asked.append(request.agent)
        if self.fails:
            raise self.fails
        return pb.ValidateAgentResponse(
            violations=[
                pb.AgentViolation(field=name, description="No.", reason=why) for name, why in self.found.items()
            ]
        )

    async def GetAgent(self, request: pb.GetAgentRequest, context: Any) -> pb.Agent:  # noqa: N802
        if self.fails:
            raise self.fails
        if request.agent_id != "kept":
            raise Refused("AGENT_NOT_FOUND")
        if request.revision > 3:
            raise Refused("AGENT_REVISION_NOT_FOUND")
        return pb.Agent(id="kept", revision=request.revision or 3)


@pytest.fixture
async def mesh() -> AsyncIterator[tuple[AgentService, GrpcAgents]]:
    double = AgentService()
    name = "loremesh.agent.v1.AgentService"
    wired = Wired(servicers=[Servicer(add=add_AgentServiceServicer_to_server, servicer=double, name=name)])
    with caller():
        async with serving(wired, service="agent") as channel:
            yield double, GrpcAgents(channel=channel)


async def test_an_agent_is_asked_about_as_a_run_will_have_it(mesh: tuple[AgentService, GrpcAgents]) -> None:
    double, agents = mesh
    agent = CrewAgent(
        name="ann",
        role="R",
        backstory="B",
        model="local/x",
        temperature=0.0,
        tools=(ToolUse(name="search", approval="NEVER"),),
        memory=MemorySettings(recall=True),
        max_iter=3,
        max_rpm=4,
        vector_store_ids=("v",),
        max_output_tokens=5,
    )
    assert await agents.faults(agent) == []
    assert (
        await agents.faults(CrewAgent(name="bob"), tools=[ToolUse(name="web")], output_schema={"type": "object"}) == []
    )
    (first, second) = double.asked
    assert first == pb.Agent(
        system_prompt="R\n\nB",
        model="local/x",
        temperature=0.0,
        max_output_tokens=5,
        top_k_documents=0,
        vector_store_ids=["v"],
        tools=[pb.ToolUse(name="search", approval=pb.APPROVAL_POLICY_NEVER)],
        memory=pb.MemorySettings(recall=True),
        limits=pb.Limits(max_steps=3, max_rpm=4),
    )
    assert ([each.name for each in second.tools], second.response_schema["type"]) == (["web"], "object")


async def test_faults_keep_their_reasons_and_have_the_crews_fields(mesh: tuple[AgentService, GrpcAgents]) -> None:
    double, agents = mesh
    double.found = {
        "agent.model": "MODEL_UNKNOWN",
        "agent.tools[1].name": "TOOL_NOT_FOUND",
        "vector_store_ids[0]": "VECTOR_STORE_NOT_FOUND",
        "agent.response_schema": "SCHEMA_INVALID",
        "agent.limits.max_steps": "AGENT_INVALID",
        "agent.system_prompt": "AGENT_INVALID",
    }
    assert [(each.field, each.reason) for each in await agents.faults(CrewAgent(name="ann"))] == [
        ("model", "MODEL_UNKNOWN"),
        ("tools[1].name", "TOOL_NOT_FOUND"),
        ("vector_store_ids[0]", "VECTOR_STORE_NOT_FOUND"),
        ("output_schema", "SCHEMA_INVALID"),
        ("max_iter", "CREW_INVALID"),
        ("backstory", "CREW_INVALID"),
    ]


async def test_of_a_task_only_its_tools_and_its_schema_are_found_wrong(mesh: tuple[AgentService, GrpcAgents]) -> None:
    double, agents = mesh
    double.found = {"agent.model": "MODEL_UNKNOWN", "agent.tools[0].name": "TOOL_NOT_FOUND"}
    task = CrewTask(name="t", description="x", tools=(ToolUse(name="fly"),), output_schema={"type": "object"})
    found = await Vetting(agents=agents).answered(
        [about_agent(CrewAgent(name="a"), prefix="agent."), *about_task(task, prefix="task.")]
    )
    assert [each.field for each in found] == ["agent.model", "agent.tools[0].name", "task.tools[0].name"]


async def test_a_kept_agent_has_its_revision_and_another_has_none(mesh: tuple[AgentService, GrpcAgents]) -> None:
    _, agents = mesh
    assert await agents.revision("kept") == 3
    assert await agents.revision("kept", revision=2) == 2
    assert await agents.revision("kept", revision=4) is None
    assert await agents.revision("gone") is None
    named = [about_agent(CrewAgent(name="a", agent_id="gone", agent_revision=n), prefix="") for n in (0, 2)]
    assert await Vetting(agents=agents).answered(named) == [
        FieldViolation("agent_id", "There is no agent 'gone'.", "AGENT_UNKNOWN"),
        FieldViolation("agent_id", "There is no revision 2 of the agent 'gone'.", "AGENT_UNKNOWN"),
    ]


async def test_an_agent_service_that_is_down_is_said_to_be() -> None:
    with caller():
        async with open_channel("localhost:1") as channel:
            agents = GrpcAgents(channel=channel)
            with pytest.raises(DependencyUnavailable) as caught:
                await agents.faults(CrewAgent(name="ann"))
            assert caught.value.metadata == {"dependency": "agent"}
            with pytest.raises(DependencyUnavailable):
                await agents.revision("kept")
            asked = [about_agent(CrewAgent(name="a", role=str(i)), prefix="") for i in range(3)]
            with pytest.raises(DependencyUnavailable):
                await Vetting(agents=agents).answered(asked)


async def test_a_fault_of_ours_is_not_taken_for_an_unknown_agent(mesh: tuple[AgentService, GrpcAgents]) -> None:
    double, agents = mesh
    double.fails = Refused("SOMETHING_ELSE")
    with pytest.raises(aio.AioRpcError) as caught:
        await agents.revision("kept")
    assert caught.value.code() is StatusCode.INTERNAL
