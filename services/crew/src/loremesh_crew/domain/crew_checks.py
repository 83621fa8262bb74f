"""What is wrong with a crew, found without asking anybody: all of it at once."""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loremesh_kit import patterns, schemas
from loremesh_kit.errors import FieldViolation
from loremesh_kit.patterns import PatternRefused

from loremesh_crew.domain import inputs, placeholders
from loremesh_crew.domain.definitions import Crew, CrewTask, Guardrail, Process, VariableType
from loremesh_crew.domain.expressions import ExpressionInvalid, compile_expression
from loremesh_crew.domain.guardrails import VARIABLES
from loremesh_crew.errors import CrewInvalid, InputInvalid, InputMissing

# Every run keeps one.
MAX_CHARACTERS = 1_000_000
# Of all that is compiled to be checked: some takes a tenth of a second.
MAX_RULES = 262_144
_INVALID = CrewInvalid.reason
# Where a schema may say more of its properties elsewhere.
_MORE_PROPERTIES = ("$ref", "allOf", "anyOf", "oneOf", "patternProperties")


def faults(crew: Crew) -> Iterator[FieldViolation]:
    """What contradicts itself or names what is not there; one that is too large is looked at no further."""
    too_large = list(_size_faults(crew))
    if too_large:
        yield from too_large
        return
    yield from _whole_faults(crew)
    yield from _agent_faults(crew)
    yield from _manager_faults(crew)
    for i, task in enumerate(crew.tasks):
        yield from task_faults(task, field=f"tasks[{i}]")
    yield from _assignment_faults(crew)
    yield from _dependency_faults(crew.tasks, is_sequence=crew.process is Process.SEQUENTIAL)
    yield from _input_faults(crew)


def task_faults(task: CrewTask, *, field: str) -> Iterator[FieldViolation]:
    """What is wrong with a task by itself."""
    if not task.description.strip():
        yield FieldViolation(f"{field}.description", "It says nothing.", _INVALID)
    if task.output_schema is not None:
        yield from schema_faults(task.output_schema, field=f"{field}.output_schema")
    for i, guardrail in enumerate(task.guardrails):
        yield from _guardrail_faults(guardrail, field=f"{field}.guardrails[{i}]")
    yield from _never_passed(task.guardrails, field=f"{field}.guardrails")


def schema_faults(schema: Mapping[str, Any], *, field: str) -> Iterator[FieldViolation]:
    """What is wrong with a JSON Schema of an object."""
    if problem := schemas.schema_problem(schema):
        yield FieldViolation(field, f"It is no schema to be used: {problem}", "SCHEMA_INVALID")


def pattern_faults(pattern: str, *, field: str) -> Iterator[FieldViolation]:
    """What is wrong with a regular expression."""
    try:
        patterns.compiled(pattern)
    except PatternRefused as refused:
        yield FieldViolation(field, f"{pattern[:100]!r}: {refused}.", "PATTERN_INVALID")


def _whole_faults(crew: Crew) -> Iterator[FieldViolation]:
    if not crew.agents:
        yield FieldViolation("agents", "A crew has an agent at least.", _INVALID)
    if not crew.tasks:
        yield FieldViolation("tasks", "A crew has a task at least.", _INVALID)


def _size_faults(crew: Crew) -> Iterator[FieldViolation]:
    size = sum(len(text) for _, text in inputs.texts(crew))
    if size > MAX_CHARACTERS:
        yield FieldViolation(
            "tasks", f"All texts together have {size} characters, more than {MAX_CHARACTERS}.", _INVALID
        )
    size = sum(map(len, _rules(crew)))
    if size > MAX_RULES:
        problem = f"All schemas, patterns and expressions together have {size} characters, more than {MAX_RULES}."
        yield FieldViolation("tasks", problem, _INVALID)


