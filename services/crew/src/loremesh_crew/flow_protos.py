"""Flows, as protobuf messages and read from them."""

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct, Value
from loremesh.crew.v1 import flow_pb2 as pb
from loremesh_kit.text import clean

from loremesh_crew.adapters.structs import duration, enum_name, plain, plain_value, seconds, struct, timestamp
from loremesh_crew.crew_protos import (
    crew_agent,
    crew_task,
    read_crew_agent,
    read_crew_task,
    read_run_limits,
    run_limits,
    take,
)
from loremesh_crew.domain.definitions import (
    AgentWork,
    Assignment,
    Condition,
    ConditionKind,
    CrewWork,
    Flow,
    FlowState,
    FlowWork,
    ToolWork,
    Transition,
    Variable,
    VariableType,
    WaitWork,
)


def flow(kept: Flow) -> pb.Flow:
    """A revision of a flow."""
    return pb.Flow(
        id=kept.id,
        name=kept.name,
        description=kept.description,
        states=map(_state, kept.states),
        transitions=map(_transition, kept.transitions),
        variables=map(_variable, kept.variables),
        max_iterations=kept.max_iterations,
        limits=run_limits(kept.limits),
        inputs_schema=struct(kept.inputs_schema),
        example_inputs=struct(kept.example_inputs),
        revision=kept.revision,
        built_in=kept.built_in,
        create_time=timestamp(kept.create_time),
        update_time=timestamp(kept.update_time),
        etag=kept.etag,
        output=kept.output,
    )


def read_flow(proto: pb.Flow) -> Flow:
    """What a flow is to be; what is the server's to say is left out."""
    return Flow(
        id=clean(proto.id),
        name=clean(proto.name),
        description=clean(proto.description),
        states=tuple(map(_read_state, proto.states)),
        transitions=tuple(map(_read_transition, proto.transitions)),
        variables=tuple(map(_read_variable, proto.variables)),
        max_iterations=proto.max_iterations or Flow(id="").max_iterations,
        limits=read_run_limits(proto.limits),
        inputs_schema=plain(proto.inputs_schema) if proto.HasField("inputs_schema") else None,
        example_inputs=plain(proto.example_inputs) if proto.HasField("example_inputs") else None,
        output=clean(proto.output),
    )


def changed(current: Flow, wanted: pb.Flow, mask: FieldMask) -> Flow:
    """A flow with the fields of the mask as they are wanted, or with those that are set; raises FieldMaskInvalid."""
    target = flow(current)
    take(wanted, target, mask)
    return read_flow(target)


def _state(kept: FlowState) -> pb.FlowState:
    return pb.FlowState(
        id=kept.id,
        name=kept.name,
        initial=kept.initial,
        final=kept.final,
        fails=kept.fails,
        crew=pb.CrewWork(crew_id=kept.crew.crew_id, revision=kept.crew.revision, inputs=kept.crew.inputs)
        if kept.crew
        else None,
        agent=pb.AgentWork(agent=crew_agent(kept.agent.agent), task=crew_task(kept.agent.task)) if kept.agent else None,
        tool=pb.ToolWork(tool=kept.tool.tool, arguments=struct(kept.tool.arguments)) if kept.tool else None,
        wait=pb.WaitWork(duration=duration(kept.wait.seconds), signal=kept.wait.signal) if kept.wait else None,
        flow=pb.FlowWork(flow_id=kept.flow.flow_id, revision=kept.flow.revision, inputs=kept.flow.inputs)
        if kept.flow
        else None,
        assignments=[pb.Assignment(variable=each.variable, expression=each.expression) for each in kept.assignments],
    )


def _read_state(proto: pb.FlowState) -> FlowState:
    return FlowState(
        id=clean(proto.id),
        name=clean(proto.name),
        initial=proto.initial,
        final=proto.final,
        fails=proto.fails,
        **_read_work(proto),
        assignments=tuple(
            Assignment(variable=clean(each.variable), expression=clean(each.expression)) for each in proto.assignments
        ),
    )


