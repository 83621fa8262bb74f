"""The crews and flows built in: nothing is wrong with them, and each does what it says with a scripted model."""

import re
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from loremesh_crew import flow_protos
from loremesh_crew.adapters import prebuilt
from loremesh_crew.crew_protos import check_crew
from loremesh_crew.domain import crew_checks, flow_checks
from loremesh_crew.domain.crew_machine import CrewMachine
from loremesh_crew.domain.definitions import Crew, Flow
from loremesh_crew.domain.flow_machine import FlowMachine
from loremesh_crew.domain.inputs import check_inputs
from loremesh_crew.domain.machine import (
    ChildEnded,
    Event,
    Machine,
    Pinned,
    RunKind,
    StartChild,
    Started,
    StartTask,
    TaskEnded,
    TaskOutcome,
    TaskResumes,
    TaskStatus,
    TaskWaits,
    Usage,
    View,
)
from loremesh_kit.interceptors import validation

from .prebuilt_scripts import SCRIPTS, Script

pytestmark = pytest.mark.unit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CREWS, FLOWS = prebuilt.load()
FIVE = {"research", "code-review", "sales-support", "content", "support"}


def test_the_five_are_there_with_examples_and_schemas() -> None:
    assert {*CREWS, *FLOWS} >= FIVE
    assert {script.definition_id for script in SCRIPTS} == FIVE
    for definition in (*CREWS.values(), *FLOWS.values()):
        assert definition.built_in
        assert definition.name
        assert definition.description
        assert definition.example_inputs
        assert definition.inputs_schema


@pytest.mark.parametrize("crew", CREWS.values(), ids=list(CREWS))
def test_nothing_is_wrong_with_a_crew(crew: Crew) -> None:
    check_crew(crew)
    assert list(crew_checks.faults(crew)) == []


@pytest.mark.parametrize("flow", FLOWS.values(), ids=list(FLOWS))
def test_nothing_is_wrong_with_a_flow(flow: Flow) -> None:
    validation.check(flow_protos.flow(flow))
    assert flow_protos.read_flow(flow_protos.flow(flow)) == replace(flow, built_in=False)
    assert list(flow_checks.faults(flow)) == []
    assert {state.crew.crew_id for state in flow.states if state.crew} <= set(CREWS)


def agents() -> Iterator[Any]:
    for crew in CREWS.values():
        yield from crew.agents
    for flow in FLOWS.values():
        yield from (state.agent.agent for state in flow.states if state.agent)


def test_agents_are_told_little_and_say_little() -> None:
    for agent in agents():
        assert len(f"{agent.role} {agent.goal} {agent.backstory}".split()) < 60
        assert agent.max_output_tokens is not None
        assert agent.max_output_tokens <= 1200


@dataclass
class Stage:
    """Runs a script on the machines alone, with everything that is asked answered in turn."""

    script: Script
    asked: list[tuple[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    humans: int = 0
    at_once: int = 0

    def run(self, pinned: Pinned) -> View:
        machine: Machine[Any] = CrewMachine() if pinned.kind is RunKind.CREW else FlowMachine()
        state, events = machine.begin(pinned), deque[Event]([Started(time=NOW)])
        while events:
            state, commands = machine.decide(pinned, state, events.popleft())
            tasks = [command for command in commands if isinstance(command, StartTask)]
            self.at_once = max(self.at_once, len(tasks))
            for command in tasks:
                events.extend(self._done(command))
            events.extend(self._child(pinned, command) for command in commands if isinstance(command, StartChild))
        return machine.view(pinned, state)

    def _done(self, command: StartTask) -> Iterator[Event]:
        request = command.request
        self.asked.append((request.name, request.message))
        role = self.script.role(request.agent.system_prompt if request.agent else "")
        output = self.script.answers[role][self.counts[role]]
        self.counts[role] += 1
        if request.review:
            yield TaskWaits(time=NOW, task_id=command.task_id, approval_id="a")
            yield TaskResumes(time=NOW, task_id=command.task_id)
            output = self.script.humans[self.humans] or output
            self.humans += 1
        outcome = TaskOutcome(status=TaskStatus.COMPLETED, output=output, usage=Usage(input_tokens=1))
        yield TaskEnded(time=NOW, task_id=command.task_id, outcome=outcome)

    def _child(self, parent: Pinned, command: StartChild) -> ChildEnded:
        crew = command.crew or CREWS[command.definition_id]
        pinned = Pinned(
            run_id=command.child_run_id,
            root_run_id=parent.root_run_id,
            kind=RunKind.CREW,
            crew=crew,
            inputs=check_inputs(crew, command.inputs),
        )
        view = self.run(pinned)
        return ChildEnded(
            time=NOW,
            child_run_id=command.child_run_id,
            status=view.status,
            output=view.output,
            usage=view.usage,
            reason=view.reason,
            message=view.message,
        )


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.name for script in SCRIPTS])
def test_each_does_what_it_says(script: Script) -> None:
    crew, flow = CREWS.get(script.definition_id), FLOWS.get(script.definition_id)
    inputs = script.inputs or (crew or flow).example_inputs or {}
    pinned = Pinned(
        run_id="r",
        root_run_id="r",
        kind=RunKind(script.kind.upper()),
        crew=crew,
        flow=flow,
        inputs=check_inputs(crew, inputs) if crew else flow_checks.check_inputs(flow, inputs),
    )
    stage = Stage(script)
    view = stage.run(pinned)
    assert (view.status, view.reason, view.message) == (script.status, "", "")
    assert view.output == script.output
    assert tuple(task.name for task in view.tasks) == script.path
    assert stage.at_once == script.at_once
    assert stage.counts == {role: len(answers) for role, answers in script.answers.items()}
    assert stage.humans == len(script.humans)
    for name, text in script.shown.items():
        assert any(text in message for asked, message in stage.asked if asked == name)
    assert not any(re.search(r"\{[a-z_.]+\}", message) for _, message in stage.asked)
