"""How a flow's run waits, what it may take, how it is steered, and what means nothing to it."""

from dataclasses import replace
from typing import Any

import pytest
from loremesh_crew.domain.definitions import (
    AgentWork,
    CrewAgent,
    CrewTask,
    CrewWork,
    Flow,
    FlowState,
    RunLimits,
    ToolUse,
    ToolWork,
    WaitWork,
)
from loremesh_crew.domain.flow_machine import full
from loremesh_crew.domain.machine import (
    CancelAsked,
    CancelTask,
    ChildEnded,
    PauseAsked,
    ResumeAsked,
    RunStatus,
    SignalCame,
    StartChild,
    Started,
    StartTask,
    StartTimer,
    TaskEnded,
    TaskOutcome,
    TaskResumes,
    TaskStatus,
    TaskWaits,
    TimerFired,
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
    expression,
    one,
    review_flow,
    waiting,
    way,
)

pytestmark = pytest.mark.unit

TASK = CrewTask(name="t", description="Do it.")

# Waiting


def test_a_pause_is_over_when_its_timer_fires() -> None:
    play = Play(one(waiting(seconds=90.0))).start()
    assert play.of(StartTimer) == [StartTimer(timer="wait:1", seconds=90.0)]
    assert play.told("timer_started")[0].data == {"due_time": "2026-01-02T12:01:30Z"}
    assert play.view.tasks[0].status is TaskStatus.WAITING
    play.fire()
    assert play.view.status is RunStatus.COMPLETED


def test_a_signal_is_the_states_output() -> None:
    play = Play(one(waiting(signal="go"))).start()
    play.signal("go", {"by": "ada"})
    assert (play.view.status, play.view.output) == (RunStatus.COMPLETED, '{"by":"ada"}')
    assert play.view.output_json == {"by": "ada"}
    assert play.told("signal_received")[0].data == {"signal": "go"}


def test_a_signal_that_came_before_is_kept_and_taken_once() -> None:
    flow = Flow(
        id="f",
        states=(
            crew_state("a", initial=True),
            waiting(signal="go"),
            FlowState(id="more", wait=WaitWork(signal="go")),
            DONE,
        ),
        transitions=(way("a", "hold"), way("hold", "more"), way("more", "done")),
    )
    play = Play(flow).start()
    play.signal("go", "first", signal_id="s")
    play.signal("go", "first again", signal_id="s")
    play.child_ends("x")
    assert play.at == "more"
    play.signal("go", "late", signal_id="s")
    assert play.at == "more"
    play.signal("go", "second", signal_id="t")
    assert (play.view.status, play.view.output) == (RunStatus.COMPLETED, "second")


def test_a_hundred_signals_are_kept_and_keep_out_none_that_is_waited_for() -> None:
    more = FlowState(id="more", wait=WaitWork(signal="more"))
    states = (FlowState(id="hold", initial=True, wait=WaitWork(signal="go")), more, DONE)
    play = Play(Flow(id="f", states=states, transitions=(way("hold", "more"), way("more", "done")))).start()
    for number in range(100):
        assert play.signal("more", f"{number}") != ()
    before = play.state
    assert play.signal("more", "one too many") == ()
    assert play.state == before
    assert full(play.run, play.state, SignalCame(time=play.time, signal="more", signal_id="s"))
    assert not full(play.run, play.state, SignalCame(time=play.time, signal="go", signal_id="s"))
    assert not full(play.run, play.state, SignalCame(time=play.time, signal="nothing", signal_id="s"))
    play.signal("go")
    assert (play.view.status, play.view.output) == (RunStatus.COMPLETED, "0")


def test_a_signal_that_nothing_waits_for_anywhere_changes_nothing() -> None:
    play = Play(one(waiting(signal="go"))).start()
    before = play.state
    assert play.signal("stop") == ()
    assert play.state == before


