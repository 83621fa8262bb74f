"""Agents, tools and providers, as protobuf messages and read from them."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from loremesh.agent.v1 import agent_pb2 as pb
from loremesh_kit.structs import plain
from loremesh_kit.text import clean

from loremesh_agent.domain.definitions import (
    AgentDefinition,
    BusyPolicy,
    GroundingPolicy,
    Limits,
    MemorySettings,
    PromptReference,
)
from loremesh_agent.domain.prices import KnownProvider
from loremesh_agent.domain.tools import ApprovalPolicy, ExpiryPolicy, ToolSpec, ToolUse
from loremesh_agent.errors import FieldMaskInvalid
from loremesh_agent.protos import read_limits, struct, timestamp

_NOT_CHANGEABLE = frozenset({"id", "revision", "create_time", "update_time", "etag"})
_CHANGEABLE = tuple(field.name for field in pb.Agent.DESCRIPTOR.fields if field.name not in _NOT_CHANGEABLE)
# Whose parts can be changed one by one.
_WITH_PARTS = frozenset({"prompt", "memory", "limits"})
_EVERYTHING = "*"
# Of a page; the rest comes with the next.
_PAGE_BYTES = 4 * 1024 * 1024

M = TypeVar("M", bound=Message)


def agent(kept: AgentDefinition) -> pb.Agent:
    """A revision of an agent."""
    proto = pb.Agent(
        id=kept.id,
        name=kept.name,
        description=kept.description,
        model=kept.model,
        fallback_models=kept.fallback_models,
        temperature=kept.temperature,
        top_p=kept.top_p,
        max_output_tokens=kept.max_output_tokens,
        top_k_documents=kept.top_k_documents,
        vector_store_ids=kept.vector_store_ids,
        tools=map(_tool_use, kept.tools),
        memory=_memory(kept.memory) if kept.memory else None,
        response_schema=None if kept.response_schema is None else struct(kept.response_schema),
        limits=_limits(kept.limits) if kept.limits != Limits() else None,
        grounding=pb.GroundingPolicy.Value(f"GROUNDING_POLICY_{kept.grounding}"),
        rewrite_questions=kept.rewrite_questions,
        busy_policy=pb.BusyPolicy.Value(f"BUSY_POLICY_{kept.busy_policy}"),
        revision=kept.revision,
        create_time=timestamp(kept.create_time) if kept.create_time else None,
        update_time=timestamp(kept.update_time) if kept.update_time else None,
        etag=kept.etag,
    )
    if kept.prompt:
        of = kept.prompt
        proto.prompt.CopyFrom(
            pb.PromptReference(name=of.name, version=of.version, language=of.language, variables=of.variables)
        )
    elif kept.system_prompt:
        proto.system_prompt = kept.system_prompt
    return proto


def read_agent(proto: pb.Agent) -> AgentDefinition:
    """What an agent is to be; what is the server's to say is left out."""
    return AgentDefinition(
        id=clean(proto.id),
        name=clean(proto.name),
        description=clean(proto.description),
        system_prompt=clean(proto.system_prompt),
        prompt=_read_prompt(proto.prompt) if proto.HasField("prompt") else None,
        model=clean(proto.model),
        fallback_models=tuple(map(clean, proto.fallback_models)),
        temperature=proto.temperature if proto.HasField("temperature") else None,
        top_p=proto.top_p if proto.HasField("top_p") else None,
        max_output_tokens=proto.max_output_tokens if proto.HasField("max_output_tokens") else None,
        top_k_documents=proto.top_k_documents if proto.HasField("top_k_documents") else None,
        vector_store_ids=tuple(map(clean, proto.vector_store_ids)),
        tools=tuple(map(read_tool_use, proto.tools)),
        memory=_read_memory(proto.memory) if proto.HasField("memory") else None,
        response_schema=read_schema(proto.response_schema) if proto.HasField("response_schema") else None,
        limits=read_limits(proto.limits),
        grounding=GroundingPolicy(read_name(pb.GroundingPolicy, proto.grounding, "ANNOTATE")),
        rewrite_questions=proto.rewrite_questions if proto.HasField("rewrite_questions") else True,
        busy_policy=BusyPolicy(read_name(pb.BusyPolicy, proto.busy_policy, "REJECT")),
    )


def changed(current: AgentDefinition, wanted: pb.Agent, mask: FieldMask) -> AgentDefinition:
    """An agent with the fields of the mask as they are wanted, or with those that are set; raises FieldMaskInvalid."""
    target = agent(current)
    paths: Iterable[str] = mask.paths or [field.name for field, _ in wanted.ListFields() if field.name in _CHANGEABLE]
    for path in _CHANGEABLE if _EVERYTHING in mask.paths else paths:
        _change(path, wanted, target)
    return read_agent(target)


