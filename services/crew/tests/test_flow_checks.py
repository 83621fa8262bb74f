"""What is wrong with a flow is told all at once, before it is kept."""

from dataclasses import replace
from typing import Any

import pytest
from loremesh_crew.domain.definitions import (
    AgentWork,
    Assignment,
    Condition,
    ConditionKind,
    CrewAgent,
    CrewTask,
    Flow,
    FlowState,
    ToolWork,
    Variable,
    VariableType,
    WaitWork,
)
from loremesh_crew.domain.flow_checks import check_inputs, faults, needed, signals, variables_of
from loremesh_crew.errors import InputInvalid, InputMissing, VariableInvalid

from .flow_doubles import (
    FAILURE,
    SUCCESS,
    both,
    contains,
    contrary,
    crew_state,
    either,
    equals,
    expression,
    ints,
    reasons,
    review_flow,
    way,
)

pytestmark = pytest.mark.unit

END = FlowState(id="end", final=True)


def found(flow: Flow) -> set[tuple[str, str]]:
    return reasons(list(faults(flow)))


def between(*ways: Any, state: FlowState | None = None, **fields: Any) -> Flow:
    """A state and an end, and these ways."""
    first = replace(state or crew_state("work"), initial=True)
    return Flow(id="f", states=(first, END), transitions=ways, **fields)


def dead(*ways: Any, state: FlowState | None = None, **fields: Any) -> set[int]:
    """The places of the transitions that never hold."""
    return {
        int(field.removeprefix("transitions[").partition("]")[0])
        for reason, field in found(between(*ways, state=state, **fields))
        if reason == "TRANSITION_NEVER_HOLDS"
    }


def test_a_flow_that_reviews_until_it_is_approved_is_in_order() -> None:
    assert found(review_flow()) == set()


def test_every_fault_is_told_at_once() -> None:
    flow = Flow(
        id="f",
        states=(
            FlowState(id="a", initial=True, assignments=(Assignment(variable="none", expression="1"),)),
            FlowState(id="a"),
            FlowState(id="b", wait=WaitWork(), fails=True),
        ),
        transitions=(way("a", "nowhere"), way("b", "a", expression("1 +"))),
        variables=(Variable(name="output"), Variable(name="n", type=VariableType.INT, initial="x")),
    )
    assert found(flow) >= {
        ("STATE_REPEATED", "states[1].id"),
        ("FLOW_INVALID", "states[2].fails"),
        ("FINAL_STATE_MISSING", "states"),
        ("STATE_UNREACHABLE", "states[2]"),
        ("STATE_UNKNOWN", "transitions[0].to"),
        ("EXPRESSION_INVALID", "transitions[1].condition.expression"),
        ("VARIABLE_UNKNOWN", "states[0].assignments[0].variable"),
        ("SIGNAL_UNKNOWN", "states[2].wait"),
        ("VARIABLE_INVALID", "variables[0].name"),
        ("VARIABLE_INVALID", "variables[1].initial"),
    }


def test_there_is_one_initial_state() -> None:
    flow = review_flow()
    without = replace(flow, states=tuple(replace(each, initial=False) for each in flow.states))
    twice = replace(flow, states=tuple(replace(each, initial=not each.final) for each in flow.states))
    assert found(without) == {("INITIAL_STATE_MISSING", "states")}
    assert found(twice) == {("INITIAL_STATE_MISSING", "states[1].initial")}
    assert ("INITIAL_STATE_MISSING", "states") in found(Flow(id="f"))


def test_some_final_state_is_reached_and_from_everywhere() -> None:
    flow = review_flow()
    no_way = replace(flow, transitions=flow.transitions[:1] + flow.transitions[2:])
    assert found(no_way) == {
        ("FINAL_STATE_MISSING", "states"),
        *{("FINAL_STATE_MISSING", f"states[{at}]") for at in (0, 1)},
        ("STATE_UNREACHABLE", "states[2]"),
    }
    trap = replace(
        flow,
        states=(*flow.states, crew_state("trap")),
        transitions=(*flow.transitions, way("check", "trap", FAILURE), way("trap", "trap")),
    )
    assert found(trap) == {("FINAL_STATE_MISSING", "states[3]")}


def test_a_state_that_is_left_only_through_a_loop_is_in_order() -> None:
    assert found(between(way("work", "work", FAILURE), way("work", "end", SUCCESS))) == set()


