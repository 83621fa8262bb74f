"""A run decided anew: to see whether it comes out the same, or as the beginning of another."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from loremesh_crew.domain.codec import tagged
from loremesh_crew.domain.definitions import Crew, CrewAgent, CrewTask, Flow, FlowState, Process
from loremesh_crew.domain.machine import (
    CancelTask,
    ChildEnded,
    Command,
    DelegationAsked,
    Event,
    Machine,
    Pinned,
    StartChild,
    StartTask,
    StartTimer,
    TaskEnded,
    TaskResumes,
    TaskWaits,
    TimerFired,
)

# An event, and in JSON what was decided on it then.
Recorded = tuple[Event, Sequence[Mapping[str, Any]]]
_NAMES_OF: Mapping[str, tuple[str, ...]] = {
    "StartTask": ("task_id",),
    "StartTimer": ("timer",),
    "StartChild": ("child_run_id", "state", "definition_id"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a new run is to have in place of what the other had."""

    inputs: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    # By task; of a flow by state, and by `STATE/TASK` of what is below it.
    descriptions: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Redecided:
    """A run decided anew up to some point, and what is under way there."""

    state: Any
    decisions: list[tuple[Event, tuple[Command, ...]]] = field(default_factory=list)
    # Number of the decision from 1, index of the command, when it was decided, and the command.
    under_way: dict[tuple[str, str], tuple[int, int, datetime, Command]] = field(default_factory=dict)

    @property
    def children(self) -> tuple[str, ...]:
        """Ids of child runs that were over by then."""
        return tuple(event.child_run_id for event, _ in self.decisions if isinstance(event, ChildEnded))

    def take(self, event: Event, commands: Sequence[Command]) -> None:
        """Add a decision."""
        self.decisions.append((event, tuple(commands)))
        match event:
            case TaskEnded(task_id=id_) | ChildEnded(child_run_id=id_) | TimerFired(timer=id_):
                self.under_way.pop((_kind(event), id_), None)
        for index, command in enumerate(commands):
            match command:
                case StartTask(task_id=id_) | StartChild(child_run_id=id_) | StartTimer(timer=id_):
                    self.under_way[_kind(command), id_] = len(self.decisions), index, event.time, command
                case CancelTask(task_id=id_) if ("task", id_) in self.under_way:
                    # Not begun in the new run, which waits to be told that it ended.
                    self.under_way["task", id_] = len(self.decisions), index, event.time, command


def redecide(
    machine: Machine[Any], run: Pinned, recorded: Iterable[Recorded], *, of: str, later: timedelta
) -> Redecided:
    """Decide for `run` what was decided for the run `of`, all of it so much later.

    It ends where something else is begun than was then: what came of that means nothing here.
    """
    done = Redecided(machine.begin(run))
    for event, then in recorded:
        moved = _moved(event, of=of, to=run.run_id, later=later)
        after, commands = machine.decide(run, done.state, moved)
        if not commands and after == done.state:
            continue
        done.state = after
        done.take(moved, commands)
        if _begun(then, of) != _begun([tagged(each) for each in commands], run.run_id):
            break
    return done


def below(pinned: Pinned, state: str) -> Changes:
    """What a child run of a state is to have in place of what its definition says."""
    place = f"{state}/"
    found = {name.removeprefix(place): text for name, text in pinned.descriptions.items() if name.startswith(place)}
    return Changes(model=pinned.model, descriptions=found)


def changed(definition: Crew | Flow, changes: Changes) -> Crew | Flow:
    """A crew with another model and other descriptions; a flow with those of what its states do themselves."""
    if isinstance(definition, Crew):
        return changed_crew(definition, changes)
    return changed_flow(definition, changes)


def changed_crew(crew: Crew, changes: Changes) -> Crew:
    """A crew with another model, its own manager's too, and other descriptions."""
    asks_manager = crew.process is Process.HIERARCHICAL and not crew.manager
    return replace(
        crew,
        agents=tuple(_agent(each, changes) for each in crew.agents),
        tasks=tuple(_task(each, changes) for each in crew.tasks),
        manager_model=changes.model if asks_manager and changes.model else crew.manager_model,
    )


def changed_flow(flow: Flow, changes: Changes) -> Flow:
    """The same of what a flow's states do themselves; descriptions are those of states, too."""
    return replace(flow, states=tuple(_state(each, changes) for each in flow.states))


def described(definition: Crew | Flow) -> frozenset[str]:
    """Whose descriptions can be changed."""
    if isinstance(definition, Crew):
        return frozenset(task.name for task in definition.tasks)
    return frozenset(state.id for state in definition.states if state.agent)


def _agent(agent: CrewAgent, changes: Changes) -> CrewAgent:
    return replace(agent, model=changes.model) if changes.model and not agent.agent_id else agent


def _task(task: CrewTask, changes: Changes) -> CrewTask:
    return replace(task, description=changes.descriptions.get(task.name, task.description))


def _state(state: FlowState, changes: Changes) -> FlowState:
    if state.agent is None:
        return state
    task = replace(state.agent.task, description=changes.descriptions.get(state.id, state.agent.task.description))
    return replace(state, agent=replace(state.agent, agent=_agent(state.agent.agent, changes), task=task))


def _moved(event: Event, *, of: str, to: str, later: timedelta) -> Event:
    event = replace(event, time=event.time + later)
    match event:
        case ChildEnded(child_run_id=id_):
            return replace(event, child_run_id=_renamed(id_, of, to))
        case TaskEnded() | TaskWaits() | TaskResumes() | DelegationAsked():
            return replace(event, task_id=_renamed(event.task_id, of, to))
    return event


def _renamed(id_: str, of: str, to: str) -> str:
    return f"{to}{id_[len(of) :]}" if id_.startswith(f"{of}.") else id_


def _begun(commands: Sequence[Mapping[str, Any]], run_id: str) -> list[tuple[str, ...]]:
    """What is begun, by its names; ids without the run's."""
    return [
        (
            each["type"],
            *(_renamed(str(each[name]), run_id, "") for name in names),
            str(each.get("request", {}).get("name")),
        )
        for each in commands
        if (names := _NAMES_OF.get(each["type"]))
    ]


def _kind(of: Event | Command) -> str:
    match of:
        case TaskEnded() | StartTask():
            return "task"
        case ChildEnded() | StartChild():
            return "child"
    return "timer"
