"""Runs of crews without a mesh: whatever the machine wants done, the test does."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from loremesh_crew.domain.crew_machine import CrewMachine
from loremesh_crew.domain.crew_state import CrewState
from loremesh_crew.domain.definitions import Crew, CrewAgent, CrewTask, RunLimits
from loremesh_crew.domain.machine import (
    AnswerDelegation,
    CancelTask,
    Command,
    DelegationAsked,
    End,
    Event,
    Pinned,
    RunKind,
    Started,
    StartTask,
    StartTimer,
    TaskEnded,
    TaskOutcome,
    TaskRequest,
    TaskStatus,
    TaskView,
    Tell,
    TimerFired,
    View,
)
from pydantic import TypeAdapter

BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)
STATES = TypeAdapter(CrewState)


def agent(name: str, **fields: Any) -> CrewAgent:
    return CrewAgent(name=name, **{"role": f"Role of {name}", **fields})


def task(name: str, *depends_on: str, **fields: Any) -> CrewTask:
    return CrewTask(name=name, depends_on=depends_on, **{"description": f"Do {name}.", **fields})


def crew(*tasks: CrewTask, **fields: Any) -> Crew:
    return Crew(id="team", tasks=tasks, **{"agents": (agent("ann"), agent("ben")), **fields})


def pinned(of: Crew, limits: RunLimits | None = None, **fields: Any) -> Pinned:
    given = {"run_id": "run-1", "root_run_id": "run-0", "kind": RunKind.CREW, "inputs": {"topic": "tea"}}
    return Pinned(**{**given, "crew": of, "limits": limits or of.limits, **fields})


class Run:
    """A run, and all that is in flight."""

    def __init__(self, run: Pinned) -> None:
        self.machine = CrewMachine()
        self.pinned = run
        self.state = self.machine.begin(run)
        self.time = BEGIN
        self.log: list[tuple[Event, tuple[Command, ...]]] = []
        self.flight: dict[str, TaskRequest] = {}
        self.begun: list[str] = []
        self.timers: list[StartTimer] = []
        self.cancelled: list[str] = []
        self.answers: list[AnswerDelegation] = []
        self.tells: list[Tell] = []

    @classmethod
    def started(cls, of: Crew, limits: RunLimits | None = None, **fields: Any) -> "Run":
        run = cls(pinned(of, limits, **fields))
        run.send(Started)
        return run

    def send(self, kind: type[Event], **fields: Any) -> tuple[Command, ...]:
        self.time += timedelta(seconds=1)
        event = kind(time=self.time, **fields)
        self.state, commands = self.machine.decide(self.pinned, self.state, event)
        self.log.append((event, tuple(commands)))
        for command in commands:
            match command:
                case StartTask():
                    self.flight[command.task_id] = command.request
                    self.begun.append(command.request.name)
                case CancelTask():
                    self.cancelled.append(command.task_id)
                case StartTimer():
                    self.timers.append(command)
                case AnswerDelegation():
                    self.answers.append(command)
                case Tell():
                    self.tells.append(command)
        return tuple(commands)

    def id_of(self, name: str) -> str:
        return next(each for each, request in self.flight.items() if request.name == name)

    def asked(self, name: str) -> TaskRequest:
        return self.flight[self.id_of(name)]

    def ends(self, name: str, output: str = "", **fields: Any) -> None:
        task_id = self.id_of(name)
        del self.flight[task_id]
        self.send(
            TaskEnded,
            task_id=task_id,
            outcome=TaskOutcome(**{"status": TaskStatus.COMPLETED, "output": output, **fields}),
        )

    def answers_json(self, name: str, answer: Mapping[str, Any]) -> None:
        self.ends(name, output_json=answer)

    def fails(self, name: str, *, retryable: bool = False, reason: str = "TOOL_FAILED") -> None:
        self.ends(name, status=TaskStatus.FAILED, retryable=retryable, reason=reason, message="It broke.")

    def fires(self) -> None:
        self.send(TimerFired, timer=self.timers.pop().timer)

    def delegates(self, name: str, coworker: str, description: str = "Look it up.", **fields: Any) -> None:
        given = {"delegation_id": f"d{len(self.log)}", "context": ""}
        self.send(
            DelegationAsked,
            task_id=self.id_of(name),
            coworker=coworker,
            description=description,
            **{**given, **fields},
        )

    @property
    def view(self) -> View:
        return self.machine.view(self.pinned, self.state)

    @property
    def end(self) -> End:
        assert self.state.end is not None, [each.name for each in self.state.items if not each.ended]
        return self.state.end

    def shown(self, name: str) -> TaskView:
        return next(each for each in self.view.tasks if each.name == name)

    def statuses(self) -> dict[str, str]:
        return {each.name: str(each.status) for each in self.view.tasks}

    def told(self, kind: str) -> list[Tell]:
        return [each for each in self.tells if each.kind == kind]
