"""What is wrong with a crew: every fault at once, each with its field and reason."""

import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loremesh_crew.domain import crew_checks, guardrails
from loremesh_crew.domain.definitions import Crew, CrewAgent, CrewTask, Guardrail, Process

pytestmark = pytest.mark.unit

SCHEMA = {"type": "object", "properties": {"topic": {"type": "string"}}}


def task(name: str, *depends_on: str, **fields: Any) -> CrewTask:
    return CrewTask(**{"name": name, "description": "Do it.", "depends_on": depends_on, **fields})


def crew(*tasks: CrewTask, **fields: Any) -> Crew:
    agents = (CrewAgent(name="ann", role="Writer"), CrewAgent(name="bob", role="Reader"))
    given_ = {"id": "c", "agents": agents, "tasks": tasks or (task("a"),), "process": Process.PARALLEL, **fields}
    return Crew(**given_)


def found(of: Crew) -> set[tuple[str, str]]:
    return {(each.field, each.reason) for each in crew_checks.faults(of)}


def test_a_crew_without_a_fault_has_none() -> None:
    whole = crew(
        task("a", agent="ann", output_schema=SCHEMA, output_file="a.md"),
        task(
            "b", "a", agent="bob", guardrails=(Guardrail(matches=r"\bwell\b"), Guardrail(expression="size(json) > 0"))
        ),
        task(
            "c", "a", "b", guardrails=(Guardrail(min_length=3), Guardrail(max_length=3), Guardrail(criterion="Nice."))
        ),
        inputs_schema=SCHEMA,
        example_inputs={"topic": "bees"},
    )
    for process in Process:
        assert found(replace(whole, process=process)) == set()


@pytest.mark.parametrize(
    ("broken", "field", "reason"),
    [
        (crew(agents=()), "agents", "CREW_INVALID"),
        (replace(crew(), tasks=()), "tasks", "CREW_INVALID"),
        (crew(agents=(CrewAgent(name="a"), CrewAgent(name="a"))), "agents[1].name", "AGENT_REPEATED"),
        (crew(agents=(CrewAgent(name="a", agent_revision=1),)), "agents[0].agent_revision", "CREW_INVALID"),
        (crew(task("a"), task("a")), "tasks[1].name", "TASK_REPEATED"),
        (crew(task("a", agent="zoe")), "tasks[0].agent", "AGENT_UNKNOWN"),
        (crew(task("a"), task("b", "a", "zoe")), "tasks[1].depends_on[1]", "TASK_UNKNOWN"),
        (crew(task("a", "a")), "tasks[0].depends_on[0]", "TASK_CYCLE"),
        (crew(task("a", "c"), task("b", "a"), task("c", "b")), "tasks[0].depends_on", "TASK_CYCLE"),
        (crew(task("a", "b"), task("b"), process=Process.SEQUENTIAL), "tasks[0].depends_on[0]", "TASK_CYCLE"),
        (crew(manager="ann"), "manager", "CREW_INVALID"),
        (crew(manager_model="local/x"), "manager_model", "CREW_INVALID"),
        (crew(manager="zoe", process=Process.HIERARCHICAL), "manager", "AGENT_UNKNOWN"),
        (crew(manager="ann", manager_model="x/y", process=Process.HIERARCHICAL), "manager_model", "CREW_INVALID"),
        (crew(task("a", agent="ann"), manager="ann", process=Process.HIERARCHICAL), "tasks[0].agent", "CREW_INVALID"),
        (
            crew(agents=(CrewAgent(name="ann"),), manager="ann", process=Process.HIERARCHICAL),
            "agents",
            "CREW_INVALID",
        ),
        (crew(task("a", output_file="x.md"), task("b", output_file="x.md")), "tasks[1].output_file", "CREW_INVALID"),
        (crew(task("a", description=" \n")), "tasks[0].description", "CREW_INVALID"),
        (crew(task("a", output_schema={"type": "array"})), "tasks[0].output_schema", "SCHEMA_INVALID"),
        (crew(inputs_schema={"type": "object", "required": 1}), "inputs_schema", "SCHEMA_INVALID"),
        (crew(task("a", guardrails=(Guardrail(),))), "tasks[0].guardrails[0]", "CREW_INVALID"),
        (crew(task("a", guardrails=(Guardrail(criterion=" "),))), "tasks[0].guardrails[0]", "CREW_INVALID"),
        (crew(task("a", guardrails=(Guardrail(matches="("),))), "tasks[0].guardrails[0].matches", "PATTERN_INVALID"),
        (
            crew(task("a", guardrails=(Guardrail(matches_not=r"(a)\1"),))),
            "tasks[0].guardrails[0].matches_not",
            "PATTERN_INVALID",
        ),
        (
            crew(task("a", guardrails=(Guardrail(min_length=5), Guardrail(max_length=4)))),
            "tasks[0].guardrails",
            "CREW_INVALID",
        ),
        (
            crew(task("a", guardrails=(Guardrail(matches="x"), Guardrail(matches_not="x")))),
            "tasks[0].guardrails",
            "CREW_INVALID",
        ),
        (
            crew(task("a", description="{tone}"), inputs_schema=SCHEMA),
            "tasks[0].description",
            "INPUT_UNKNOWN",
        ),
        (
            crew(
                agents=(CrewAgent(name="ann", goal="{x}"),),
                inputs_schema={"type": "object", "additionalProperties": False},
            ),
            "agents[0].goal",
            "INPUT_UNKNOWN",
        ),
        (crew(task("a", description="{topic}"), example_inputs={}), "example_inputs", "CREW_INVALID"),
        (crew(inputs_schema=SCHEMA, example_inputs={"topic": 1}), "example_inputs", "CREW_INVALID"),
        (crew(*(task(f"t{i}", description="x" * 16_000) for i in range(70))), "tasks", "CREW_INVALID"),
    ],
)
def test_a_fault_has_its_field_and_its_reason(broken: Crew, field: str, reason: str) -> None:
    assert found(broken) == {(field, reason)}