def _rules(crew: Crew) -> Iterator[str]:
    for schema in (crew.inputs_schema, *(task.output_schema for task in crew.tasks)):
        yield "" if schema is None else json.dumps(schema)
    for task in crew.tasks:
        for each in task.guardrails:
            yield f"{each.matches}{each.matches_not}{each.expression}"


def _agent_faults(crew: Crew) -> Iterator[FieldViolation]:
    seen: set[str] = set()
    for i, agent in enumerate(crew.agents):
        if agent.name in seen:
            yield FieldViolation(f"agents[{i}].name", f"Two agents are called {agent.name!r}.", "AGENT_REPEATED")
        seen.add(agent.name)
        if agent.agent_revision and not agent.agent_id:
            yield FieldViolation(f"agents[{i}].agent_revision", "It is the revision of no agent.", _INVALID)


def _manager_faults(crew: Crew) -> Iterator[FieldViolation]:
    if crew.process is not Process.HIERARCHICAL:
        for field in ("manager", "manager_model"):
            if getattr(crew, field):
                yield FieldViolation(field, "A manager plans with HIERARCHICAL only.", _INVALID)
        return
    if not crew.manager:
        return
    if crew.manager_model:
        problem = "It is the model of a manager of the crew's own; this one is among its agents."
        yield FieldViolation("manager_model", problem, _INVALID)
    if crew.manager not in {agent.name for agent in crew.agents}:
        yield FieldViolation("manager", f"No agent is called {crew.manager!r}.", "AGENT_UNKNOWN")
    elif len(crew.agents) == 1:
        yield FieldViolation("agents", "There is nobody beside the manager to do the work.", _INVALID)


def _assignment_faults(crew: Crew) -> Iterator[FieldViolation]:
    agents = {agent.name for agent in crew.agents}
    names: set[str] = set()
    files: set[str] = set()
    for i, task in enumerate(crew.tasks):
        if task.name in names:
            yield FieldViolation(f"tasks[{i}].name", f"Two tasks are called {task.name!r}.", "TASK_REPEATED")
        if task.agent and task.agent not in agents:
            yield FieldViolation(f"tasks[{i}].agent", f"No agent is called {task.agent!r}.", "AGENT_UNKNOWN")
        elif task.agent and task.agent == crew.manager:
            yield FieldViolation(f"tasks[{i}].agent", "The manager plans, and does no task.", _INVALID)
        if task.output_file and task.output_file in files:
            problem = f"Two tasks write the file {task.output_file!r}."
            yield FieldViolation(f"tasks[{i}].output_file", problem, _INVALID)
        names.add(task.name)
        files.add(task.output_file)


def _guardrail_faults(guardrail: Guardrail, *, field: str) -> Iterator[FieldViolation]:
    rules = ("matches", "matches_not", "min_length", "max_length", "expression", "criterion")
    given = [name for name in rules if getattr(guardrail, name)]
    if len(given) != 1 or (isinstance(rule := getattr(guardrail, given[0]), str) and not rule.strip()):
        yield FieldViolation(field, "A guardrail has one rule.", _INVALID)
    for name in ("matches", "matches_not"):
        if pattern := getattr(guardrail, name):
            yield from pattern_faults(pattern, field=f"{field}.{name}")
    if guardrail.expression and (problem := _expression_problem(guardrail.expression)):
        yield FieldViolation(f"{field}.expression", problem, "EXPRESSION_INVALID")


def _never_passed(guardrails: Sequence[Guardrail], *, field: str) -> Iterator[FieldViolation]:
    """What no output fulfils, as far as it can be told."""
    least = max((each.min_length for each in guardrails), default=0)
    most = min((each.max_length for each in guardrails if each.max_length), default=least)
    if most < least:
        problem = f"No output has at least {least} and at most {most} characters."
        yield FieldViolation(field, problem, _INVALID)
    wanted = {each.matches for each in guardrails if each.matches}
    for pattern in sorted(wanted & {each.matches_not for each in guardrails}):
        yield FieldViolation(field, f"No output both matches {pattern[:100]!r} and does not.", _INVALID)


