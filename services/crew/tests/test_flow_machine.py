"""What a flow's run does, event by event."""

import pytest
from loremesh_crew.domain.definitions import (
    AgentWork,
    Assignment,
    CrewAgent,
    CrewTask,
    Flow,
    FlowState,
    FlowWork,
    ToolWork,
    Variable,
    VariableType,
)
from loremesh_crew.domain.machine import (
    RunKind,
    RunStatus,
    StartChild,
    StartTimer,
    TaskResumes,
    TaskStatus,
    TaskWaits,
    Usage,
)

from .flow_doubles import (
    DONE,
    FAILURE,
    NOON,
    SUCCESS,
    Play,
    contains,
    crew_state,
    equals,
    expression,
    ints,
    one,
    review_flow,
    visited,
    way,
)

pytestmark = pytest.mark.unit

# From state to state


def test_a_flow_goes_from_state_to_state_until_the_final_one() -> None:
    play = Play(review_flow(), inputs={"topic": "bees"}, pins={"crew:write-crew": 4}).start()
    assert play.at == "write"
    assert play.child == StartChild(
        child_run_id="run.1",
        state="write",
        kind=RunKind.CREW,
        definition_id="write-crew",
        revision=4,
        inputs={"topic": "bees"},
    )
    play.child_ends("a draft")
    assert (play.at, play.child.child_run_id) == ("check", "run.2")
    play.child_ends("please revise")
    assert (play.at, play.child.child_run_id) == ("write", "run.3")
    play.child_ends("a better draft")
    play.child_ends("Approved!")
    assert play.view.status is RunStatus.COMPLETED
    assert play.view.output == "Approved!"
    assert visited(play) == ["write", "check", "write", "check", "done"]
    assert [each.visit for each in play.view.tasks] == [1, 1, 2, 2, 1]


def test_what_happens_is_told() -> None:
    play = Play(review_flow()).start()
    play.child_ends("a draft")
    assert [(each.kind, each.path) for each in play.told("run_started")] == [("run_started", ())]
    assert play.told("run_started")[0].data["names"] == ["write", "check", "done"]
    assert [each.data for each in play.told("state_entered")] == [
        {"state": "write", "visit": 1},
        {"state": "check", "visit": 1},
    ]
    assert play.told("child_started")[0].data == {"child_run_id": "run.1"}
    assert play.told("child_finished")[0].data == {"child_run_id": "run.1", "status": "RUN_STATUS_COMPLETED"}
    (taken,) = play.told("transition_taken")
    assert taken.path == ("write",)
    assert taken.data["report"] == {
        "from": "write",
        "visit": 1,
        "to": "check",
        "transitions": [
            {
                "to": "check",
                "priority": 0,
                "held": True,
                "taken": True,
                "condition": {"condition": "on_success", "held": True, "saw": "succeeded"},
            }
        ],
    }


def test_of_transitions_that_hold_the_highest_priority_is_taken_and_of_equal_ones_the_first() -> None:
    flow = Flow(
        id="f",
        states=(crew_state("a", initial=True), *(FlowState(id=each, final=True) for each in "bcd")),
        transitions=(way("a", "b", SUCCESS, 1), way("a", "c", contains("x"), 5), way("a", "d", contains("y"), 5)),
    )
    play = Play(flow).start()
    play.child_ends("x and y")
    assert play.at == "c"
    (report,) = play.view.reports
    assert [(each["to"], each["held"], each["taken"]) for each in report["transitions"]] == [
        ("c", True, True),
        ("d", False, False),
        ("b", False, False),
    ]
    assert "saw" not in report["transitions"][1]["condition"]
    play = Play(flow).start()
    play.child_ends("z")
    assert play.at == "b"


def test_where_no_transition_holds_the_run_fails_and_says_what_was_looked_at() -> None:
    play = Play(review_flow()).start()
    play.child_fails()
    assert play.view.status is RunStatus.FAILED
    assert play.view.reason == "NO_TRANSITION"
    assert "The state write failed (CHILD_FAILED: The child run run.1 ended as FAILED" in play.view.message
    assert "on_success" in play.view.message
    assert play.view.reports[-1]["to"] == ""
    assert play.view.tasks[-1].status is TaskStatus.FAILED