def _read_work(proto: pb.FlowState) -> dict[str, Any]:
    match kind := proto.WhichOneof("work"):
        case "crew":
            of_crew = proto.crew
            return {
                kind: CrewWork(
                    crew_id=clean(of_crew.crew_id), revision=of_crew.revision, inputs=_texts(dict(of_crew.inputs))
                )
            }
        case "flow":
            of_flow = proto.flow
            return {
                kind: FlowWork(
                    flow_id=clean(of_flow.flow_id), revision=of_flow.revision, inputs=_texts(dict(of_flow.inputs))
                )
            }
        case "agent":
            return {kind: AgentWork(agent=read_crew_agent(proto.agent.agent), task=read_crew_task(proto.agent.task))}
        case "tool":
            return {kind: ToolWork(tool=clean(proto.tool.tool), arguments=plain(proto.tool.arguments))}
        case "wait":
            length = seconds(proto.wait.duration) if proto.wait.HasField("duration") else None
            return {kind: WaitWork(seconds=length, signal=clean(proto.wait.signal))}
    return {}


def _texts(given: dict[str, str]) -> dict[str, str]:
    return {clean(name): clean(text) for name, text in given.items()}


def _variable(kept: Variable) -> pb.Variable:
    return pb.Variable(
        name=kept.name,
        type=pb.VariableType.Value(f"VARIABLE_TYPE_{kept.type}"),
        initial=None if kept.initial is None else _value(kept.initial),
    )


def _read_variable(proto: pb.Variable) -> Variable:
    return Variable(
        name=clean(proto.name),
        type=VariableType(enum_name(pb.VariableType, proto.type) or "STRING"),
        initial=plain_value(proto.initial) if proto.HasField("initial") else None,
    )


def _transition(kept: Transition) -> pb.Transition:
    ends = {"from": kept.from_state, "to": kept.to_state}
    return pb.Transition(**ends, condition=_condition(kept.condition), priority=kept.priority)


def _read_transition(proto: pb.Transition) -> Transition:
    return Transition(
        from_state=clean(getattr(proto, "from")),
        to_state=clean(proto.to),
        condition=_read_condition(proto.condition),
        priority=proto.priority,
    )


def _condition(kept: Condition) -> pb.Condition:
    proto = pb.Condition()
    held: Any = getattr(proto, kept.kind)
    match kept.kind:
        case ConditionKind.OUTPUT_CONTAINS:
            held.CopyFrom(pb.OutputContains(text=kept.text, case_sensitive=kept.case_sensitive))
        case ConditionKind.OUTPUT_MATCHES | ConditionKind.EXPRESSION:
            setattr(proto, kept.kind, kept.text)
        case ConditionKind.VARIABLE_EQUALS:
            held.CopyFrom(pb.VariableEquals(variable=kept.variable, value=_value(kept.value)))
        case ConditionKind.AND | ConditionKind.OR:
            held.CopyFrom(pb.Conditions(conditions=map(_condition, kept.conditions)))
        case ConditionKind.NOT:
            held.CopyFrom(_condition(kept.conditions[0]))
        case _:
            held.SetInParent()
    return proto


def _read_condition(proto: pb.Condition) -> Condition:
    """What holds; nothing said is always."""
    kind = ConditionKind(proto.WhichOneof("kind") or ConditionKind.ALWAYS)
    said: Any = getattr(proto, kind)
    match kind:
        case ConditionKind.OUTPUT_CONTAINS:
            return Condition(kind=kind, text=clean(said.text), case_sensitive=said.case_sensitive)
        case ConditionKind.OUTPUT_MATCHES | ConditionKind.EXPRESSION:
            return Condition(kind=kind, text=clean(said))
        case ConditionKind.VARIABLE_EQUALS:
            return Condition(kind=kind, variable=clean(said.variable), value=plain_value(said.value))
        case ConditionKind.AND | ConditionKind.OR:
            return Condition(kind=kind, conditions=tuple(map(_read_condition, said.conditions)))
        case ConditionKind.NOT:
            return Condition(kind=kind, conditions=(_read_condition(said),))
    return Condition(kind=kind)


def _value(value: Any) -> Value:
    held = Struct()
    held.update({"value": value})
    return held.fields["value"]