def test_no_state_is_there_that_no_way_leads_to() -> None:
    flow = review_flow()
    island = replace(
        flow,
        states=(*flow.states, crew_state("island")),
        transitions=(*flow.transitions, way("island", "done")),
    )
    assert found(island) == {("STATE_UNREACHABLE", "states[3]")}


def test_ways_lead_from_and_to_states_that_are_there() -> None:
    flow = review_flow()
    lost = replace(flow, transitions=(*flow.transitions, way("no", "where")))
    assert found(lost) == {("STATE_UNKNOWN", "transitions[3].from"), ("STATE_UNKNOWN", "transitions[3].to")}


@pytest.mark.parametrize(
    "condition",
    [
        contrary(Condition()),
        both(SUCCESS, FAILURE),
        both(contains("x"), contrary(contains("x"))),
        both(equals("n", 1), equals("n", 2)),
        equals("n", "one"),
        equals("n", True),
        equals("n", 1.5),
        either(both(SUCCESS, FAILURE), contrary(Condition())),
        contrary(either(SUCCESS, FAILURE)),
    ],
)
def test_a_condition_that_contradicts_itself_is_found(condition: Condition) -> None:
    assert dead(way("work", "end", condition), way("work", "end"), variables=ints("n")) == {0}


@pytest.mark.parametrize(
    "condition",
    [
        Condition(),
        SUCCESS,
        FAILURE,
        contains("x"),
        contrary(contains("x")),
        both(contains("x"), contains("y")),
        both(equals("n", 1), equals("n", 1.0)),
        equals("n", 2.0),
        expression("n > 1"),
        either(FAILURE, contains("x")),
    ],
)
def test_a_condition_that_may_hold_is_let_be(condition: Condition) -> None:
    assert dead(way("work", "end", condition), variables=ints("n")) == set()


def test_what_is_looked_at_after_one_that_always_holds_is_found() -> None:
    assert dead(way("work", "end"), way("work", "end", SUCCESS)) == {1}
    assert dead(way("work", "end", SUCCESS), way("work", "end", priority=1)) == {0}
    assert dead(way("work", "end", SUCCESS), way("work", "end", FAILURE), way("work", "end")) == {2}
    assert dead(way("work", "end", contains("x")), way("work", "end", contains("x"))) == {1}
    assert dead(way("work", "end", SUCCESS), way("work", "end")) == set()
    assert dead(way("work", "end", SUCCESS, -1), way("work", "end", contains("x"))) == set()


@pytest.mark.parametrize(
    "state",
    [
        FlowState(id="work"),
        FlowState(id="work", wait=WaitWork(seconds=5)),
        FlowState(id="work", wait=WaitWork(signal="go")),
    ],
)
def test_a_state_that_cannot_fail_has_no_way_for_failures(state: FlowState) -> None:
    assert dead(way("work", "end", FAILURE), way("work", "end"), state=state) == {0}


def test_a_signal_may_be_late() -> None:
    state = FlowState(id="work", wait=WaitWork(seconds=5, signal="go"))
    assert dead(way("work", "end", FAILURE), way("work", "end"), state=state) == set()


def test_no_way_leads_out_of_a_final_state() -> None:
    assert dead(way("work", "end"), way("end", "work")) == {1}


@pytest.mark.parametrize("name", ["in", "true", "map", "int", "json", "outputs", "visit", "inputs"])
def test_a_variable_is_not_called_like_a_word_of_expressions(name: str) -> None:
    assert ("VARIABLE_INVALID", "variables[0].name") in found(between(way("work", "end"), variables=ints(name)))


def test_variables_are_called_differently_and_hold_their_type() -> None:
    variables = (*ints("n"), *ints("n"), Variable(name="tags", type=VariableType.LIST, initial={}))
    assert found(between(way("work", "end"), variables=variables)) == {
        ("VARIABLE_INVALID", "variables[1].name"),
        ("VARIABLE_INVALID", "variables[2].initial"),
    }
    much = (Variable(name="text", initial="x" * 300_000),)
    assert found(between(way("work", "end"), variables=much)) == {("VARIABLE_INVALID", "variables")}


def test_expressions_are_of_the_type_they_are_for() -> None:
    state = crew_state("work", assignments=(Assignment(variable="n", expression="output"),))
    flow = between(way("work", "end", expression("n + 1")), way("work", "end"), state=state, variables=ints("n"))
    assert found(flow) == {
        ("EXPRESSION_INVALID", "states[0].assignments[0].expression"),
        ("EXPRESSION_INVALID", "transitions[0].condition.expression"),
    }