def test_a_failure_may_lead_on() -> None:
    flow = one(crew_state("work"), ways=(way("work", "work", FAILURE), way("work", "done", SUCCESS)))
    play = Play(flow).start()
    play.child_fails("TASK_FAILED")
    assert play.child.child_run_id == "run.2"
    play.child_ends("there")
    assert play.view.status is RunStatus.COMPLETED


def test_the_reason_of_a_child_is_seen_by_expressions() -> None:
    ways = (way("work", "work", expression("reason == 'GUARDRAIL_FAILED'")), way("work", "done", priority=-1))
    play = Play(one(crew_state("work"), ways=ways)).start()
    play.child_fails("GUARDRAIL_FAILED")
    assert play.at == "work"
    play.child_fails("TASK_FAILED")
    assert play.at == "done"


def test_a_loop_ends_with_the_visits_a_flow_may_make() -> None:
    flow = one(crew_state("work"), ways=(way("work", "work", FAILURE), way("work", "done", SUCCESS)), max_iterations=3)
    play = Play(flow).start()
    for _ in range(3):
        play.child_fails()
    assert play.view.reason == "ITERATIONS_EXHAUSTED"
    assert len(play.of(StartChild)) == 3
    assert len(play.told("state_entered")) == 3


def test_an_endless_loop_of_empty_states_takes_breath_and_ends() -> None:
    flow = one(
        FlowState(id="a"),
        ways=(way("a", "done", equals("n", 1)), way("a", "a")),
        variables=ints("n"),
        max_iterations=120,
    )
    play = Play(flow).start()
    assert play.state.entered == 51
    assert play.of(StartTimer) == [StartTimer(timer="step:51", seconds=0.0)]
    play.fire("step:51")
    assert play.fire("step:51") == ()
    play.fire()
    assert play.view.reason == "ITERATIONS_EXHAUSTED"
    assert play.state.entered == 120


def test_a_final_states_work_is_done_before_the_end() -> None:
    flow = Flow(id="f", states=(crew_state("only", initial=True, final=True),))
    play = Play(flow).start()
    assert play.state.end is None
    play.child_ends("the end")
    assert (play.view.status, play.view.output) == (RunStatus.COMPLETED, "the end")


def test_a_final_state_whose_work_fails_fails_the_run() -> None:
    play = Play(Flow(id="f", states=(crew_state("only", initial=True, final=True),))).start()
    play.child_fails()
    assert (play.view.status, play.view.reason) == (RunStatus.FAILED, "CHILD_FAILED")
    tool = FlowState(id="only", initial=True, final=True, tool=ToolWork(tool="t"))
    play = Play(Flow(id="f", states=(tool,))).start()
    play.task_ends(TaskStatus.FAILED, reason="TOOL_FAILED")
    assert play.view.reason == "TOOL_FAILED"


def test_a_final_state_that_fails_fails_the_run() -> None:
    flow = Flow(
        id="f",
        states=(FlowState(id="a", initial=True), FlowState(id="bad", final=True, fails=True)),
        transitions=(way("a", "bad"),),
    )
    play = Play(flow).start()
    assert (play.view.status, play.view.reason) == (RunStatus.FAILED, "FLOW_FAILED")
    assert "bad" in play.view.message


def test_a_state_that_does_nothing_has_the_output_of_the_one_before() -> None:
    flow = Flow(
        id="f",
        states=(crew_state("a", initial=True), FlowState(id="fork"), DONE, FlowState(id="other", final=True)),
        transitions=(way("a", "fork"), way("fork", "other", contains("left")), way("fork", "done")),
    )
    play = Play(flow).start()
    play.child_ends("turn left")
    assert (play.at, play.view.output) == ("other", "turn left")


def test_the_output_is_that_of_the_last_state_with_one() -> None:
    flow = Flow(
        id="f",
        states=(crew_state("a", initial=True), crew_state("b"), DONE),
        transitions=(way("a", "b"), way("b", "done")),
    )
    play = Play(flow).start()
    play.child_ends("something", output_json={"x": 1})
    play.child_ends("")
    assert (play.view.output, play.view.output_json) == ("something", {"x": 1})


