"""What a state's work is begun with: texts filled, revisions as pinned, limits as what is left."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from loremesh_crew.domain import texts
from loremesh_crew.domain.definitions import (
    AgentWork,
    Crew,
    CrewWork,
    Flow,
    FlowState,
    FlowWork,
    RunLimits,
    ToolUse,
    ToolWork,
)
from loremesh_crew.domain.flow_checks import agent_texts, crew_of, texts_of
from loremesh_crew.domain.flow_state import FlowRunState
from loremesh_crew.domain.machine import (
    Pinned,
    RunKind,
    StartChild,
    StartTask,
    TaskLimits,
    TaskRequest,
    ToolInvocation,
)
from loremesh_crew.domain.texts import Filler

_LONGEST_NAME = 64


def flow_of(run: Pinned) -> Flow:
    """The flow that a run is of."""
    if run.flow is None:
        raise ValueError("the run is no flow's")
    return run.flow


def begun(run: Pinned, state: FlowRunState, at: FlowState, id_: str, time: datetime) -> StartChild | StartTask | None:
    """How a state's work is begun as task or child run `id_`; None where it is neither. Raises TextTooLong."""
    filler = Filler(_values(run, state))
    limits = left(run, state, time)
    match at.work:
        case CrewWork() | FlowWork() as work:
            kind, definition_id = (
                (RunKind.CREW, work.crew_id) if isinstance(work, CrewWork) else (RunKind.FLOW, work.flow_id)
            )
            return StartChild(
                child_run_id=id_,
                state=at.id,
                kind=kind,
                definition_id=definition_id,
                revision=work.revision or run.pins.get(f"{kind.lower()}:{definition_id}", 0),
                inputs={**run.inputs, **state.variables, **filler.value(work.inputs)},
                limits=limits,
            )
        case AgentWork() as work:
            crew, given = _crew_of_one(run, work, filler)
            crew = replace(crew, name=at.name or at.id)
            return StartChild(child_run_id=id_, state=at.id, kind=RunKind.CREW, crew=crew, inputs=given, limits=limits)
        case ToolWork() as work:
            invocation = ToolInvocation(tool=ToolUse(name=work.tool), arguments=filler.value(work.arguments))
            request = TaskRequest(name=at.id, invocation=invocation, limits=_task_limits(limits))
            return StartTask(task_id=id_, request=request)
    return None


def output(run: Pinned, state: FlowRunState) -> str | None:
    """A run's output as the flow words it; None where that is the last there was. Raises TextTooLong."""
    wanted = flow_of(run).output
    return Filler(_values(run, state)).text(wanted) if wanted else None


def left(run: Pinned, state: FlowRunState, time: datetime) -> RunLimits:
    """What a run may still take; a limit of which nothing is left is the least there is."""
    limits, used = run.limits, state.usage
    seconds = limits.max_seconds
    if seconds is not None and state.start_time is not None:
        seconds = max(1.0, seconds - (time - state.start_time).total_seconds())
    return RunLimits(
        max_tokens=limits.max_tokens and max(1, limits.max_tokens - used.input_tokens - used.output_tokens),
        max_cost_micros=limits.max_cost_micros and max(1, limits.max_cost_micros - used.cost_micros),
        max_tool_calls=limits.max_tool_calls and max(1, limits.max_tool_calls - used.tool_calls),
        max_seconds=seconds,
    )


def spent(run: Pinned, state: FlowRunState, at: FlowState) -> str:
    """What nothing is left of that a state's work would take; empty where there is enough to begin."""
    limits, used = run.limits, state.usage
    asked = []
    if not isinstance(at.work, ToolWork):
        asked = [
            ("tokens", limits.max_tokens, used.input_tokens + used.output_tokens),
            ("cost", limits.max_cost_micros, used.cost_micros),
        ]
    if _may_call_tools(at):
        asked.append(("tool_calls", limits.max_tool_calls, used.tool_calls))
    return next((name for name, most, taken in asked if most and taken >= most), "")


def _may_call_tools(at: FlowState) -> bool:
    """Whether a state's work calls tools as far as it can be told; of crews and flows it cannot."""
    if isinstance(at.work, AgentWork):
        return bool(at.work.agent.agent_id or at.work.agent.tools or at.work.task.tools)
    return True


def asked_for(flow: Flow) -> frozenset[str] | None:
    """The states whose outputs something asks for by name; None where that may be any."""
    expressions = [each.expression for state in flow.states for each in state.assignments]
    conditions = [each.condition for each in flow.transitions]
    while conditions:
        condition = conditions.pop()
        expressions.append(condition.text)
        conditions.extend(condition.conditions)
    if any("outputs" in text for text in expressions):
        return None
    names = (name for _, text in texts_of(flow) for name in texts.names_within(text))
    return frozenset(filter(None, map(texts.state_of, names)))


def _values(run: Pinned, state: FlowRunState) -> dict[str, Any]:
    """By the names that placeholders use; a state that was not left yet has no output."""
    outputs = {f"{texts.OUTPUT}.{each.id}": state.outputs.get(each.id, "") for each in flow_of(run).states}
    return {**run.inputs, **state.variables, texts.OUTPUT: state.output, **outputs}


def _crew_of_one(run: Pinned, work: AgentWork, filler: Filler) -> tuple[Crew, dict[str, Any]]:
    """The crew of an agent's single task, and its inputs: what outputs and inputs hold is never looked at again."""
    names = dict.fromkeys(name for _, text in agent_texts(work) for name in texts.names(text))
    renamed = _plain_names(names)
    given = {renamed[name]: filler.value(f"{{{name}}}") for name in names}

    def text(of: str) -> str:
        return texts.renamed(of, renamed)

    agent, task = work.agent, work.task
    if agent.agent_id:
        revision = agent.agent_revision or run.pins.get(f"agent:{agent.agent_id}", 0)
        agent = replace(agent, agent_revision=revision)
    else:
        agent = replace(agent, role=text(agent.role), goal=text(agent.goal), backstory=text(agent.backstory))
    task = replace(task, description=text(task.description), expected_output=text(task.expected_output), agent="")
    return crew_of(replace(work, agent=agent, task=task)), given


def _plain_names(names: Mapping[str, None]) -> dict[str, str]:
    """Names that crews understand for those of flows: without a dot, and no two the same."""
    plain: dict[str, str] = {name: name for name in names if not texts.state_of(name)}
    for name in names:
        if state := texts.state_of(name):
            wanted = f"{texts.OUTPUT}-{state}"
            taken = wanted in plain.values() or len(wanted) > _LONGEST_NAME
            number = 1
            while taken:
                wanted = f"{texts.OUTPUT}-{number}"
                taken, number = wanted in plain.values(), number + 1
            plain[name] = wanted
    return plain


def _task_limits(limits: RunLimits) -> TaskLimits:
    return TaskLimits(
        max_tokens=limits.max_tokens,
        max_cost_micros=limits.max_cost_micros,
        max_tool_calls=limits.max_tool_calls,
        max_seconds=limits.max_seconds,
    )
