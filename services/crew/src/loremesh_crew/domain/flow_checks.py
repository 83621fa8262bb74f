"""What is wrong with a flow, found without asking anybody: all of it at once."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from loremesh_kit.errors import FieldViolation

from loremesh_crew.domain import crew_checks, flow_graph, inputs, texts
from loremesh_crew.domain.conditions import OWN, names_of
from loremesh_crew.domain.definitions import (
    AgentWork,
    Condition,
    ConditionKind,
    Crew,
    CrewWork,
    Flow,
    FlowState,
    FlowWork,
    ToolWork,
    VariableType,
    WaitWork,
)
from loremesh_crew.domain.expressions import RESERVED, ExpressionInvalid, compile_expression, fits, fitted
from loremesh_crew.errors import FlowInvalid, InputInvalid, InputMissing, VariableInvalid

# All variables of a run together, as JSON.
MAX_VARIABLES = 262_144
# A flow, those in it, those in them, and so on.
MAX_LEVELS = 5
EMPTY: Mapping[VariableType, Any] = {
    VariableType.STRING: "",
    VariableType.INT: 0,
    VariableType.DOUBLE: 0.0,
    VariableType.BOOL: False,
    VariableType.LIST: [],
    VariableType.MAP: {},
}
_INVALID = FlowInvalid.reason
_MAX_DEPTH = 10
# Of one transition and of all.
_MAX_CONDITIONS = 200
_MAX_ALL_CONDITIONS = 5000
# Where a schema may say more of its properties elsewhere.
_MORE_PROPERTIES = ("$ref", "allOf", "anyOf", "oneOf", "patternProperties")


def faults(flow: Flow) -> Iterator[FieldViolation]:
    """What contradicts itself or names what is not there."""
    yield from _state_faults(flow)
    yield from _way_faults(flow)
    yield from _variable_faults(flow)
    yield from _condition_faults(flow)
    for i, state in enumerate(flow.states):
        yield from _work_faults(state, field=f"states[{i}]")
        yield from _assignment_faults(flow, state, field=f"states[{i}]")
    yield from _input_faults(flow)


def needed(flow: Flow) -> tuple[str, ...]:
    """The inputs that a flow's own texts name, each once, in their order: no variables, no outputs."""
    variables = {variable.name for variable in flow.variables}
    named = chain.from_iterable(texts.names_within(text) for _, text in texts_of(flow))
    return tuple(dict.fromkeys(name for name in named if name not in variables and not _is_output(name)))


def ungiven(flow: Flow, given: Iterable[str], wanted: Iterable[str], *, field: str) -> Iterator[FieldViolation]:
    """The inputs a crew or flow wants of a state that neither the state nor the flow can have for it."""
    known = _known_inputs(flow)
    if known is None:
        return
    had = {*given, *known, *(variable.name for variable in flow.variables)}
    for name in wanted:
        if name not in had:
            problem = f"The input {name!r} is not given, and neither a variable nor among the flow's inputs."
            yield FieldViolation(f"{field}.inputs", problem, "INPUT_UNKNOWN")


def texts_of(flow: Flow) -> Iterator[tuple[str, Any]]:
    """What may hold placeholders, by its field: texts, and the arguments of tools."""
    yield "output", flow.output
    for i, state in enumerate(flow.states):
        match state.work:
            case CrewWork(inputs=given):
                yield from ((f"states[{i}].crew.inputs[{name}]", text) for name, text in given.items())
            case FlowWork(inputs=given):
                yield from ((f"states[{i}].flow.inputs[{name}]", text) for name, text in given.items())
            case ToolWork(arguments=arguments):
                yield f"states[{i}].tool.arguments", arguments
            case AgentWork() as work:
                yield from ((f"states[{i}].{field}", text) for field, text in agent_texts(work))


def agent_texts(work: AgentWork) -> Iterator[tuple[str, str]]:
    """The texts of an agent's task that may hold placeholders, by their fields."""
    if not work.agent.agent_id:
        yield "agent.agent.role", work.agent.role
        yield "agent.agent.goal", work.agent.goal
        yield "agent.agent.backstory", work.agent.backstory
    yield "agent.task.description", work.task.description
    yield "agent.task.expected_output", work.task.expected_output


def crew_of(work: AgentWork) -> Crew:
    """An agent's task as the crew of one that it is done by."""
    return Crew(id="", agents=(work.agent,), tasks=(work.task,))


def signals(flow: Flow) -> frozenset[str]:
    """What its states wait for."""
    return frozenset(state.wait.signal for state in flow.states if state.wait and state.wait.signal)


def _is_output(name: str) -> bool:
    return name == texts.OUTPUT or bool(texts.state_of(name))