def test_a_signal_that_is_late_fails_the_state() -> None:
    flow = one(waiting(seconds=5.0, signal="go"), ways=(way("hold", "hold", FAILURE), way("hold", "done", SUCCESS)))
    play = Play(flow).start()
    play.fire()
    assert play.view.tasks[0].reason == "WAIT_EXPIRED"
    assert play.at == "hold"
    play.fire("wait:1")
    assert len(play.view.tasks) == 2
    play.signal("go")
    assert play.view.status is RunStatus.COMPLETED


def test_the_timer_of_a_state_that_was_left_is_nothing() -> None:
    play = Play(
        one(waiting(seconds=5.0, signal="go"), ways=(way("hold", "hold", contains("again")), way("hold", "done")))
    ).start()
    play.signal("go", "again")
    before = play.state
    assert play.fire("wait:1") == ()
    assert play.state == before


# Budgets


def test_a_child_gets_what_is_left() -> None:
    limits = RunLimits(max_tokens=100, max_cost_micros=50, max_tool_calls=5, max_seconds=60.0)
    play = Play(review_flow(), limits=limits).start()
    assert play.child.limits == limits
    play.later(20)
    play.child_ends("x", usage=Usage(input_tokens=30, output_tokens=10, cost_micros=20, tool_calls=2))
    assert play.child.limits == RunLimits(max_tokens=60, max_cost_micros=30, max_tool_calls=3, max_seconds=40.0)
    play.child_ends("approved", usage=Usage(input_tokens=1))
    assert play.view.usage == Usage(input_tokens=31, output_tokens=10, cost_micros=20, tool_calls=2)


def test_where_nothing_is_left_nothing_more_begins() -> None:
    play = Play(review_flow(), limits=RunLimits(max_tokens=100)).start()
    play.child_ends("x", usage=Usage(input_tokens=100))
    assert (play.view.status, play.view.reason) == (RunStatus.FAILED, "RUN_BUDGET_EXHAUSTED")
    assert "tokens" in play.view.message
    assert len(play.of(StartChild)) == 1


@pytest.mark.parametrize(
    ("work", "begins"),
    [
        ({"agent": AgentWork(agent=CrewAgent(name="ann"), task=TASK)}, True),
        ({"agent": AgentWork(agent=CrewAgent(name="ann", tools=(ToolUse(name="t"),)), task=TASK)}, False),
        ({"agent": AgentWork(agent=CrewAgent(name="ann", agent_id="kept"), task=TASK)}, False),
        ({"crew": CrewWork(crew_id="c")}, False),
        ({"tool": ToolWork(tool="t")}, False),
        ({"wait": WaitWork(signal="go")}, True),
    ],
)
def test_without_tool_calls_left_only_what_calls_none_begins(work: dict[str, Any], begins: bool) -> None:
    flow = Flow(
        id="f",
        states=(FlowState(id="a", initial=True, tool=ToolWork(tool="t")), FlowState(id="b", **work), DONE),
        transitions=(way("a", "b"), way("b", "done")),
    )
    play = Play(flow, limits=RunLimits(max_tool_calls=1)).start()
    play.task_ends(usage=Usage(tool_calls=1))
    assert (play.state.end is None) is begins


def test_a_tool_that_asks_no_model_is_called_without_tokens_left() -> None:
    flow = Flow(
        id="f",
        states=(crew_state("a", initial=True), FlowState(id="b", tool=ToolWork(tool="t")), DONE),
        transitions=(way("a", "b"), way("b", "done")),
    )
    play = Play(flow, limits=RunLimits(max_tokens=10)).start()
    play.child_ends("x", usage=Usage(input_tokens=10))
    assert play.of(StartTask)


def test_what_costs_nothing_goes_on_with_nothing_left() -> None:
    flow = one(crew_state("a"))
    play = Play(flow, limits=RunLimits(max_tokens=100)).start()
    play.child_ends("x", usage=Usage(input_tokens=100))
    assert play.view.status is RunStatus.COMPLETED


