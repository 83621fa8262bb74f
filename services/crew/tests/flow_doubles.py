"""Flows in few words, and a run of one that is played by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from loremesh_crew.domain.definitions import (
    Condition,
    ConditionKind,
    Crew,
    CrewAgent,
    CrewTask,
    CrewWork,
    Flow,
    FlowState,
    RunLimits,
    Transition,
    Variable,
    VariableType,
    WaitWork,
)
from loremesh_crew.domain.flow_machine import FlowMachine
from loremesh_crew.domain.flow_state import FlowRunState
from loremesh_crew.domain.machine import (
    ChildEnded,
    Command,
    Event,
    Pinned,
    RunKind,
    RunStatus,
    SignalCame,
    StartChild,
    Started,
    StartTask,
    StartTimer,
    SteerChild,
    TaskEnded,
    TaskOutcome,
    TaskStatus,
    Tell,
    TimerFired,
    Usage,
    View,
)
from pydantic import TypeAdapter

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
_STATE: TypeAdapter[FlowRunState] = TypeAdapter(FlowRunState)

SUCCESS = Condition(kind=ConditionKind.ON_SUCCESS)
FAILURE = Condition(kind=ConditionKind.ON_FAILURE)


def contains(text: str) -> Condition:
    return Condition(kind=ConditionKind.OUTPUT_CONTAINS, text=text)


def expression(text: str) -> Condition:
    return Condition(kind=ConditionKind.EXPRESSION, text=text)


def equals(variable: str, value: Any) -> Condition:
    return Condition(kind=ConditionKind.VARIABLE_EQUALS, variable=variable, value=value)


def both(*conditions: Condition) -> Condition:
    return Condition(kind=ConditionKind.AND, conditions=conditions)


def either(*conditions: Condition) -> Condition:
    return Condition(kind=ConditionKind.OR, conditions=conditions)


def contrary(condition: Condition) -> Condition:
    return Condition(kind=ConditionKind.NOT, conditions=(condition,))


def way(from_state: str, to_state: str, condition: Condition | None = None, priority: int = 0) -> Transition:
    return Transition(from_state=from_state, to_state=to_state, condition=condition or Condition(), priority=priority)


def crew_state(id_: str, **fields: Any) -> FlowState:
    """A state that a crew of its name works in."""
    inputs = fields.pop("inputs", {})
    return FlowState(id=id_, crew=CrewWork(crew_id=f"{id_}-crew", inputs=inputs), **fields)


DONE = FlowState(id="done", final=True)


def one(state: FlowState, *, ways: Sequence[Transition] = (), **fields: Any) -> Flow:
    """A state, and the end behind it."""
    transitions = tuple(ways) or (way(state.id, "done"),)
    return Flow(id="f", states=(replace(state, initial=True), DONE), transitions=transitions, **fields)


def waiting(id_: str = "hold", **fields: Any) -> FlowState:
    return FlowState(id=id_, wait=WaitWork(**fields))


def ints(*names: str) -> tuple[Variable, ...]:
    return tuple(Variable(name=name, type=VariableType.INT) for name in names)


def review_flow(**fields: Any) -> Flow:
    """Writing and reviewing, until it is approved."""
    given: dict[str, Any] = {
        "id": "review",
        "states": (
            crew_state("write", initial=True),
            crew_state("check"),
            FlowState(id="done", final=True),
        ),
        "transitions": (
            way("write", "check", SUCCESS),
            way("check", "done", contains("approved"), 10),
            way("check", "write", contains("revise")),
        ),
    }
    return Flow(**{**given, **fields})


def crew(id_: str, *, needs: str = "") -> Crew:
    description = f"Do it with {{{needs}}}." if needs else "Do it."
    return Crew(id=id_, agents=(CrewAgent(name="ann"),), tasks=(CrewTask(name="work", description=description),))


@dataclass
class Play:
    """A run of a flow."""

    flow: Flow
    inputs: Mapping[str, Any] = field(default_factory=dict)
    limits: RunLimits = field(default_factory=RunLimits)
    pins: Mapping[str, int] = field(default_factory=dict)
    depth: int = 0
    # Whether every decision is checked to be the same again, and its state to go through JSON.
    checked: bool = True
    time: datetime = NOON
    history: list[tuple[Event, tuple[Command, ...]]] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine = FlowMachine()
        self.run = Pinned(
            run_id="run",
            root_run_id="run",
            kind=RunKind.FLOW,
            flow=self.flow,
            inputs=self.inputs,
            limits=self.limits,
            pins=self.pins,
            depth=self.depth,
        )
        self.state = self.machine.begin(self.run)

    def start(self) -> "Play":
        self.send(Started(time=self.time))
        return self

    def send(self, event: Event) -> tuple[Command, ...]:
        after, commands = self.machine.decide(self.run, self.state, event)
        if self.checked:
            assert self.machine.decide(self.run, self.state, event) == (after, commands)
            assert _STATE.validate_json(_STATE.dump_json(after)) == after
        self.history.append((event, tuple(commands)))
        self.state = after
        self.commands.extend(commands)
        return tuple(commands)

    def later(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)

    @property
    def child(self) -> StartChild:
        return self.of(StartChild)[-1]

    @property
    def task(self) -> StartTask:
        return self.of(StartTask)[-1]

    @property
    def view(self) -> View:
        return self.machine.view(self.run, self.state)

    @property
    def at(self) -> str:
        return self.view.current_state

    def of(self, kind: type[Any]) -> list[Any]:
        return [each for each in self.commands if isinstance(each, kind)]

    def told(self, kind: str) -> list[Tell]:
        return [each for each in self.of(Tell) if each.kind == kind]

    def steered(self) -> list[tuple[str, str]]:
        return [(each.child_run_id, each.action) for each in self.of(SteerChild)]

    def child_ends(
        self,
        output: str = "",
        *,
        status: RunStatus = RunStatus.COMPLETED,
        output_json: Mapping[str, Any] | None = None,
        usage: Usage | None = None,
        reason: str = "",
        message: str = "",
    ) -> tuple[Command, ...]:
        """The child run that was begun last ends."""
        return self.send(
            ChildEnded(
                time=self.time,
                child_run_id=self.child.child_run_id,
                status=status,
                output=output,
                output_json=output_json,
                usage=usage or Usage(),
                reason=reason,
                message=message,
            )
        )

    def child_fails(self, reason: str = "TASK_FAILED", message: str = "it broke") -> tuple[Command, ...]:
        return self.child_ends(status=RunStatus.FAILED, reason=reason, message=message)

    def task_ends(self, status: TaskStatus = TaskStatus.COMPLETED, **fields: Any) -> tuple[Command, ...]:
        """The task that was begun last ends."""
        return self.send(
            TaskEnded(time=self.time, task_id=self.task.task_id, outcome=TaskOutcome(status=status, **fields))
        )

    def fire(self, timer: str = "") -> tuple[Command, ...]:
        """The timer of this name, or the one that was started last, fires."""
        return self.send(TimerFired(time=self.time, timer=timer or self.of(StartTimer)[-1].timer))

    def signal(self, signal: str, payload: Any = None, *, signal_id: str = "") -> tuple[Command, ...]:
        return self.send(SignalCame(time=self.time, signal=signal, signal_id=signal_id, payload=payload))


def visited(play: Play) -> list[str]:
    return [each.name for each in play.view.tasks]


def reasons(faults: Sequence[Any]) -> set[tuple[str, str]]:
    return {(each.reason, each.field) for each in faults}