def test_a_child_that_is_not_whole_succeeds_and_so_the_run_is_not_whole() -> None:
    play = Play(review_flow()).start()
    play.child_ends("half a draft", status=RunStatus.INCOMPLETE, reason="LIMIT", message="cut")
    assert play.at == "check"
    assert play.view.tasks[0].status is TaskStatus.INCOMPLETE
    play.child_ends("approved")
    assert (play.view.status, play.view.reason, play.view.message) == (RunStatus.INCOMPLETE, "LIMIT", "cut")
    assert play.view.output == "approved"


# What states are given


def test_inputs_variables_and_outputs_are_put_into_a_crews_inputs() -> None:
    flow = Flow(
        id="f",
        states=(
            crew_state("a", initial=True),
            crew_state(
                "b",
                inputs={"text": "{topic}: {output}", "draft": "{output.a}", "later": "{output.b}", "n": "{n}"},
            ),
            DONE,
        ),
        transitions=(way("a", "b"), way("b", "done")),
        variables=(Variable(name="n", type=VariableType.INT, initial=4),),
    )
    play = Play(flow, inputs={"topic": "bees"}).start()
    play.child_ends("about {topic}")
    assert play.child.inputs == {
        "topic": "bees",
        "n": 4,
        "text": "bees: about {topic}",
        "draft": "about {topic}",
        "later": "",
    }


def test_an_agents_task_is_a_crew_of_one_whose_inputs_are_not_looked_at_again() -> None:
    task = CrewTask(name="summary", description="Sum up {output.a-1} for {who}, {{literally}}.")
    agent = CrewAgent(name="ann", role="Writer for {who}", goal="{output}")
    flow = Flow(
        id="f",
        states=(
            crew_state("a-1", initial=True),
            FlowState(id="b", name="Summing up", agent=AgentWork(agent=agent, task=task)),
            DONE,
        ),
        transitions=(way("a-1", "b"), way("b", "done")),
    )
    play = Play(flow, inputs={"who": "{output}"}).start()
    play.child_ends("{who} {{x}}")
    child = play.child
    assert child.crew is not None
    assert (child.crew.id, child.crew.name, child.definition_id) == ("", "Summing up", "")
    (only,), (done,) = child.crew.agents, child.crew.tasks
    assert (only.role, only.goal) == ("Writer for {who}", "{output}")
    assert done.description == "Sum up {output-a-1} for {who}, {{literally}}."
    assert child.inputs == {"who": "{output}", "output": "{who} {{x}}", "output-a-1": "{who} {{x}}"}
    assert play.view.tasks[-1].agent == "ann"


def test_an_agent_of_the_mesh_is_taken_as_it_was_when_the_run_began() -> None:
    work = AgentWork(agent=CrewAgent(name="ann", agent_id="kept"), task=CrewTask(name="t", description="Do it."))
    play = Play(one(FlowState(id="a", agent=work)), pins={"agent:kept": 7}).start()
    assert play.child.crew is not None
    assert play.child.crew.agents[0].agent_revision == 7


def test_another_flow_is_a_child_run() -> None:
    state = FlowState(id="a", flow=FlowWork(flow_id="inner", revision=2, inputs={"x": "{y}"}))
    play = Play(one(state), inputs={"y": "z"}).start()
    assert (play.child.kind, play.child.definition_id, play.child.revision) == (RunKind.FLOW, "inner", 2)
    assert play.child.inputs == {"y": "z", "x": "z"}


def test_flows_in_flows_end_at_a_depth() -> None:
    state = FlowState(id="a", flow=FlowWork(flow_id="inner"))
    assert Play(one(state), depth=3).start().of(StartChild)
    play = Play(one(state, ways=(way("a", "done", SUCCESS),)), depth=4).start()
    assert not play.of(StartChild)
    assert play.view.tasks[-2 if len(play.view.tasks) > 1 else -1].reason == "FLOW_CYCLE"