def test_a_run_whose_time_is_over_stops_what_is_at_work_and_expires() -> None:
    play = Play(review_flow(), limits=RunLimits(max_seconds=60.0)).start()
    assert play.of(StartTimer) == [StartTimer(timer="deadline", seconds=60.0)]
    play.fire("deadline")
    assert play.steered() == [("run.1", "cancel")]
    assert play.view.status is RunStatus.CANCELLING
    play.child_ends(status=RunStatus.CANCELLED, usage=Usage(input_tokens=7))
    assert (play.view.status, play.view.reason) == (RunStatus.EXPIRED, "RUN_EXPIRED")
    assert play.view.usage == Usage(input_tokens=7)


def test_a_run_that_only_waits_expires_at_once() -> None:
    play = Play(one(waiting(signal="go")), limits=RunLimits(max_seconds=60.0)).start()
    play.fire("deadline")
    assert play.view.status is RunStatus.EXPIRED


# Steering


def test_cancelling_cancels_the_child_and_ends_with_it() -> None:
    play = Play(review_flow()).start()
    play.send(CancelAsked(time=NOON, comment="enough"))
    assert play.steered() == [("run.1", "cancel")]
    assert play.told("cancelling")[0].data == {"comment": "enough"}
    assert play.view.status is RunStatus.CANCELLING
    assert play.send(CancelAsked(time=NOON)) == ()
    play.child_ends("all the same")
    assert play.view.status is RunStatus.CANCELLED
    assert len(play.of(StartChild)) == 1


def test_cancelling_cancels_a_tool() -> None:
    play = Play(one(FlowState(id="a", tool=ToolWork(tool="send")))).start()
    play.send(CancelAsked(time=NOON))
    assert play.of(CancelTask) == [CancelTask(task_id="run.1")]
    play.task_ends(TaskStatus.CANCELLED)
    assert play.view.status is RunStatus.CANCELLED


def test_a_run_that_waits_is_cancelled_at_once() -> None:
    play = Play(one(waiting(signal="go"))).start()
    play.send(CancelAsked(time=NOON))
    assert play.view.status is RunStatus.CANCELLED
    assert play.view.tasks[0].status is TaskStatus.CANCELLED


def test_a_paused_run_finishes_what_is_at_work_and_begins_nothing() -> None:
    play = Play(review_flow()).start()
    play.send(PauseAsked(time=NOON))
    assert play.send(PauseAsked(time=NOON)) == ()
    assert play.steered() == [("run.1", "pause")]
    assert play.view.status is RunStatus.INTERRUPTED
    play.child_ends("x")
    assert play.at == "write"
    assert len(play.of(StartChild)) == 1
    play.send(ResumeAsked(time=NOON))
    assert (play.at, play.view.status) == ("check", RunStatus.IN_PROGRESS)
    assert play.steered() == [("run.1", "pause")]
    assert play.send(ResumeAsked(time=NOON)) == ()
    assert [each.kind for each in play.told("paused") + play.told("resumed")] == ["paused", "resumed"]


def test_resuming_resumes_the_child() -> None:
    play = Play(review_flow()).start()
    play.send(PauseAsked(time=NOON))
    play.send(ResumeAsked(time=NOON))
    assert play.steered() == [("run.1", "pause"), ("run.1", "resume")]


def test_signals_and_timers_count_while_paused_and_lead_on_afterwards() -> None:
    play = Play(one(waiting(seconds=5.0, signal="go"))).start()
    play.send(PauseAsked(time=NOON))
    play.signal("go", "yes")
    assert (play.at, play.view.status) == ("hold", RunStatus.INTERRUPTED)
    play.fire("wait:1")
    play.send(ResumeAsked(time=NOON))
    assert (play.view.status, play.view.output) == (RunStatus.COMPLETED, "yes")


def test_a_paused_run_can_be_cancelled() -> None:
    play = Play(review_flow()).start()
    play.send(PauseAsked(time=NOON))
    play.child_ends("x")
    play.send(CancelAsked(time=NOON))
    assert play.view.status is RunStatus.CANCELLED


# What means nothing


