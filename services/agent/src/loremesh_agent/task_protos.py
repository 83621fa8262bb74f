"""Tasks as protobuf messages, and read from them."""

import hashlib
import json
from typing import Any

from google.protobuf.struct_pb2 import Struct
from loremesh.agent.v1 import agent_pb2
from loremesh.agent.v1 import task_pb2 as pb
from loremesh_kit import schemas
from loremesh_kit.errors import InvalidField
from loremesh_kit.structs import plain
from loremesh_kit.text import clean

from loremesh_agent.agent_protos import read_agent, read_name, read_schema, read_tool_use
from loremesh_agent.domain.chat_jobs import Status
from loremesh_agent.domain.definitions import AgentDefinition
from loremesh_agent.domain.delegation import Coworker
from loremesh_agent.domain.events import Answer, FinishReason
from loremesh_agent.domain.reviews import Review
from loremesh_agent.domain.tasks import UNNAMED_AGENT, AgentReference, Invocation, Task, TaskOrder
from loremesh_agent.domain.tools import ExpiryPolicy
from loremesh_agent.errors import BudgetExhausted, MessageEmpty, RunCancelled, TaskTimeout
from loremesh_agent.protos import read_limits, source, struct, timestamp, usage

_STATES = {
    Status.QUEUED: pb.AGENT_TASK_STATE_ACTIVE,
    Status.RUNNING: pb.AGENT_TASK_STATE_ACTIVE,
    Status.WAITING: pb.AGENT_TASK_STATE_WAITING,
    Status.COMPLETED: pb.AGENT_TASK_STATE_COMPLETED,
    Status.INCOMPLETE: pb.AGENT_TASK_STATE_INCOMPLETE,
    Status.FAILED: pb.AGENT_TASK_STATE_FAILED,
    Status.CANCELLED: pb.AGENT_TASK_STATE_CANCELLED,
}
_CUT = {
    FinishReason.CONTENT_FILTER: ("PROVIDER_REFUSED", "The model's provider withheld the rest of the answer."),
    FinishReason.REFUSAL: ("PROVIDER_REFUSED", "The model refused to answer."),
    FinishReason.LENGTH: (BudgetExhausted.reason, "The answer is as long as it may be, and not whole."),
}
# By which agents are vetted.
_OF_THE_WORKER = frozenset({"agent", "reference", "invocation", "tools", "replace_tools", "response_schema", "limits"})


def order(request: pb.CreateTaskRequest) -> TaskOrder:
    """What a request asks for; raises InvalidField, MessageEmpty."""
    worker, message = _worker(request), clean(request.message)
    if not isinstance(worker, Invocation) and not message.strip():
        raise MessageEmpty
    return TaskOrder(
        task_id=request.task_id,
        worker=worker,
        message=message,
        root_run_id=clean(request.root_run_id),
        name=clean(request.name),
        tools=tuple(map(read_tool_use, request.tools)) if request.replace_tools else None,
        response_schema=read_schema(request.response_schema) if request.HasField("response_schema") else None,
        limits=_limits(request.limits),
        coworkers=tuple(Coworker(name=clean(each.name), role=clean(each.role)) for each in request.coworkers),
        review=_review(request.review) if request.HasField("review") else None,
        memory_agent_id=clean(request.memory_agent_id),
        memory_run_id=clean(request.memory_run_id),
        priority=request.priority,
        untrusted=request.untrusted,
    )


def read_order(request: bytes) -> TaskOrder:
    """What a serialized CreateTaskRequest asks for."""
    return order(pb.CreateTaskRequest.FromString(request))


def worker_hash(request: pb.CreateTaskRequest) -> bytes:
    """The same for requests whose workers are the same."""
    worker: Any = pb.CreateTaskRequest()
    worker.CopyFrom(request)
    for field in pb.CreateTaskRequest.DESCRIPTOR.fields:
        if field.name not in _OF_THE_WORKER:
            worker.ClearField(field.name)
    return hashlib.sha256(worker.SerializeToString(deterministic=True)).digest()


