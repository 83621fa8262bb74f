"""Crews, as protobuf messages and read from them."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from loremesh.agent.v1 import agent_pb2
from loremesh.crew.v1 import crew_pb2 as pb
from loremesh.crew.v1 import run_pb2
from loremesh_kit.errors import FieldViolation, ValidationFailed
from loremesh_kit.interceptors import validation
from loremesh_kit.text import clean

from loremesh_crew.adapters.structs import duration, enum_name, plain, seconds, struct, timestamp
from loremesh_crew.domain.definitions import (
    Crew,
    CrewAgent,
    CrewTask,
    Guardrail,
    HumanInput,
    MemorySettings,
    Process,
    RetryPolicy,
    RunLimits,
    ToolUse,
)
from loremesh_crew.errors import CrewInvalid, FieldMaskInvalid

_OUTPUT_ONLY = frozenset({"id", "revision", "built_in", "create_time", "update_time", "etag"})
_EVERYTHING = "*"
# Of a page; the rest comes with the next.
_PAGE_BYTES = 4 * 1024 * 1024

M = TypeVar("M", bound=Message)


def crew(kept: Crew) -> pb.Crew:
    """A revision of a crew."""
    return pb.Crew(
        id=kept.id,
        name=kept.name,
        description=kept.description,
        agents=map(crew_agent, kept.agents),
        tasks=map(crew_task, kept.tasks),
        process=process_of(kept.process),
        manager=kept.manager,
        manager_model=kept.manager_model,
        max_parallel=kept.max_parallel,
        fail_fast=kept.fail_fast,
        memory=kept.memory,
        limits=run_limits(kept.limits),
        inputs_schema=struct(kept.inputs_schema),
        verbose=kept.verbose,
        example_inputs=struct(kept.example_inputs),
        revision=kept.revision,
        built_in=kept.built_in,
        create_time=timestamp(kept.create_time),
        update_time=timestamp(kept.update_time),
        etag=kept.etag,
    )


def read_crew(proto: pb.Crew) -> Crew:
    """What a crew is to be; what is the server's to say is left out."""
    return Crew(
        id=clean(proto.id),
        name=clean(proto.name),
        description=clean(proto.description),
        agents=tuple(map(read_crew_agent, proto.agents)),
        tasks=tuple(map(read_crew_task, proto.tasks)),
        process=read_process(proto.process),
        manager=clean(proto.manager),
        manager_model=clean(proto.manager_model),
        max_parallel=proto.max_parallel or Crew(id="").max_parallel,
        fail_fast=proto.fail_fast if proto.HasField("fail_fast") else True,
        memory=proto.memory,
        limits=read_run_limits(proto.limits),
        inputs_schema=plain(proto.inputs_schema) if proto.HasField("inputs_schema") else None,
        verbose=proto.verbose,
        example_inputs=plain(proto.example_inputs) if proto.HasField("example_inputs") else None,
    )


def changed(current: Crew, wanted: pb.Crew, mask: FieldMask) -> Crew:
    """A crew with the fields of the mask as they are wanted, or with those that are set; raises FieldMaskInvalid."""
    target = crew(current)
    take(wanted, target, mask)
    return read_crew(target)


def take(wanted: Message, target: Message, mask: FieldMask) -> None:
    """Make the fields of the mask in `target` what they are in `wanted`, or those that are set there.

    Parts of `limits` can be named one by one; raises FieldMaskInvalid.
    """
    changeable = [field.name for field in target.DESCRIPTOR.fields if field.name not in _OUTPUT_ONLY]
    paths: Iterable[str] = mask.paths or [field.name for field, _ in wanted.ListFields() if field.name in changeable]
    for path in changeable if _EVERYTHING in mask.paths else paths:
        name, _, part = path.partition(".")
        if name not in changeable or (part and name != "limits"):
            raise FieldMaskInvalid(path)
        if not part:
            _take(name, wanted, target)
        elif part not in run_pb2.RunLimits.DESCRIPTOR.fields_by_name:
            raise FieldMaskInvalid(path)
        else:
            _take(part, getattr(wanted, name), getattr(target, name))


def _take(name: str, wanted: Message, target: Message) -> None:
    """Make one field what it is in `wanted`, nothing where it is not set there."""
    target.ClearField(name)
    one = type(wanted)()
    one.CopyFrom(wanted)
    for field, _ in wanted.ListFields():
        if field.name != name:
            one.ClearField(field.name)
    target.MergeFrom(one)