def _state_faults(flow: Flow) -> Iterator[FieldViolation]:
    seen: set[str] = set()
    for i, state in enumerate(flow.states):
        if state.id in seen:
            yield FieldViolation(f"states[{i}].id", f"Two states are called {state.id!r}.", "STATE_REPEATED")
        seen.add(state.id)
        if state.fails and not state.final:
            yield FieldViolation(f"states[{i}].fails", "Only a final state fails the run.", _INVALID)
    initial = [i for i, state in enumerate(flow.states) if state.initial]
    if not initial:
        yield FieldViolation("states", "No state is the initial one.", "INITIAL_STATE_MISSING")
    for i in initial[1:]:
        yield FieldViolation(f"states[{i}].initial", "Another state is the initial one.", "INITIAL_STATE_MISSING")


def _way_faults(flow: Flow) -> Iterator[FieldViolation]:
    known = {state.id for state in flow.states}
    for i, each in enumerate(flow.transitions):
        for field, name in (("from", each.from_state), ("to", each.to_state)):
            if name not in known:
                yield FieldViolation(f"transitions[{i}].{field}", f"No state is called {name!r}.", "STATE_UNKNOWN")
    for i, problem in sorted(flow_graph.dead(flow).items()):
        yield FieldViolation(f"transitions[{i}]", problem, "TRANSITION_NEVER_HOLDS")
    initial = [state.id for state in flow.states if state.initial]
    reached, ending = flow_graph.reachable(flow, initial), flow_graph.ending(flow)
    if not any(state.final and (state.id in reached or not initial) for state in flow.states):
        yield FieldViolation("states", "No way leads to a final state.", "FINAL_STATE_MISSING")
    for i, state in enumerate(flow.states):
        if initial and state.id not in reached:
            yield FieldViolation(f"states[{i}]", f"No way leads to the state {state.id!r}.", "STATE_UNREACHABLE")
        elif ending and state.id not in ending:
            problem = f"No way leads from the state {state.id!r} to a final one."
            yield FieldViolation(f"states[{i}]", problem, "FINAL_STATE_MISSING")


def _variable_faults(flow: Flow) -> Iterator[FieldViolation]:
    seen: set[str] = set()
    for i, variable in enumerate(flow.variables):
        field = f"variables[{i}]"
        if variable.name in seen:
            yield FieldViolation(f"{field}.name", f"Two variables are called {variable.name!r}.", "VARIABLE_INVALID")
        if variable.name in RESERVED or variable.name in OWN:
            yield FieldViolation(f"{field}.name", f"{variable.name!r} is a word of expressions.", "VARIABLE_INVALID")
        seen.add(variable.name)
        if variable.initial is not None and not fits(variable.initial, variable.type):
            problem = f"The value is not of the type {variable.type}."
            yield FieldViolation(f"{field}.initial", problem, "VARIABLE_INVALID")
    size = len(json.dumps([variable.initial for variable in flow.variables], default=str))
    if size > MAX_VARIABLES:
        problem = f"All values together have {size} characters, more than {MAX_VARIABLES}."
        yield FieldViolation("variables", problem, "VARIABLE_INVALID")


def _condition_faults(flow: Flow) -> Iterator[FieldViolation]:
    names = _names(flow)
    total = 0
    for i, each in enumerate(flow.transitions):
        field = f"transitions[{i}].condition"
        count, depth = _extent(each.condition)
        total += count
        if depth > _MAX_DEPTH:
            yield FieldViolation(field, f"It is nested deeper than {_MAX_DEPTH}.", _INVALID)
        elif count > _MAX_CONDITIONS:
            yield FieldViolation(field, f"It has more than {_MAX_CONDITIONS} parts.", _INVALID)
        else:
            yield from _faults_of(each.condition, names, field)
    if total > _MAX_ALL_CONDITIONS:
        problem = f"All conditions together have {total} parts, more than {_MAX_ALL_CONDITIONS}."
        yield FieldViolation("transitions", problem, _INVALID)


def _faults_of(condition: Condition, names: Mapping[str, VariableType], field: str) -> Iterator[FieldViolation]:
    kind = condition.kind
    if kind is ConditionKind.VARIABLE_EQUALS and (condition.variable not in names or condition.variable in OWN):
        problem = f"No variable is called {condition.variable!r}."
        yield FieldViolation(f"{field}.{kind}.variable", problem, "VARIABLE_UNKNOWN")
    if kind is ConditionKind.OUTPUT_MATCHES:
        yield from crew_checks.pattern_faults(condition.text, field=f"{field}.{kind}")
    if kind is ConditionKind.EXPRESSION:
        yield from _expression_faults(condition.text, names, VariableType.BOOL, f"{field}.{kind}")
    for i, part in enumerate(condition.conditions):
        place = f"{field}.{kind}" if kind is ConditionKind.NOT else f"{field}.{kind}.conditions[{i}]"
        yield from _faults_of(part, names, place)


def _extent(condition: Condition) -> tuple[int, int]:
    """How many conditions it is made of, and how deep it nests; a plain one is 1."""
    count, depth, level = 0, 0, [condition]
    while level:
        count, depth = count + len(level), depth + 1
        level = [part for each in level for part in each.conditions]
    return count, depth


