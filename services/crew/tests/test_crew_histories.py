"""The crew machine, through thousands of histories."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loremesh_crew.domain.crew_machine import DEADLINE, CrewMachine
from loremesh_crew.domain.crew_state import CrewState, Item, Origin
from loremesh_crew.domain.definitions import (
    Crew,
    CrewTask,
    Guardrail,
    HumanInput,
    Process,
    RetryPolicy,
    RunLimits,
    ToolUse,
)
from loremesh_crew.domain.machine import (
    AnswerDelegation,
    CancelAsked,
    CancelTask,
    DelegationAsked,
    PauseAsked,
    ResumeAsked,
    RunStatus,
    SignalCame,
    Started,
    StartTask,
    StartTimer,
    TaskEnded,
    TaskOutcome,
    TaskRequest,
    TaskResumes,
    TaskStatus,
    TaskWaits,
    TimerFired,
    Usage,
)

from .crew_runs import STATES, Run, agent, pinned

pytestmark = pytest.mark.unit

NAMES = tuple(f"t{number}" for number in range(6))
AGENTS = ("ann", "ben", "cid")
MANY = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def crews(draw: st.DrawFn) -> Crew:
    process = draw(st.sampled_from(Process))
    count = draw(st.integers(1, len(NAMES)))
    # Of a parallel crew a task may depend on one that is listed behind it.
    order = draw(st.permutations(range(count))) if process is Process.PARALLEL else list(range(count))
    tasks = []
    for place in range(count):
        before = [NAMES[each] for each in range(count) if order[each] < order[place]]
        depends_on = draw(st.lists(st.sampled_from(before), unique=True, max_size=3)) if before else []
        tasks.append(draw(tasks_called(NAMES[place], tuple(depends_on))))
    agents = tuple(
        agent(
            name, allow_delegation=draw(st.booleans()), tools=(ToolUse(name="search"),) if draw(st.booleans()) else ()
        )
        for name in AGENTS[: draw(st.integers(1, 3))]
    )
    return Crew(
        id="team",
        agents=agents,
        tasks=tuple(tasks),
        process=process,
        manager=draw(st.sampled_from(["", agents[0].name])) if process is Process.HIERARCHICAL else "",
        max_parallel=draw(st.integers(1, 4)),
        fail_fast=draw(st.booleans()),
        memory=draw(st.booleans()),
        verbose=draw(st.booleans()),
    )


@st.composite
def tasks_called(draw: st.DrawFn, name: str, depends_on: tuple[str, ...]) -> CrewTask:
    rules = st.sampled_from(
        [Guardrail(matches="good"), Guardrail(min_length=3), Guardrail(criterion="It rhymes."), Guardrail(max_length=9)]
    )
    return CrewTask(
        name=name,
        description=f"Do {name} about {{topic}}.",
        expected_output=draw(st.sampled_from(["", "A poem."])),
        depends_on=depends_on,
        retry=RetryPolicy(
            max_attempts=draw(st.integers(1, 3)), initial_pause=0.5, retry_incomplete=draw(st.booleans())
        ),
        human_input=HumanInput() if draw(st.integers(0, 4)) == 0 else None,
        guardrails=tuple(draw(st.lists(rules, max_size=2))),
        max_guardrail_rounds=draw(st.integers(0, 2)),
        priority=draw(st.integers(-2, 2)),
    )


def limits() -> st.SearchStrategy[RunLimits]:
    return st.just(RunLimits()) | st.builds(
        RunLimits,
        max_tokens=st.sampled_from([0, 0, 50, 5_000, 20_000]),
        max_cost_micros=st.sampled_from([0, 0, 100, 30_000]),
        max_tool_calls=st.sampled_from([0, 0, 2, 20]),
        max_seconds=st.sampled_from([None, None, 60.0]),
    )


class History:
    """A run of which whatever may happen does, in any order; what must never happen is looked for at every step."""

    def __init__(self, draw: st.DrawFn, run: Run) -> None:
        self.draw = draw
        self.run = run
        # How many of its outcomes are good.
        self.luck = draw(st.sampled_from([2, 10, 40]))
        self.ids: set[str] = set()
        self.gone: list[str] = []
        self.asking: dict[str, str] = {}
        self.completed: set[str] = set()
        self.asked_to_cancel: set[str] = set()

    # What is looked for

    def send(self, kind: type[Any], **fields: Any) -> None:
        before = self.run.state
        commands = self.run.send(kind, **fields)
        state = self.run.state
        assert STATES.validate_json(STATES.dump_json(state)) == state
        for command in commands:
            match command:
                case StartTask():
                    self.started(command)
                case CancelTask():
                    assert command.task_id in self.run.flight
                    assert command.task_id not in self.asked_to_cancel, "cancelled twice"
                    self.asked_to_cancel.add(command.task_id)
                case AnswerDelegation():
                    assert self.asking.pop(command.delegation_id) == command.task_id, "answered what was not asked"
        self.looked_at(before, state)

    def started(self, command: StartTask) -> None:
        state = self.run.state
        assert state.stop is None, "begun though the run is being stopped"
        assert not state.paused, "begun though the run is paused"
        assert command.task_id not in self.ids, "an id was used twice"
        self.ids.add(command.task_id)
        assert command.request.name not in self.completed, "a task that was done was begun again"
        item = next(each for each in state.items if each.name == command.request.name)
        done = {each.name for each in state.items if each.done}
        assert set(item.depends_on) <= done, "begun before what it depends on"
        if item.origin is Origin.TASK and self.run.pinned.crew.process is not Process.PARALLEL:
            before = state.items[: state.items.index(item)]
            assert all(each.settled for each in before if each.origin is Origin.TASK), "begun before its turn"
        assert (command.request.agent is None) != (command.request.reference is None)

    def looked_at(self, before: CrewState, state: CrewState) -> None:
        crew = self.run.pinned.crew
        assert crew is not None
        items = state.items
        flying = [each for each in items if each.task_id]
        assert {each.task_id for each in flying} == set(self.run.flight), "in flight is not what is thought to be"
        at_once = 1 if crew.process is Process.SEQUENTIAL else crew.max_parallel
        assert sum(1 for each in flying if each.origin is not Origin.DELEGATED) <= at_once
        for old, new in zip(before.items, items, strict=False):
            assert old.name == new.name, "items changed their places"
            assert not old.ended or old == new, "what has ended has changed"
        self.completed = {each.name for each in items if each.status is TaskStatus.COMPLETED}
        self.budget(flying, state.usage)
        waiting = [each for each in items if each.timer]
        if state.end is None and state.started and not state.paused:
            assert flying or waiting, "a run that waits for nothing"
            handed_on = [each for each in items if each.origin is Origin.DELEGATED and not each.ended]
            assert all(each.task_id or each.timer for each in handed_on), "handed on, and waits for what never comes"
        self.answered(state)
        if state.end is not None:
            assert all(each.ended for each in items)
            self.ending(state)

    def answered(self, state: CrewState) -> None:
        """Whoever waits for work handed on has it at work, or an answer."""
        waited_for = {each.delegation_id for each in state.items if not each.ended}
        stopped = {each.task_id for each in state.items if each.orphan}
        for delegation_id, asker in self.asking.items():
            assert state.stop is not None or asker in stopped or delegation_id in waited_for, "never answered"

    def budget(self, flying: list[Item], used: Usage) -> None:
        limits = self.run.pinned.limits
        for limit, spent, kind in (
            (limits.max_tokens, used.input_tokens + used.output_tokens, "tokens"),
            (limits.max_cost_micros, used.cost_micros, "cost_micros"),
            (limits.max_tool_calls, used.tool_calls, "tool_calls"),
        ):
            reserved = sum(getattr(each.reserved, kind) for each in flying)
            assert not limit or spent + reserved <= limit, f"{kind}: {spent} and {reserved} of {limit}"

    def ending(self, state: CrewState) -> None:
        assert state.end is not None
        tasks = [each for each in state.items if each.origin is Origin.TASK]
        if state.end.status is RunStatus.COMPLETED:
            assert all(each.status is TaskStatus.COMPLETED for each in tasks)
        if state.end.status is RunStatus.INCOMPLETE:
            assert any(each.done for each in tasks)
            assert state.end.reason
        if state.end.status is RunStatus.FAILED:
            assert state.end.reason

    # What happens

    def happens(self) -> None:
        choices = ["ends"] * 8 * bool(self.run.flight) + ["fires"] * 3 * bool(self.run.timers) + ["delegates"] * 2
        choices += ["delegates"] * 5 * any(each.coworkers for each in self.run.flight.values())
        choices += ["waits", "resumes", "late", "pause", "resume", "resume", "nonsense", "cancel"]
        getattr(self, self.draw(st.sampled_from(choices)))()

    def some_id(self) -> str:
        known = [*self.run.flight, *self.gone[-3:], "run-1.999"]
        return self.draw(st.sampled_from(known))

    def ends(self) -> None:
        task_id = self.draw(st.sampled_from(sorted(self.run.flight)))
        self.end(task_id, self.outcome(task_id, self.run.flight[task_id]))

    def end(self, task_id: str, outcome: TaskOutcome) -> None:
        del self.run.flight[task_id]
        self.gone.append(task_id)
        # Nobody answers a task that has ended.
        self.asking = {each: asker for each, asker in self.asking.items() if asker != task_id}
        self.send(TaskEnded, task_id=task_id, outcome=outcome)

    def outcome(self, task_id: str, request: TaskRequest) -> TaskOutcome:
        bad = [TaskStatus.FAILED, TaskStatus.FAILED, TaskStatus.INCOMPLETE, TaskStatus.CANCELLED]
        status = self.draw(st.sampled_from([TaskStatus.COMPLETED] * self.luck + bad))
        return TaskOutcome(
            status=status,
            output=self.draw(
                st.sampled_from(["good one"] * self.luck + ["good", "", "bad", "too long to be any good"])
            ),
            output_json=self.json(request),
            usage=self.usage(request),
            reason="" if status is TaskStatus.COMPLETED else "SOMETHING",
            retryable=self.draw(st.booleans()),
        )

    def json(self, request: TaskRequest) -> Mapping[str, Any] | None:
        asked = (request.response_schema or {}).get("properties", {})
        if "accepted" in asked:
            no = {"accepted": False, "reason": "no"}
            return self.draw(st.sampled_from([{"accepted": True}, no] * self.luck + [{}, None]))
        if "tasks" in asked:
            agents = asked["tasks"]["items"]["properties"]["agent"]["enum"]
            return self.draw(plans(agents, good=self.draw(st.integers(0, self.luck)) > 0, number=len(self.run.log)))
        return None

    def usage(self, request: TaskRequest) -> Usage:
        # At most what it was allowed; a task without tools calls none.
        most = request.limits
        none = request.agent is not None and not request.agent.tools and not request.coworkers
        return Usage(
            input_tokens=self.draw(st.integers(0, most.max_tokens or 3_000)),
            cost_micros=self.draw(st.integers(0, most.max_cost_micros or 3_000)),
            tool_calls=0 if none else self.draw(st.integers(0, most.max_tool_calls or 5)),
        )

    def delegates(self) -> None:
        task_id = self.some_id()
        able = [each for each, request in self.run.flight.items() if request.coworkers]
        if able and self.draw(st.booleans()):
            task_id = self.draw(st.sampled_from(able))
        delegation_id = self.draw(st.sampled_from([f"d{len(self.run.log)}", *self.asking]))
        asker = self.asking.get(delegation_id, task_id)
        known: list[str] = []
        if asker in self.run.flight:
            self.asking[delegation_id] = asker
            known = [name for name, _ in self.run.flight[asker].coworkers]
        coworker = self.draw(st.sampled_from([*known * 3, *AGENTS, "manager", "nobody"]))
        self.send(DelegationAsked, task_id=asker, delegation_id=delegation_id, coworker=coworker, description="Help!")

    def fires(self) -> None:
        timer = self.draw(st.sampled_from(self.run.timers))
        if timer.timer == DEADLINE and self.draw(st.integers(0, 19)):
            return
        if self.draw(st.booleans()):
            self.run.timers.remove(timer)
        self.send(TimerFired, timer=timer.timer)

    def waits(self) -> None:
        self.send(TaskWaits, task_id=self.some_id(), approval_id=self.draw(st.sampled_from(["a", "b", ""])))

    def resumes(self) -> None:
        self.send(TaskResumes, task_id=self.some_id())

    def late(self) -> None:
        if self.gone:
            before = self.run.state
            outcome = TaskOutcome(status=TaskStatus.COMPLETED, output="late")
            self.send(TaskEnded, task_id=self.draw(st.sampled_from(self.gone)), outcome=outcome)
            assert self.run.state is before, "a late event changed something"

    def nonsense(self) -> None:
        before = self.run.state
        self.send(SignalCame, signal="tea", signal_id="1")
        self.send(TimerFired, timer="tea")
        self.send(Started)
        assert self.run.state is before, "an event that means nothing changed something"

    def pause(self) -> None:
        self.send(PauseAsked)

    def resume(self) -> None:
        self.send(ResumeAsked)

    def cancel(self) -> None:
        if self.draw(st.integers(0, 4)) == 0:
            self.send(CancelAsked)

    def finishes(self) -> None:
        """Everything in flight ends, every timer fires: so must the run."""
        self.send(ResumeAsked)
        for _ in range(2_000):
            if self.run.state.end is not None:
                return
            if self.run.flight:
                # The last first: work handed on before whoever waits for it.
                task_id = next(reversed(self.run.flight))
                answer = self.json(self.run.flight[task_id])
                self.end(task_id, TaskOutcome(status=TaskStatus.COMPLETED, output="good one", output_json=answer))
            else:
                timer = next(each for each in self.run.timers if each.timer != DEADLINE)
                self.run.timers.remove(timer)
                self.send(TimerFired, timer=timer.timer)
        raise AssertionError("the run reaches no end")


@st.composite
def plans(draw: st.DrawFn, agents: list[str], *, good: bool, number: int) -> Mapping[str, Any] | None:
    if good:
        names = ["a", "b", "c"][: draw(st.integers(1, 3))]
        return {
            "tasks": [
                {
                    "name": name,
                    "agent": draw(st.sampled_from(agents)),
                    "description": f"Part {name} of plan {number}.",
                    "depends_on": draw(st.lists(st.sampled_from(names[:place]), unique=True)) if place else [],
                    "max_tokens": draw(st.sampled_from([0, 30])),
                }
                for place, name in enumerate(names)
            ]
        }
    bad = st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b"]),
            "agent": st.sampled_from([*agents, "nobody"]),
            "description": st.sampled_from(["One.", "Two."]),
            "depends_on": st.lists(st.sampled_from(["a", "b"]), max_size=1),
        }
    )
    return draw(st.none() | st.fixed_dictionaries({"tasks": st.lists(bad, max_size=3)}))


@st.composite
def histories(draw: st.DrawFn) -> History:
    history = History(draw, Run(pinned(draw(crews()), draw(limits()))))
    history.send(Started)
    for _ in range(draw(st.integers(0, 60))):
        history.happens()
    history.finishes()
    return history


@MANY
@given(histories())
def test_every_run_reaches_one_end_and_breaks_no_rule_on_the_way(history: History) -> None:
    run = history.run
    assert run.view.status.finished
    assert not run.flight
    assert not history.asking
    ended_once_and_told(run)
    decided_again(run)
    deaf_after_its_end(run)


def ended_once_and_told(run: Run) -> None:
    finished = Counter(each.path[0] for each in run.told("task_finished"))
    assert finished == Counter(each.name for each in run.view.tasks)
    used = Usage()
    for each in run.view.tasks:
        used += each.usage
    assert used == run.view.usage
    timers = [each.timer for _, commands in run.log for each in commands if isinstance(each, StartTimer)]
    assert len(timers) == len(set(timers))


def decided_again(run: Run) -> None:
    machine = CrewMachine()
    state = machine.begin(run.pinned)
    for event, commands in run.log:
        state, again = machine.decide(run.pinned, state, event)
        assert tuple(again) == commands
    assert state == run.state


def deaf_after_its_end(run: Run) -> None:
    ended = run.state
    for kind, fields in (
        (TaskEnded, {"task_id": "run-1.1", "outcome": TaskOutcome(status=TaskStatus.COMPLETED)}),
        (TimerFired, {"timer": DEADLINE}),
        (CancelAsked, {}),
        (ResumeAsked, {}),
    ):
        assert run.send(kind, **fields) == ()
        assert run.state is ended