def fitting(found: Sequence[M], size: int) -> Sequence[M]:
    """The first of a page, at most `size`: at least one, and no more than one answer holds."""
    count = total = 0
    for each in found[:size]:
        total += each.ByteSize()
        if count and total > _PAGE_BYTES:
            break
        count += 1
    return found[:count]


def violation(fault: FieldViolation) -> pb.Violation:
    """A fault of a definition."""
    return pb.Violation(field=fault.field, description=fault.description, reason=fault.reason)


def read_process(proto: pb.Process.ValueType) -> Process:
    """How tasks come to be done."""
    return Process(enum_name(pb.Process, proto) or "SEQUENTIAL")


def process_of(process: Process) -> pb.Process.ValueType:
    """The same, the other way."""
    return pb.Process.Value(f"PROCESS_{process}")


def crew_agent(kept: CrewAgent) -> pb.CrewAgent:
    """A member of a crew."""
    return pb.CrewAgent(
        name=kept.name,
        role=kept.role,
        goal=kept.goal,
        backstory=kept.backstory,
        agent_id=kept.agent_id,
        agent_revision=kept.agent_revision,
        model=kept.model,
        temperature=kept.temperature,
        tools=map(tool_use, kept.tools),
        memory=memory_settings(kept.memory),
        allow_delegation=kept.allow_delegation,
        max_iter=kept.max_iter,
        max_rpm=kept.max_rpm,
        verbose=kept.verbose,
        top_k_documents=kept.top_k_documents,
        vector_store_ids=kept.vector_store_ids,
        max_output_tokens=kept.max_output_tokens,
    )


def read_crew_agent(proto: pb.CrewAgent) -> CrewAgent:
    """The same, read."""
    return CrewAgent(
        name=clean(proto.name),
        role=clean(proto.role),
        goal=clean(proto.goal),
        backstory=clean(proto.backstory),
        agent_id=clean(proto.agent_id),
        agent_revision=proto.agent_revision,
        model=clean(proto.model),
        temperature=proto.temperature if proto.HasField("temperature") else None,
        tools=tuple(map(read_tool_use, proto.tools)),
        memory=_read_memory(proto.memory) if proto.HasField("memory") else None,
        allow_delegation=proto.allow_delegation,
        max_iter=proto.max_iter,
        max_rpm=proto.max_rpm,
        verbose=proto.verbose,
        top_k_documents=proto.top_k_documents,
        vector_store_ids=tuple(map(clean, proto.vector_store_ids)),
        max_output_tokens=proto.max_output_tokens if proto.HasField("max_output_tokens") else None,
    )


def crew_task(kept: CrewTask) -> pb.CrewTask:
    """A piece of work."""
    return pb.CrewTask(
        name=kept.name,
        description=kept.description,
        expected_output=kept.expected_output,
        agent=kept.agent,
        depends_on=kept.depends_on,
        tools=map(tool_use, kept.tools),
        timeout=duration(kept.timeout),
        retry=pb.RetryPolicy(
            max_attempts=kept.retry.max_attempts,
            initial_pause=duration(kept.retry.initial_pause),
            retry_incomplete=kept.retry.retry_incomplete,
        ),
        human_input=_human_input(kept.human_input) if kept.human_input else None,
        guardrails=map(_guardrail, kept.guardrails),
        max_guardrail_rounds=kept.max_guardrail_rounds,
        output_schema=struct(kept.output_schema),
        output_file=kept.output_file,
        priority=kept.priority,
    )


def read_crew_task(proto: pb.CrewTask) -> CrewTask:
    """The same, read."""
    default = CrewTask(name="", description="")
    return CrewTask(
        name=clean(proto.name),
        description=clean(proto.description),
        expected_output=clean(proto.expected_output),
        agent=clean(proto.agent),
        depends_on=tuple(map(clean, proto.depends_on)),
        tools=tuple(map(read_tool_use, proto.tools)),
        timeout=seconds(proto.timeout) if proto.HasField("timeout") else default.timeout,
        retry=RetryPolicy(
            max_attempts=proto.retry.max_attempts or default.retry.max_attempts,
            initial_pause=(
                seconds(proto.retry.initial_pause)
                if proto.retry.HasField("initial_pause")
                else default.retry.initial_pause
            ),
            retry_incomplete=proto.retry.retry_incomplete,
        ),
        human_input=_read_human_input(proto.human_input) if proto.HasField("human_input") else None,
        guardrails=tuple(map(_read_guardrail, proto.guardrails)),
        max_guardrail_rounds=(
            proto.max_guardrail_rounds if proto.HasField("max_guardrail_rounds") else default.max_guardrail_rounds
        ),
        output_schema=plain(proto.output_schema) if proto.HasField("output_schema") else None,
        output_file=clean(proto.output_file),
        priority=proto.priority,
    )


