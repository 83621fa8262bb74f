"""Whatever a flow is and whatever happens to its run: it ends once, or waits for something outside."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given, settings
from hypothesis import strategies as st
from loremesh.crew.v1 import run_pb2
from loremesh_crew.domain.definitions import (
    Assignment,
    Condition,
    CrewWork,
    Flow,
    FlowState,
    FlowWork,
    RunLimits,
    ToolWork,
    WaitWork,
)
from loremesh_crew.domain.flow_machine import FlowMachine
from loremesh_crew.domain.machine import (
    CancelAsked,
    ChildEnded,
    Event,
    PauseAsked,
    ResumeAsked,
    RunStatus,
    SignalCame,
    StartChild,
    StartTask,
    StartTimer,
    TaskEnded,
    TaskOutcome,
    TaskStatus,
    Tell,
    TimerFired,
    Usage,
)

from .flow_doubles import (
    FAILURE,
    NOON,
    SUCCESS,
    Play,
    both,
    contains,
    contrary,
    either,
    equals,
    expression,
    ints,
    way,
)

pytestmark = pytest.mark.unit

WORKS: list[dict[str, Any]] = [
    {},
    {"crew": CrewWork(crew_id="c", inputs={"x": "{output} {n}"})},
    {"flow": FlowWork(flow_id="f", inputs={"x": "{output.s0}"})},
    {"tool": ToolWork(tool="t", arguments={"x": ["{n}", "{output}"]})},
    {"wait": WaitWork(seconds=5.0)},
    {"wait": WaitWork(signal="go")},
    {"wait": WaitWork(seconds=5.0, signal="go")},
]
SETTINGS = ["n + 1", "visit", "size(output)", "int(json.score)", "succeeded ? n : 0"]
SIMPLE = [
    Condition(),
    SUCCESS,
    FAILURE,
    contains("yes"),
    equals("n", 2),
    expression("n > 3"),
    expression("json.score > 1"),
    expression("outputs.s0 == 'yes' || reason != ''"),
]
CONDITIONS = st.recursive(
    st.sampled_from(SIMPLE),
    lambda inner: st.builds(both, inner, inner) | st.builds(either, inner, inner) | st.builds(contrary, inner),
    max_leaves=4,
)
OUTPUTS = st.sampled_from(["", "yes", "no {n}", "yes and no"])
ENDED = [RunStatus.COMPLETED, RunStatus.INCOMPLETE, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.EXPIRED]
OUTCOMES = [TaskStatus.COMPLETED, TaskStatus.INCOMPLETE, TaskStatus.FAILED, TaskStatus.CANCELLED]


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    """States and ways as they come, sensible or not."""
    count = draw(st.integers(1, 5))
    names = [f"s{at}" for at in range(count)]
    states = []
    for at, name in enumerate(names):
        assigned = draw(st.lists(st.sampled_from(SETTINGS), max_size=2))
        final = draw(st.integers(0, 3)) == 0
        states.append(
            FlowState(
                id=name,
                initial=at == 0,
                final=final,
                fails=final and draw(st.booleans()),
                assignments=tuple(Assignment(variable="n", expression=each) for each in assigned),
                **draw(st.sampled_from(WORKS)),
            )
        )
    ways = st.builds(way, st.sampled_from(names), st.sampled_from(names), CONDITIONS, st.integers(-1, 1))
    return Flow(
        id="f",
        states=tuple(states),
        transitions=tuple(draw(st.lists(ways, max_size=8))),
        variables=ints("n"),
        max_iterations=draw(st.sampled_from([1, 5, 20, 70])),
    )


@dataclass
class Outside:
    """What of a run is going on outside of it."""

    play: Play
    seen: int = 0
    children: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    timers: list[str] = field(default_factory=list)

    def send(self, event: Event) -> None:
        play = self.play
        ended = play.state.end
        commands = play.send(event)
        assert ended is None or (commands == () and play.state.end is ended)
        self.look()

    def look(self) -> None:
        for command in self.play.commands[self.seen :]:
            match command:
                case StartChild(child_run_id=id_):
                    self.children.append(id_)
                case StartTask(task_id=id_):
                    self.tasks.append(id_)
                case StartTimer(timer=timer):
                    self.timers.append(timer)
        self.seen = len(self.play.commands)

    def going_on(self) -> bool:
        """Whether something will come by itself, or somebody is waited for."""
        state = self.play.state
        visit = state.visit
        waits = visit is not None and visit.status is TaskStatus.WAITING
        breath = f"step:{state.entered}" in self.timers
        return bool(self.children or self.tasks) or waits or breath or state.paused


@st.composite
def events(draw: st.DrawFn, outside: Outside) -> Event:  # noqa: PLR0911 - one of each
    """Something that may happen, or could not, or did before."""
    play = outside.play
    kind = draw(st.sampled_from(["child", "child", "task", "task", "timer", "signal", "again", "steer", "strange"]))
    output = draw(OUTPUTS)
    usage = Usage(input_tokens=draw(st.sampled_from([0, 10])))
    if kind == "child" and outside.children:
        return _child_ended(outside.children.pop(), draw(st.sampled_from(ENDED)), output, usage)
    if kind == "task" and outside.tasks:
        outcome = TaskOutcome(status=draw(st.sampled_from(OUTCOMES)), output=output, usage=usage)
        return TaskEnded(time=NOON, task_id=outside.tasks.pop(), outcome=outcome)
    if kind == "timer" and outside.timers:
        return TimerFired(time=NOON, timer=outside.timers.pop(draw(st.integers(0, len(outside.timers) - 1))))
    if kind == "signal":
        return SignalCame(time=NOON, signal="go", signal_id=draw(st.sampled_from(["", "a", "b"])), payload=output)
    if kind == "again":
        return draw(st.sampled_from([event for event, _ in play.history]))
    if kind == "steer":
        return draw(st.sampled_from([PauseAsked(time=NOON), ResumeAsked(time=NOON), CancelAsked(time=NOON)]))
    return _child_ended("run.99", RunStatus.COMPLETED, output, usage)


def _child_ended(child_run_id: str, status: RunStatus, output: str, usage: Usage) -> ChildEnded:
    return ChildEnded(
        time=NOON,
        child_run_id=child_run_id,
        status=status,
        output=output,
        output_json={"score": len(output)} if output else None,
        usage=usage,
        reason="" if status is RunStatus.COMPLETED else "TASK_FAILED",
    )


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_run_ends_once_or_waits_for_something_outside(data: st.DataObject) -> None:
    flow = data.draw(flows())
    limits = RunLimits(
        max_tokens=data.draw(st.sampled_from([0, 25])), max_seconds=data.draw(st.sampled_from([None, 60.0]))
    )
    play = Play(flow, inputs={"n": 1}, limits=limits)
    outside = Outside(play)
    play.start()
    outside.look()
    for _ in range(data.draw(st.integers(0, 25))):
        outside.send(data.draw(events(outside)))
        assert play.state.end is not None or outside.going_on()
    _bring_to_an_end(outside)
    _check(play)
    _replay(play)


def _check(play: Play) -> None:
    for told in play.of(Tell):
        ParseDict({told.kind: told.data}, run_pb2.RunEvent())
    for report in play.view.reports:
        ParseDict(report, run_pb2.TransitionReport())
    started = [each.child_run_id for each in play.of(StartChild)] + [each.task_id for each in play.of(StartTask)]
    assert len(started) == len(set(started)) == play.state.started
    entered = play.told("state_entered")
    assert len(entered) == play.state.entered <= play.flow.max_iterations
    visits = [(each.path, each.attempt) for each in play.told("child_started") + play.told("task_started")]
    assert len(visits) == len(set(visits)) == len(started)
    assert len({(each.path, each.attempt) for each in play.told("transition_taken")}) == len(
        play.told("transition_taken")
    )


def _bring_to_an_end(outside: Outside) -> None:
    """Everything outside does its part: then only a signal can be missing, and not even that for long."""
    play = outside.play
    for _ in range(400):
        if play.state.end is not None:
            break
        if play.state.paused:
            outside.send(ResumeAsked(time=NOON))
        elif outside.children:
            outside.send(_child_ended(outside.children.pop(), RunStatus.COMPLETED, "yes", Usage()))
        elif outside.tasks:
            outside.send(
                TaskEnded(
                    time=NOON,
                    task_id=outside.tasks.pop(),
                    outcome=TaskOutcome(status=TaskStatus.COMPLETED, output="yes"),
                )
            )
        elif outside.timers:
            outside.send(TimerFired(time=NOON, timer=outside.timers.pop()))
        else:
            outside.send(SignalCame(time=NOON, signal="go", signal_id=""))
    assert play.state.end is not None
    assert play.view.status.finished
    assert play.state.usage == sum((each.usage for each in play.view.tasks), Usage())


def _replay(play: Play) -> None:
    """Decided anew it is the same, whatever meant nothing left out."""
    machine = FlowMachine()
    state = machine.begin(play.run)
    for event, commands in play.history:
        after, again = machine.decide(play.run, state, event)
        assert tuple(again) == commands
        if not commands and after == state:
            continue
        state = after
    assert replace(state) == play.state
