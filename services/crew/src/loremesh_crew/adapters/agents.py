"""The agents of the mesh, known by the agent service."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from grpc import StatusCode, aio
from loremesh.agent.v1 import agent_pb2 as pb
from loremesh.agent.v1.agent_pb2_grpc import AgentServiceStub
from loremesh_kit import deadline
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import DeadlineExceeded, DependencyUnavailable, FieldViolation, Overloaded

from loremesh_crew.adapters.structs import struct
from loremesh_crew.crew_protos import memory_settings, tool_use
from loremesh_crew.domain.definitions import CrewAgent, ToolUse
from loremesh_crew.errors import CrewInvalid

_NAME = "agent"
_SECONDS = 10.0
_KEPT_REASONS = frozenset(
    {"TOOL_NOT_FOUND", "MODEL_UNKNOWN", "PROVIDER_NOT_CONFIGURED", "VECTOR_STORE_NOT_FOUND", "SCHEMA_INVALID"}
)
# Fields of an agent by those of a crew's; others have the same name in both.
_FIELDS = {
    "system_prompt": "backstory",
    "response_schema": "output_schema",
    "limits.max_steps": "max_iter",
    "limits.max_rpm": "max_rpm",
}


class GrpcAgents:
    """Asks AgentService; see ports.AgentRegistry."""

    def __init__(self, *, channel: aio.Channel) -> None:
        self._stub = AgentServiceStub(channel)

    async def faults(
        self, agent: CrewAgent, *, tools: Sequence[ToolUse] = (), output_schema: Mapping[str, Any] | None = None
    ) -> Sequence[FieldViolation]:
        """See ports.AgentRegistry."""
        request = pb.ValidateAgentRequest(agent=_agent(agent, tools, output_schema))
        with _translated():
            response = await self._stub.ValidateAgent(request, timeout=_SECONDS)
        return [_violation(each) for each in response.violations]

    async def revision(self, agent_id: str, *, revision: int = 0) -> int | None:
        """See ports.AgentRegistry."""
        try:
            with _translated():
                found = await self._stub.GetAgent(
                    pb.GetAgentRequest(agent_id=agent_id, revision=revision), timeout=_SECONDS
                )
        except aio.AioRpcError as error:
            if reason_of(error) in ("AGENT_NOT_FOUND", "AGENT_REVISION_NOT_FOUND"):
                return None
            raise
        return int(found.revision)


def _agent(agent: CrewAgent, tools: Sequence[ToolUse], output_schema: Mapping[str, Any] | None) -> pb.Agent:
    """As a run will have it, but for its instructions: of those only the length counts."""
    instructions = "\n\n".join(filter(None, (agent.role, agent.goal, agent.backstory)))
    return pb.Agent(
        system_prompt=instructions or "You work in a crew.",
        model=agent.model,
        temperature=agent.temperature,
        max_output_tokens=agent.max_output_tokens,
        top_k_documents=agent.top_k_documents,
        vector_store_ids=agent.vector_store_ids,
        tools=map(tool_use, tools or agent.tools),
        memory=memory_settings(agent.memory),
        response_schema=struct(output_schema),
        limits=pb.Limits(max_steps=agent.max_iter, max_rpm=agent.max_rpm),
    )


def _violation(found: pb.AgentViolation) -> FieldViolation:
    field = found.field.removeprefix("agent.")
    whole = re.split(r"\[", field, maxsplit=1)[0]
    return FieldViolation(
        field=_FIELDS.get(whole, field),
        description=found.description,
        reason=found.reason if found.reason in _KEPT_REASONS else CrewInvalid.reason,
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Failures as our callers see them; any other is a fault of one of us, and passes as it is."""
    try:
        yield
    except aio.AioRpcError as error:
        match error.code():
            # The channel gives up a little before the caller's time is over; ours is another matter.
            case StatusCode.DEADLINE_EXCEEDED if deadline.within(1.0) < 1.0:
                raise DeadlineExceeded from error
            case StatusCode.RESOURCE_EXHAUSTED:
                raise Overloaded from error
            case StatusCode.UNAVAILABLE | StatusCode.DEADLINE_EXCEEDED:
                raise DependencyUnavailable(_NAME) from error
        raise