def test_late_unknown_and_doubled_events_change_nothing() -> None:
    play = Play(review_flow()).start()
    play.child_ends("x")
    before = play.state
    doubled = ChildEnded(time=NOON, child_run_id="run.1", status=RunStatus.FAILED)
    nothing = [
        Started(time=NOON),
        doubled,
        replace(doubled, child_run_id="run.9"),
        TaskEnded(time=NOON, task_id="run.2", outcome=TaskOutcome(status=TaskStatus.COMPLETED)),
        TaskWaits(time=NOON, task_id="run.2", approval_id="a"),
        TaskResumes(time=NOON, task_id="run.2"),
        TimerFired(time=NOON, timer="wait:2"),
        TimerFired(time=NOON, timer="step:2"),
        TimerFired(time=NOON, timer="strange"),
        ResumeAsked(time=NOON),
    ]
    for event in nothing:
        assert play.send(event) == ()
        assert play.state == before


def test_nothing_happens_before_the_start_or_after_the_end() -> None:
    play = Play(review_flow())
    assert play.send(CancelAsked(time=NOON)) == ()
    assert play.view.status is RunStatus.QUEUED
    play.start()
    play.send(CancelAsked(time=NOON))
    play.child_ends("x")
    end = play.state
    for event in (
        Started(time=NOON),
        CancelAsked(time=NOON),
        PauseAsked(time=NOON),
        TimerFired(time=NOON, timer="deadline"),
    ):
        assert play.send(event) == ()
    assert play.state == end


# What is remembered


def test_the_last_reports_of_a_long_run_are_kept() -> None:
    ways = (way("a", "a", contains("again")), way("a", "done"))
    play = Play(one(crew_state("a"), ways=ways, max_iterations=400), checked=False).start()
    for _ in range(205):
        play.child_ends("again")
    assert [each["visit"] for each in play.view.reports] == list(range(6, 206))
    assert len(play.view.tasks) == 206


def test_of_outputs_the_last_are_shown() -> None:
    ways = (way("a", "a", contains("again")), way("a", "done"))
    play = Play(one(crew_state("a"), ways=ways)).start()
    for _ in range(5):
        play.child_ends("again" + "x" * 300_000)
    assert [bool(each.output) for each in play.view.tasks] == [False, False, True, True, True, False]


def test_only_outputs_that_are_asked_for_are_kept() -> None:
    flow = Flow(
        id="f",
        states=(crew_state("a", initial=True), crew_state("b"), crew_state("c", inputs={"x": "{output.a}"}), DONE),
        transitions=(way("a", "b"), way("b", "c"), way("c", "done")),
    )
    play = Play(flow).start()
    play.child_ends("from a")
    play.child_ends("from b")
    assert play.state.outputs == {"a": "from a"}
    assert play.child.inputs == {"x": "from a"}
    by_name = replace(flow, transitions=(*flow.transitions[:2], way("c", "done", expression("outputs.b == 'from b'"))))
    play = Play(by_name).start()
    for output in ("from a", "from b", "from c"):
        play.child_ends(output)
    assert play.view.status is RunStatus.COMPLETED


def test_what_one_report_saw_is_bounded() -> None:
    ways = tuple(way("a", "done", contains(f"no{at}")) for at in range(300))
    play = Play(one(crew_state("a"), ways=(*ways, way("a", "done", priority=-1)))).start()
    play.child_ends("x" * 5000)
    saw = [each["condition"].get("saw", "") for each in play.view.reports[0]["transitions"]]
    assert sum(map(len, saw)) == 20_000
    assert len(saw) == 301


def test_no_task_is_begun_twice() -> None:
    play = Play(
        one(FlowState(id="a", tool=ToolWork(tool="t")), ways=(way("a", "a", FAILURE), way("a", "done", SUCCESS)))
    ).start()
    play.task_ends(TaskStatus.FAILED)
    play.task_ends(TaskStatus.FAILED)
    play.task_ends()
    assert [each.task_id for each in play.of(StartTask)] == ["run.1", "run.2", "run.3"]