def task(kept: Task) -> pb.AgentTask:
    """A task."""
    job = kept.job
    proto = pb.AgentTask(
        task_id=kept.id,
        run_id=job.id,
        state=_STATES[job.status],
        usage=usage(job.usage),
        approval_id=kept.approval_id,
        delegations=[
            pb.Delegation(id=each.id, coworker=each.coworker, description=each.description, context=each.context)
            for each in kept.delegations
        ],
        create_time=timestamp(job.create_time),
        finish_time=timestamp(job.finish_time) if job.finish_time else None,
    )
    if job.answer:
        _answer(proto, job.answer)
    _say_why(proto, kept)
    return proto


def _answer(proto: pb.AgentTask, answer: Answer) -> None:
    proto.output, proto.model = answer.text, answer.model
    proto.sources.extend(map(source, answer.sources))
    value = _object(answer.text)
    if value is not None:
        proto.output_json.CopyFrom(value)


def _object(text: str) -> Struct | None:
    """The JSON object that a text is; None for any other text, and for what protobuf cannot hold."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text, parse_constant=_refuse)
        return struct(value) if isinstance(value, dict) and schemas.depth(value) <= schemas.MAX_DEPTH else None
    except (ValueError, OverflowError, RecursionError):
        return None


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _say_why(proto: pb.AgentTask, kept: Task) -> None:
    job = kept.job
    if job.error:
        proto.reason, proto.message = job.error.reason, job.error.message
        proto.retryable = job.error.retryable and not kept.changed
    elif job.status is Status.CANCELLED:
        proto.reason, proto.message = RunCancelled.reason, RunCancelled().message
    elif job.status is Status.INCOMPLETE:
        proto.reason, proto.message = _why_cut(job.answer)


def _why_cut(answer: Answer | None) -> tuple[str, str]:
    """Time is told apart from what may be given more of."""
    if answer and answer.finish_reason in _CUT:
        return _CUT[answer.finish_reason]
    limit = answer.limit if answer else ""
    if limit == "time":
        return TaskTimeout.reason, TaskTimeout().message
    return BudgetExhausted.reason, BudgetExhausted(limit).message if limit else "The run reached one of its limits."


def _worker(request: pb.CreateTaskRequest) -> AgentDefinition | AgentReference | Invocation:
    match request.WhichOneof("worker"):
        case "agent":
            # An empty id would have its memories shared by all agents.
            agent = agent_pb2.Agent()
            agent.CopyFrom(request.agent)
            agent.id = agent.id or UNNAMED_AGENT
            return read_agent(agent)
        case "reference":
            return AgentReference(agent_id=clean(request.reference.agent_id), revision=request.reference.revision)
        case "invocation":
            call = request.invocation
            return Invocation(use=read_tool_use(call.tool), arguments=plain(call.arguments))
    message = "One of agent, reference and invocation must be given."
    raise InvalidField(message, field="agent")


def _limits(proto: agent_pb2.Limits) -> dict[str, Any]:
    """Those that are set, by the names of the fields of Limits."""
    read = read_limits(proto)
    given = {
        "max_steps": read.max_steps,
        "max_tokens": read.max_tokens,
        "max_cost_micros": read.max_cost_micros,
        "max_tool_calls": read.max_tool_calls,
        "max_seconds": read.max_seconds,
        "max_rpm": read.max_rpm,
        "on_limit": read.on_limit if proto.on_limit else None,
        "fallback_model": read.fallback_model or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _review(proto: pb.OutputReview) -> Review:
    given: dict[str, Any] = {"due_in": proto.due_in.ToTimedelta()} if proto.HasField("due_in") else {}
    if proto.max_rounds:
        given["max_rounds"] = proto.max_rounds
    return Review(
        question=clean(proto.question),
        on_expiry=ExpiryPolicy(read_name(agent_pb2.ExpiryPolicy, proto.on_expiry, "DENY")),
        assignee=clean(proto.assignee),
        **given,
    )