def run_limits(kept: RunLimits) -> run_pb2.RunLimits | None:
    """Limits of a run; None where there are none."""
    if kept == RunLimits():
        return None
    return run_pb2.RunLimits(
        max_tokens=kept.max_tokens,
        max_cost_micros=kept.max_cost_micros,
        max_tool_calls=kept.max_tool_calls,
        max_time=duration(kept.max_seconds),
    )


def read_run_limits(proto: run_pb2.RunLimits) -> RunLimits:
    """The same, read."""
    return RunLimits(
        max_tokens=proto.max_tokens,
        max_cost_micros=proto.max_cost_micros,
        max_tool_calls=proto.max_tool_calls,
        max_seconds=seconds(proto.max_time) if proto.HasField("max_time") else None,
    )


def tool_use(kept: ToolUse) -> agent_pb2.ToolUse:
    """A tool in an agent's hands."""
    return agent_pb2.ToolUse(
        name=kept.name,
        approval=agent_pb2.ApprovalPolicy.Value(f"APPROVAL_POLICY_{kept.approval or 'UNSPECIFIED'}"),
        approval_time=duration(kept.approval_seconds),
        on_expiry=agent_pb2.ExpiryPolicy.Value(f"EXPIRY_POLICY_{kept.on_expiry or 'UNSPECIFIED'}"),
    )


def read_tool_use(proto: agent_pb2.ToolUse) -> ToolUse:
    """The same, read."""
    return ToolUse(
        name=clean(proto.name),
        approval=enum_name(agent_pb2.ApprovalPolicy, proto.approval),
        approval_seconds=seconds(proto.approval_time) if proto.HasField("approval_time") else None,
        on_expiry=enum_name(agent_pb2.ExpiryPolicy, proto.on_expiry),
    )


def memory_settings(kept: MemorySettings | None) -> agent_pb2.MemorySettings | None:
    """What an agent remembers."""
    if kept is None:
        return None
    return agent_pb2.MemorySettings(
        recall=kept.recall,
        extract=kept.extract,
        max_items=kept.max_items,
        ttl=duration(kept.ttl_seconds),
        embeddings=kept.embeddings,
    )


def _read_memory(proto: agent_pb2.MemorySettings) -> MemorySettings:
    return MemorySettings(
        recall=proto.recall,
        extract=proto.extract,
        max_items=proto.max_items,
        ttl_seconds=seconds(proto.ttl) if proto.HasField("ttl") else None,
        embeddings=proto.embeddings if proto.HasField("embeddings") else None,
    )


def _human_input(kept: HumanInput) -> pb.HumanInput:
    return pb.HumanInput(
        question=kept.question,
        due_in=duration(kept.due_seconds),
        on_expiry=agent_pb2.ExpiryPolicy.Value(f"EXPIRY_POLICY_{kept.on_expiry}"),
        assignee=kept.assignee,
        max_rounds=kept.max_rounds,
    )


def _read_human_input(proto: pb.HumanInput) -> HumanInput:
    default = HumanInput()
    return HumanInput(
        question=clean(proto.question),
        due_seconds=seconds(proto.due_in) if proto.HasField("due_in") else default.due_seconds,
        on_expiry=enum_name(agent_pb2.ExpiryPolicy, proto.on_expiry) or default.on_expiry,
        assignee=clean(proto.assignee),
        max_rounds=proto.max_rounds or default.max_rounds,
    )


_RULES = tuple(field.name for field in pb.Guardrail.DESCRIPTOR.oneofs_by_name["rule"].fields)


def _guardrail(kept: Guardrail) -> pb.Guardrail:
    rule = {name: value for name in _RULES if (value := getattr(kept, name))}
    return pb.Guardrail(message=kept.message, **rule)


def _read_guardrail(proto: pb.Guardrail) -> Guardrail:
    rule = proto.WhichOneof("rule")
    value = getattr(proto, rule) if rule else ""
    given: dict[str, Any] = {rule: clean(value) if isinstance(value, str) else value} if rule else {}
    return Guardrail(message=clean(proto.message), **given)


def check_crew(given: Crew) -> None:
    """Raise CrewInvalid where a crew that came by another way than as a message breaks a rule of crew.proto."""
    try:
        validation.check(crew(given))
    except ValidationFailed as failed:
        raise CrewInvalid(failed.violations) from None