def _change(path: str, wanted: Any, target: Any) -> None:
    name, _, part = path.partition(".")
    if name not in _CHANGEABLE or (part and name not in _WITH_PARTS):
        raise FieldMaskInvalid(path)
    if not part:
        _take(name, wanted, target)
    elif part not in getattr(target, name).DESCRIPTOR.fields_by_name:
        raise FieldMaskInvalid(path)
    elif wanted.HasField(name) or target.HasField(name):
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


def tool(spec: ToolSpec) -> pb.Tool:
    """A tool that agents may be given."""
    return pb.Tool(
        name=spec.name,
        description=spec.description,
        input_schema=struct(spec.input_schema),
        effect=pb.ToolEffect.Value(f"TOOL_EFFECT_{spec.effect}"),
        untrusted=spec.untrusted,
        available=not spec.unavailable,
        unavailable_reason=spec.unavailable,
        tool_server_id=spec.tool_server_id,
    )


def provider(known: KnownProvider) -> pb.Provider:
    """Where models come from."""
    models = [
        pb.ModelPrice(
            model=each.model,
            input_micros=each.price.input_micros,
            cached_input_micros=each.price.cached_input_micros,
            output_micros=each.price.output_micros,
        )
        for each in known.models
    ]
    return pb.Provider(name=known.name, configured=known.configured, variable=known.variable, models=models)


def fitting(found: Sequence[M], size: int) -> Sequence[M]:
    """The first of a page, at most `size`: at least one, and no more than one answer holds."""
    count = total = 0
    for each in found[:size]:
        total += each.ByteSize()
        if count and total > _PAGE_BYTES:
            break
        count += 1
    return found[:count]


def _tool_use(use: ToolUse) -> pb.ToolUse:
    return pb.ToolUse(
        name=use.name,
        approval=pb.ApprovalPolicy.Value(f"APPROVAL_POLICY_{use.approval}"),
        approval_time=_duration(use.approval_time),
        on_expiry=pb.ExpiryPolicy.Value(f"EXPIRY_POLICY_{use.on_expiry}"),
    )


def read_tool_use(proto: pb.ToolUse) -> ToolUse:
    """A tool in an agent's hands."""
    given = {"approval_time": proto.approval_time.ToTimedelta()} if proto.HasField("approval_time") else {}
    return ToolUse(
        name=clean(proto.name),
        approval=ApprovalPolicy(read_name(pb.ApprovalPolicy, proto.approval, "AS_NEEDED")),
        on_expiry=ExpiryPolicy(read_name(pb.ExpiryPolicy, proto.on_expiry, "DENY")),
        **given,
    )


def _read_prompt(proto: pb.PromptReference) -> PromptReference:
    return PromptReference(
        name=clean(proto.name),
        version=proto.version,
        language=clean(proto.language) or "en",
        variables={clean(name): clean(value) for name, value in proto.variables.items()},
    )


def _memory(settings: MemorySettings) -> pb.MemorySettings:
    return pb.MemorySettings(
        recall=settings.recall,
        extract=settings.extract,
        max_items=settings.max_items,
        ttl=_duration(settings.ttl) if settings.ttl else None,
        embeddings=settings.embeddings,
    )


def _read_memory(proto: pb.MemorySettings) -> MemorySettings:
    return MemorySettings(
        recall=proto.recall,
        extract=proto.extract,
        max_items=proto.max_items or MemorySettings().max_items,
        ttl=proto.ttl.ToTimedelta() if proto.HasField("ttl") else None,
        embeddings=proto.embeddings if proto.HasField("embeddings") else True,
    )


def _limits(limits: Limits) -> pb.Limits:
    return pb.Limits(
        max_steps=limits.max_steps or 0,
        max_tokens=limits.max_tokens or 0,
        max_cost_micros=limits.max_cost_micros or 0,
        max_tool_calls=limits.max_tool_calls or 0,
        max_time=_duration(timedelta(seconds=limits.max_seconds)) if limits.max_seconds else None,
        on_limit=pb.LimitPolicy.Value(f"LIMIT_POLICY_{limits.on_limit}"),
        fallback_model=limits.fallback_model,
        max_rpm=limits.max_rpm or 0,
    )


def read_name(enum: Any, value: int, unspecified: str) -> str:
    """The value's name without the enum's, which ends in a word of its own."""
    if not value:
        return unspecified
    prefix: str = enum.Name(0).removesuffix("UNSPECIFIED")
    name: str = enum.Name(value)
    return name.removeprefix(prefix)


def read_schema(proto: Struct) -> dict[str, Any]:
    """A JSON Schema."""
    schema: dict[str, Any] = _schema(plain(proto))
    return schema


def _schema(value: Any) -> Any:
    """A schema with whole numbers written as such: protobuf's JSON knows doubles only, and providers do not."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case str():
            return clean(value)
        case dict():
            return {clean(key): _schema(each) for key, each in value.items()}
        case list():
            return [_schema(each) for each in value]
    return value


def _duration(length: timedelta) -> Duration:
    proto = Duration()
    proto.FromTimedelta(length)
    return proto