def test_a_fault_deep_in_a_condition_is_told_with_its_place() -> None:
    pattern = Condition(kind=ConditionKind.OUTPUT_MATCHES, text="(")
    condition = both(SUCCESS, contrary(either(equals("none", 1), pattern)))
    place = "transitions[0].condition.and.conditions[1].not.or.conditions"
    assert found(between(way("work", "end", condition))) == {
        ("VARIABLE_UNKNOWN", f"{place}[0].variable_equals.variable"),
        ("PATTERN_INVALID", f"{place}[1].output_matches"),
    }


def test_conditions_are_neither_too_deep_nor_too_many() -> None:
    deep = contains("x")
    for _ in range(10):
        deep = contrary(deep)
    wide = either(*[both(*[contains(f"{at}.{n}") for n in range(20)]) for at in range(20)])
    assert found(between(way("work", "end", deep), way("work", "end"))) == {
        ("FLOW_INVALID", "transitions[0].condition")
    }
    assert found(between(way("work", "end", wide), way("work", "end"))) == {
        ("FLOW_INVALID", "transitions[0].condition")
    }


def test_placeholders_name_inputs_variables_and_states_that_are_there() -> None:
    state = crew_state("work", inputs={"a": "{topic} {n} {output} {output.end} {output.none} {strange}"})
    schema = {"type": "object", "properties": {"topic": {"type": "string"}}}
    flow = between(way("work", "end"), state=state, variables=ints("n"), inputs_schema=schema)
    assert found(flow) == {
        ("STATE_UNKNOWN", "states[0].crew.inputs[a]"),
        ("INPUT_UNKNOWN", "states[0].crew.inputs[a]"),
    }
    assert needed(flow) == ("topic", "strange")
    tool = FlowState(id="work", tool=ToolWork(tool="t", arguments={"x": ["{strange}"]}))
    assert found(replace(flow, states=(replace(tool, initial=True), END))) == {
        ("INPUT_UNKNOWN", "states[0].tool.arguments")
    }


def test_a_schema_is_one_and_an_example_fulfils_it() -> None:
    assert found(between(way("work", "end"), inputs_schema={"type": "nothing"})) == {
        ("SCHEMA_INVALID", "inputs_schema")
    }
    schema = {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}
    flow = between(way("work", "end"), inputs_schema=schema, example_inputs={"topic": 1})
    assert found(flow) == {("FLOW_INVALID", "example_inputs")}
    assert found(replace(flow, example_inputs={"topic": "bees"})) == set()


def test_an_agents_task_is_checked_like_a_crew_of_one() -> None:
    task = CrewTask(name="work", description=" ", depends_on=("other",), output_schema={"type": "nothing"})
    state = FlowState(id="work", agent=AgentWork(agent=CrewAgent(name="ann", agent_revision=3), task=task))
    assert found(between(way("work", "end"), state=state)) == {
        ("TASK_UNKNOWN", "states[0].agent.task.depends_on"),
        ("FLOW_INVALID", "states[0].agent.task.description"),
        ("SCHEMA_INVALID", "states[0].agent.task.output_schema"),
        ("FLOW_INVALID", "states[0].agent.agent.agent_revision"),
    }
    other = replace(task, description="Do it.", depends_on=(), output_schema=None, agent="bob")
    state = FlowState(id="work", agent=AgentWork(agent=CrewAgent(name="ann"), task=other))
    assert found(between(way("work", "end"), state=state)) == {("AGENT_UNKNOWN", "states[0].agent.task.agent")}


def test_inputs_of_a_variables_name_are_of_its_type_and_set_it() -> None:
    variables = (*ints("n"), Variable(name="tags", type=VariableType.LIST), Variable(name="word", initial="hi"))
    flow = between(way("work", "end"), state=crew_state("work", inputs={"a": "{topic}{n}"}), variables=variables)
    assert check_inputs(flow, {"topic": "bees", "n": 3}) == {"topic": "bees", "n": 3}
    assert variables_of(flow, {"topic": "bees", "n": 3.0}) == {"n": 3, "tags": [], "word": "hi"}
    with pytest.raises(InputMissing):
        check_inputs(flow, {"n": 3})
    with pytest.raises(VariableInvalid):
        check_inputs(flow, {"topic": "bees", "n": "three"})
    with pytest.raises(InputInvalid):
        check_inputs(flow, {"topic": float("nan")})


def test_signals_are_those_that_states_wait_for() -> None:
    state = FlowState(id="work", wait=WaitWork(signal="go"))
    assert signals(between(way("work", "end"), state=state)) == {"go"}