@pytest.mark.parametrize(
    "expression", ["output", "size(output)", "outpu == ''", "((", "output > 3", "json.a ==", "x" * 900, "1 + true == 2"]
)
def test_an_expression_that_is_none_or_gives_no_bool_is_refused(expression: str) -> None:
    broken = crew(task("a", guardrails=(Guardrail(expression=expression),)))
    assert found(broken) == {("tasks[0].guardrails[0].expression", "EXPRESSION_INVALID")}


@pytest.mark.parametrize("expression", ["output.contains('a')", "json.a", "has(json.a) && json.a > 3.0", "true"])
def test_an_expression_over_output_and_json_is_taken(expression: str) -> None:
    assert found(crew(task("a", guardrails=(Guardrail(expression=expression),)))) == set()


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {**SCHEMA, "additionalProperties": True},
        {**SCHEMA, "patternProperties": {"^t": {"type": "string"}}},
        {**SCHEMA, "allOf": [{"properties": {"tone": {}}}]},
    ],
)
def test_a_schema_that_may_have_more_inputs_refuses_no_placeholder(schema: dict[str, Any]) -> None:
    assert found(crew(task("a", description="{tone}"), inputs_schema=schema)) == set()


def test_rules_too_large_together_are_not_even_compiled() -> None:
    guardrails = tuple(Guardrail(matches="(" + "x" * 999) for _ in range(16))
    assert found(crew(*(task(f"t{i}", guardrails=guardrails) for i in range(20)))) == {("tasks", "CREW_INVALID")}


def test_every_fault_is_told_at_once() -> None:
    broken = crew(
        task("a", "b", agent="zoe", description=" "),
        task("b", "a", guardrails=(Guardrail(matches="("), Guardrail())),
        task("b", "nobody", output_schema={}),
        manager="eve",
        inputs_schema={"type": "string"},
    )
    assert {reason for _, reason in found(broken)} == {
        *("AGENT_UNKNOWN", "CREW_INVALID", "PATTERN_INVALID", "SCHEMA_INVALID"),
        *("TASK_CYCLE", "TASK_REPEATED", "TASK_UNKNOWN"),
    }


def test_a_cycle_is_named_from_its_first_task_on() -> None:
    (fault,) = crew_checks.faults(crew(task("x"), task("a", "x", "c"), task("b", "a"), task("c", "b"), task("d", "c")))
    assert fault.description.endswith("a -> c -> b -> a.")


def test_each_of_two_cycles_is_named() -> None:
    two = crew(task("a", "b"), task("b", "a"), task("c", "d"), task("d", "c", "a"))
    assert found(two) == {("tasks[0].depends_on", "TASK_CYCLE"), ("tasks[2].depends_on", "TASK_CYCLE")}


@given(st.lists(st.sets(st.integers(0, 11), max_size=4), min_size=1, max_size=12))
@settings(deadline=None, max_examples=200)
def test_cycles_are_found_exactly_where_there_are_some(edges: list[set[int]]) -> None:
    waits = [{other for other in others if other < len(edges)} - {i} for i, others in enumerate(edges)]
    tasks = [task(f"t{i}", *(f"t{other}" for other in sorted(others))) for i, others in enumerate(waits)]
    cycles = [each for each in crew_checks.faults(crew(*tasks)) if each.reason == "TASK_CYCLE"]
    for cycle in cycles:
        way = cycle.description.removeprefix("Tasks wait for each other: ").removesuffix(".").split(" -> ")
        assert way[0] == way[-1]
        assert all(int(after[1:]) in waits[int(before[1:])] for before, after in pairwise(way))
    done: set[int] = set()
    while ready := {i for i, others in enumerate(waits) if i not in done and others <= done}:
        done |= ready
    assert bool(cycles) == (len(done) < len(waits))


@pytest.mark.parametrize("step", [1, -1])
def test_two_hundred_tasks_with_fifty_dependencies_each_are_checked_in_no_time(step: int) -> None:
    tasks = [
        task(f"t{i}", *(f"t{(i + step * each) % 200}" for each in range(1, 51) if step > 0 or i >= each))
        for i in range(200)
    ]
    begin = time.perf_counter()
    cycles = found(crew(*tasks))
    assert time.perf_counter() - begin < 2
    assert bool(cycles) == (step > 0)


@pytest.mark.parametrize("kind", ["matches", "matches_not"])
def test_an_output_too_long_for_a_guardrails_pattern_does_not_fulfil_it(kind: str) -> None:
    guardrail = Guardrail(**{kind: "a.{0,999}b.{0,900}Q"}, message="Too long.")
    start = time.perf_counter()

    assert guardrails.problem([guardrail], "abxy" * 250_000, None) == "Too long."
    assert time.perf_counter() - start < 2