def test_a_tool_is_called_with_its_arguments_filled() -> None:
    state = FlowState(id="a", tool=ToolWork(tool="search", arguments={"query": "on {topic}", "limit": "{n}"}))
    play = Play(one(state, variables=ints("n")), inputs={"topic": "bees", "n": 3}).start()
    invocation = play.task.request.invocation
    assert play.task.task_id == "run.1"
    assert invocation is not None
    assert (invocation.tool.name, invocation.arguments) == ("search", {"query": "on bees", "limit": 3})
    play.task_ends(output="found", usage=Usage(tool_calls=1), agent_run_id="r")
    assert (play.view.status, play.view.output) == (RunStatus.COMPLETED, "found")
    assert play.view.usage == Usage(tool_calls=1)
    (told,) = play.told("task_finished")
    assert told.data["status"] == "TASK_STATUS_COMPLETED"
    assert told.data["visit"] == 1


def test_a_tool_may_wait_for_a_human() -> None:
    play = Play(one(FlowState(id="a", tool=ToolWork(tool="send")))).start()
    play.send(TaskWaits(time=NOON, task_id="run.1", approval_id="ap", agent_run_id="r"))
    assert (play.view.tasks[0].status, play.view.tasks[0].approval_id) == (TaskStatus.WAITING, "ap")
    play.send(TaskResumes(time=NOON, task_id="run.1"))
    assert (play.view.tasks[0].status, play.view.tasks[0].approval_id) == (TaskStatus.IN_PROGRESS, "")
    assert [each.kind for each in play.commands[-1:]] == ["task_resumed"]


def test_texts_that_grow_too_long_fail_the_state() -> None:
    inputs = {f"x{n}": "{big}" * 10 for n in range(20)}
    flow = one(crew_state("a", inputs=inputs), ways=(way("a", "done", FAILURE),))
    play = Play(flow, inputs={"big": "b" * 10_000}).start()
    assert play.view.tasks[0].reason == "TASK_TOO_LARGE"
    assert play.at == "done"


# Variables


def test_variables_are_set_in_order_from_what_came() -> None:
    assignments = (
        Assignment(variable="n", expression="n + 1"),
        Assignment(variable="n", expression="n * 10"),
        Assignment(variable="score", expression="json.score"),
        Assignment(variable="last", expression="output"),
    )
    variables = (*ints("n"), Variable(name="score", type=VariableType.DOUBLE), Variable(name="last"))
    flow = one(crew_state("a", assignments=assignments), variables=variables)
    play = Play(flow, inputs={"n": 2}).start()
    assert play.view.variables == {"n": 2, "score": 0.0, "last": ""}
    play.child_ends("text", output_json={"score": 7})
    assert play.view.variables == {"n": 30, "score": 7.0, "last": "text"}
    assert [each.data for each in play.told("variable_set")] == [
        {"variable": "n", "value": 3},
        {"variable": "n", "value": 30},
        {"variable": "score", "value": 7.0},
        {"variable": "last", "value": "text"},
    ]


def test_a_variable_decides_how_often_something_is_tried() -> None:
    state = crew_state("a", assignments=(Assignment(variable="tries", expression="visit"),))
    ways = (way("a", "done", expression("succeeded || tries >= 3")), way("a", "a"))
    play = Play(one(state, ways=ways, variables=ints("tries"))).start()
    for _ in range(3):
        assert play.at == "a"
        play.child_fails()
    assert (play.at, play.view.status) == ("done", RunStatus.COMPLETED)


def test_an_assignment_that_fails_fails_the_run() -> None:
    state = crew_state("a", assignments=(Assignment(variable="n", expression="int(json.missing)"),))
    play = Play(one(state, variables=ints("n"))).start()
    play.child_ends("x")
    assert play.view.reason == "EXPRESSION_FAILED"
    assert "int(json.missing)" in play.view.message


def test_variables_cannot_grow_without_end() -> None:
    state = FlowState(id="a", assignments=(Assignment(variable="text", expression="text + text + 'x'"),))
    flow = one(state, ways=(way("a", "done", equals("text", "y")), way("a", "a")), variables=(Variable(name="text"),))
    play = Play(flow).start()
    assert play.view.reason == "EXPRESSION_FAILED"
    assert "grew" in play.view.message


def test_an_input_that_is_not_of_its_variables_type_fails_the_run() -> None:
    play = Play(one(crew_state("a"), variables=ints("n")), inputs={"n": "three"}).start()
    assert (play.view.status, play.view.reason) == (RunStatus.FAILED, "VARIABLE_INVALID")