def _expression_problem(expression: str) -> str:
    """Why an expression over an output cannot be a guardrail; empty where it can."""
    try:
        compile_expression(expression, VARIABLES, VariableType.BOOL)
    except ExpressionInvalid as invalid:
        return f"The expression cannot be used: {invalid.problem}."
    return ""


def _dependency_faults(tasks: Sequence[CrewTask], *, is_sequence: bool) -> Iterator[FieldViolation]:
    places: dict[str, int] = {}
    for i, task in enumerate(tasks):
        places.setdefault(task.name, i)
    waits: list[list[int]] = [[] for _ in tasks]
    for i, task in enumerate(tasks):
        for j, name in enumerate(task.depends_on):
            field, place = f"tasks[{i}].depends_on[{j}]", places.get(name)
            if place is None:
                yield FieldViolation(field, f"No task is called {name!r}.", "TASK_UNKNOWN")
            elif place == i or name == task.name:
                yield FieldViolation(field, "A task does not wait for itself.", "TASK_CYCLE")
            elif is_sequence and place > i:
                yield FieldViolation(field, f"The task {name!r} comes later in the sequence.", "TASK_CYCLE")
            else:
                waits[i].append(place)
    for cycle in _cycles(waits):
        first = min(cycle)
        at = cycle.index(first)
        way = " -> ".join(tasks[i].name for i in (*cycle[at:], *cycle[:at], first))
        yield FieldViolation(f"tasks[{first}].depends_on", f"Tasks wait for each other: {way}.", "TASK_CYCLE")


def _cycles(waits: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Circles without a common task, as many as it takes to break all of them."""
    waited_for_by: list[list[int]] = [[] for _ in waits]
    for i, others in enumerate(waits):
        for other in others:
            waited_for_by[other].append(i)
    waiting = {i: len(others) for i, others in enumerate(waits)}
    free = deque(i for i, count in waiting.items() if not count)
    while waiting:
        while free:
            done = free.popleft()
            if waiting.pop(done, None) is None:
                continue
            for i in waited_for_by[done]:
                if i in waiting:
                    waiting[i] -= 1
                    if not waiting[i]:
                        free.append(i)
        if waiting:
            cycle = _cycle(waits, waiting)
            yield cycle
            free.extend(cycle)


def _cycle(waits: Sequence[Sequence[int]], among: Mapping[int, int]) -> list[int]:
    """Each of these waits for another of these: whoever follows comes back."""
    way: dict[int, None] = {}
    at = next(iter(among))
    while at not in way:
        way[at] = None
        at = next(other for other in waits[at] if other in among)
    path = list(way)
    return path[path.index(at) :]


def _input_faults(crew: Crew) -> Iterator[FieldViolation]:
    schema = crew.inputs_schema
    if schema is not None:
        found = list(schema_faults(schema, field="inputs_schema"))
        yield from found
        if found:
            return
        yield from _unknown_inputs(crew, schema)
    if crew.example_inputs is not None:
        try:
            inputs.check_inputs(crew, crew.example_inputs)
        except (InputMissing, InputInvalid) as error:
            yield FieldViolation("example_inputs", f"It is no example. {error.message}", _INVALID)


def _unknown_inputs(crew: Crew, schema: Mapping[str, Any]) -> Iterator[FieldViolation]:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties")
    is_open = others not in (None, False) or any(keyword in schema for keyword in _MORE_PROPERTIES)
    if is_open or not (properties or others is False):
        return
    for field, text in inputs.texts(crew):
        for name in placeholders.names(text):
            if name not in properties:
                problem = f"The placeholder {{{name}}} is not among the inputs: {_listed(properties)}."
                yield FieldViolation(field, problem, "INPUT_UNKNOWN")


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(names) or "there are none"