def _assignment_faults(flow: Flow, state: FlowState, *, field: str) -> Iterator[FieldViolation]:
    names = _names(flow)
    types = {variable.name: variable.type for variable in flow.variables}
    for i, each in enumerate(state.assignments):
        place = f"{field}.assignments[{i}]"
        if each.variable not in types:
            problem = f"No variable is called {each.variable!r}."
            yield FieldViolation(f"{place}.variable", problem, "VARIABLE_UNKNOWN")
            continue
        yield from _expression_faults(each.expression, names, types[each.variable], f"{place}.expression")


def _expression_faults(
    text: str, names: Mapping[str, VariableType], expected: VariableType, field: str
) -> Iterator[FieldViolation]:
    try:
        compile_expression(text, names, expected)
    except ExpressionInvalid as invalid:
        yield FieldViolation(field, f"{text[:100]!r}: {invalid.problem}.", "EXPRESSION_INVALID")


def _names(flow: Flow) -> dict[str, VariableType]:
    """The names expressions may use, but for variables that no expression could name."""
    return {name: type_ for name, type_ in names_of(flow).items() if name not in RESERVED}


def _work_faults(state: FlowState, *, field: str) -> Iterator[FieldViolation]:
    match state.work:
        case WaitWork(seconds=None, signal=""):
            yield FieldViolation(f"{field}.wait", "It waits for neither a time nor a signal.", "SIGNAL_UNKNOWN")
        case AgentWork() as work:
            yield from _agent_faults(work, field=f"{field}.agent")


def _agent_faults(work: AgentWork, *, field: str) -> Iterator[FieldViolation]:
    if work.task.depends_on:
        yield FieldViolation(f"{field}.task.depends_on", "There is no other task in a state.", "TASK_UNKNOWN")
    if work.task.agent not in ("", work.agent.name):
        yield FieldViolation(f"{field}.task.agent", "The state's agent does it.", "AGENT_UNKNOWN")
        return
    for each in crew_checks.faults(crew_of(work)):
        if not each.field.startswith("tasks[0].depends_on"):
            yield FieldViolation(of_one(each.field, field), each.description, _own(each.reason))


def of_one(field: str, place: str) -> str:
    """The field of a crew of one as that of the state's agent or task."""
    return f"{place}.{field.replace('agents[0]', 'agent').replace('tasks[0]', 'task')}"


def _own(reason: str) -> str:
    return _INVALID if reason == "CREW_INVALID" else reason


def _input_faults(flow: Flow) -> Iterator[FieldViolation]:
    known = _known_inputs(flow)
    variables = {variable.name for variable in flow.variables}
    states = {state.id for state in flow.states}
    for field, text in texts_of(flow):
        for name in texts.names_within(text):
            state = texts.state_of(name)
            if state and state not in states:
                yield FieldViolation(field, f"{{{name}}}: no state is called {state!r}.", "STATE_UNKNOWN")
            elif not _is_output(name) and name not in variables and known is not None and name not in known:
                problem = f"The placeholder {{{name}}} is neither a variable nor among the inputs: {_listed(known)}."
                yield FieldViolation(field, problem, "INPUT_UNKNOWN")
    schema = flow.inputs_schema
    broken = list(crew_checks.schema_faults(schema, field="inputs_schema")) if schema is not None else []
    yield from broken
    if flow.example_inputs is not None and not broken:
        try:
            check_inputs(flow, flow.example_inputs)
        except (InputMissing, InputInvalid, VariableInvalid) as error:
            yield FieldViolation("example_inputs", f"It is no example. {error.message}", _INVALID)


def check_inputs(flow: Flow, given: Mapping[str, Any], *, field: str = "inputs") -> dict[str, Any]:
    """The inputs as they are kept, without what no text holds: those of a variable's name are of its type.

    Raises InputMissing, InputInvalid, VariableInvalid.
    """
    kept = inputs.held_against(given, schema=flow.inputs_schema, needed=needed(flow), field=field)
    for variable in flow.variables:
        if variable.name in kept and not fits(kept[variable.name], variable.type):
            raise VariableInvalid(variable.name, variable.type.lower())
    return kept


def variables_of(flow: Flow, given: Mapping[str, Any]) -> dict[str, Any]:
    """The variables at the start of a run with inputs that were checked."""
    found: dict[str, Any] = {}
    for variable in flow.variables:
        value = given.get(variable.name, variable.initial)
        found[variable.name] = EMPTY[variable.type] if value is None else fitted(value, variable.type)
    return found


def _known_inputs(flow: Flow) -> Iterable[str] | None:
    """The inputs there can be; None where the schema leaves that open."""
    schema = flow.inputs_schema
    if schema is None:
        return None
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    is_open = others not in (None, False) or any(keyword in schema for keyword in _MORE_PROPERTIES)
    if is_open or not isinstance(properties, Mapping) or not (properties or others is False):
        return None
    return tuple(properties)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "there are none"
