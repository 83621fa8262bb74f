"""Tasks as protobuf messages, and read from them."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from loremesh.agent.v1 import agent_pb2, task_pb2
from loremesh.agent.v1.chat_pb2 import Usage as UsageProto
from loremesh_kit.text import clean

from loremesh_crew.domain.definitions import HumanInput, ToolUse
from loremesh_crew.domain.machine import AgentSpec, TaskLimits, TaskOutcome, TaskRequest, TaskStatus, Usage
from loremesh_crew.ports import AskedDelegation, TaskStanding

_ENDS: Mapping[int, TaskStatus] = {
    task_pb2.AGENT_TASK_STATE_COMPLETED: TaskStatus.COMPLETED,
    task_pb2.AGENT_TASK_STATE_INCOMPLETE: TaskStatus.INCOMPLETE,
    task_pb2.AGENT_TASK_STATE_FAILED: TaskStatus.FAILED,
    task_pb2.AGENT_TASK_STATE_CANCELLED: TaskStatus.CANCELLED,
}


def create(task_id: str, request: TaskRequest, *, root_run_id: str) -> task_pb2.CreateTaskRequest:
    """What is asked of the agent service."""
    proto = task_pb2.CreateTaskRequest(
        task_id=task_id,
        root_run_id=root_run_id,
        name=request.name,
        message=request.message,
        tools=map(_tool, request.tools or ()),
        replace_tools=request.tools is not None,
        limits=_limits(request.limits),
        coworkers=[task_pb2.Coworker(name=name, role=role) for name, role in request.coworkers],
        memory_agent_id=request.memory_agent_id,
        memory_run_id=request.memory_run_id,
        priority=request.priority,
        untrusted=request.untrusted,
    )
    if request.agent:
        proto.agent.CopyFrom(_agent(request.agent))
    elif request.reference:
        proto.reference.agent_id, proto.reference.revision = request.reference.agent_id, request.reference.revision
    elif request.invocation:
        proto.invocation.tool.CopyFrom(_tool(request.invocation.tool))
        proto.invocation.arguments.CopyFrom(_struct(request.invocation.arguments))
    if request.response_schema is not None:
        proto.response_schema.CopyFrom(_struct(request.response_schema))
    if request.review:
        proto.review.CopyFrom(_review(request.review))
    return proto


def standing(task: task_pb2.AgentTask) -> TaskStanding:
    """How a task stands."""
    status = _ENDS.get(task.state)
    return TaskStanding(
        task_id=task.task_id,
        agent_run_id=task.run_id,
        outcome=_outcome(task, status) if status else None,
        waits=task.state == task_pb2.AGENT_TASK_STATE_WAITING,
        approval_id=task.approval_id,
        delegations=tuple(
            AskedDelegation(
                id=each.id,
                coworker=clean(each.coworker),
                description=clean(each.description),
                context=clean(each.context),
            )
            for each in task.delegations
        ),
    )


def _outcome(task: task_pb2.AgentTask, status: TaskStatus) -> TaskOutcome:
    return TaskOutcome(
        status=status,
        output=clean(task.output),
        output_json=_plain(task.output_json) if task.HasField("output_json") else None,
        usage=_usage(task.usage),
        model=task.model,
        sources=tuple(_plain(source) for source in task.sources),
        reason=task.reason,
        message=clean(task.message),
        retryable=task.retryable,
        agent_run_id=task.run_id,
    )


def _usage(proto: UsageProto) -> Usage:
    return Usage(**{field.name: getattr(proto, field.name) for field in UsageProto.DESCRIPTOR.fields})


def _plain(proto: Any) -> dict[str, Any]:
    """As proto JSON, without what Postgres does not keep."""
    plain: dict[str, Any] = _clean(json_format.MessageToDict(proto, preserving_proto_field_name=True))
    return plain


def _clean(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case dict():
            return {clean(key): _clean(each) for key, each in value.items()}
        case list():
            return [_clean(each) for each in value]
    return value


def _struct(value: Mapping[str, Any]) -> Struct:
    proto = Struct()
    proto.update(value)
    return proto


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    proto = Duration()
    proto.FromTimedelta(timedelta(seconds=seconds))
    return proto


def _tool(use: ToolUse) -> agent_pb2.ToolUse:
    return agent_pb2.ToolUse(
        name=use.name,
        approval=agent_pb2.ApprovalPolicy.Value(f"APPROVAL_POLICY_{use.approval or 'UNSPECIFIED'}"),
        approval_time=_duration(use.approval_seconds),
        on_expiry=agent_pb2.ExpiryPolicy.Value(f"EXPIRY_POLICY_{use.on_expiry or 'UNSPECIFIED'}"),
    )


def _limits(limits: TaskLimits) -> agent_pb2.Limits | None:
    if limits == TaskLimits():
        return None
    return agent_pb2.Limits(
        max_steps=limits.max_steps,
        max_tokens=limits.max_tokens,
        max_cost_micros=limits.max_cost_micros,
        max_tool_calls=limits.max_tool_calls,
        max_time=_duration(limits.max_seconds),
        max_rpm=limits.max_rpm,
    )


def _agent(spec: AgentSpec) -> agent_pb2.Agent:
    proto = agent_pb2.Agent(
        id=spec.id,
        system_prompt=spec.system_prompt,
        model=spec.model,
        temperature=spec.temperature,
        tools=map(_tool, spec.tools),
        top_k_documents=spec.top_k_documents,
        vector_store_ids=spec.vector_store_ids,
        max_output_tokens=spec.max_output_tokens,
    )
    if spec.recall or spec.extract:
        proto.memory.recall, proto.memory.extract, proto.memory.max_items = spec.recall, spec.extract, spec.max_memories
        if spec.memory_ttl_seconds is not None:
            proto.memory.ttl.FromTimedelta(timedelta(seconds=spec.memory_ttl_seconds))
        if spec.memory_embeddings is not None:
            proto.memory.embeddings = spec.memory_embeddings
    return proto


def _review(human: HumanInput) -> task_pb2.OutputReview:
    return task_pb2.OutputReview(
        question=human.question,
        due_in=_duration(human.due_seconds),
        on_expiry=agent_pb2.ExpiryPolicy.Value(f"EXPIRY_POLICY_{human.on_expiry or 'UNSPECIFIED'}"),
        assignee=human.assignee,
        max_rounds=human.max_rounds,
    )
