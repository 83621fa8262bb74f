"""Decides runs of crews: what is begun, tried again, sent back, handed on and given up, and how the run ends."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loremesh_crew.domain import guardrails, managing, scheduling, tells
from loremesh_crew.domain.budgeting import NOTHING
from loremesh_crew.domain.composing import Cast
from loremesh_crew.domain.crew_state import Ask, CrewState, Item, Origin, Stop
from loremesh_crew.domain.crew_turn import Turn
from loremesh_crew.domain.definitions import Crew, CrewTask, Process
from loremesh_crew.domain.machine import (
    AnswerDelegation,
    CancelAsked,
    Command,
    DelegationAsked,
    End,
    Event,
    PauseAsked,
    Pinned,
    ResumeAsked,
    RunStatus,
    Started,
    StartTimer,
    TaskEnded,
    TaskOutcome,
    TaskResumes,
    TaskStatus,
    TaskWaits,
    TimerFired,
    View,
)
from loremesh_crew.domain.results import ending, shown

DEADLINE = "deadline"
MAX_DELEGATIONS = 10


class CrewMachine:
    """Decides runs of crews. Of two ends of a task, and of what comes after the run's end, only the first counts."""

    version = 1
    state = CrewState

    def begin(self, run: Pinned) -> CrewState:
        """The state before Started: every task of the crew as PENDING."""
        crew = _crew(run)
        cast = Cast(run, crew)
        before: tuple[str, ...] = ()
        items = []
        for task in crew.tasks:
            depends_on = task.depends_on or before
            items.append(Item(name=task.name, origin=Origin.TASK, agent=cast.doer(task), depends_on=depends_on))
            before = () if crew.process is Process.PARALLEL else (task.name,)
        return CrewState(items=tuple(items))

    def decide(self, run: Pinned, state: CrewState, event: Event) -> tuple[CrewState, Sequence[Command]]:
        """The state after an event, and what is to be done; what means nothing gives the same state and no command."""
        if state.end is not None or state.started is isinstance(event, Started):
            return state, ()
        turn = Turn(run, _crew(run), state, event.time)
        take = _TAKEN.get(type(event))
        if take is None or not take(turn, event):
            return state, ()
        _go_on(turn)
        return turn.result()

    def view(self, run: Pinned, state: CrewState) -> View:
        """What readers are shown."""
        return shown(_crew(run), state)


def _crew(run: Pinned) -> Crew:
    if run.crew is None:
        raise ValueError("the run is no crew's")
    return run.crew


def _go_on(turn: Turn) -> None:
    moved = True
    while moved and turn.state.stop is None:
        moved = scheduling.skip_dependants(turn)
        if turn.cast.managed:
            moved = managing.advance(turn) or moved
        if not turn.state.paused:
            moved = scheduling.begin_ready(turn) or moved
    if all(item.ended for item in turn.items.values()):
        stop = turn.state.stop
        end = End(status=stop.status, reason=stop.reason, message=stop.message) if stop else None
        turn.remember(end=end or ending(turn.crew, tuple(turn.items.values())))


def _started(turn: Turn) -> bool:
    turn.remember(started=True)
    turn.tell("run_started", tells.run_started(turn.crew))
    if turn.run.limits.max_seconds is not None:
        turn.commands.append(StartTimer(timer=DEADLINE, seconds=turn.run.limits.max_seconds))
    return True


def _steered(turn: Turn, event: PauseAsked | ResumeAsked | CancelAsked) -> bool:
    if turn.state.stop is not None:
        return False
    if isinstance(event, CancelAsked):
        turn.tell("cancelling", {"comment": event.comment} if event.comment else {})
        turn.stop(Stop(status=RunStatus.CANCELLED))
        return True
    pause = isinstance(event, PauseAsked)
    if turn.state.paused is pause:
        return False
    turn.remember(paused=pause)
    turn.tell("paused" if pause else "resumed")
    return True


def _timer_fired(turn: Turn, event: TimerFired) -> bool:
    if event.timer == DEADLINE:
        if turn.state.stop is None:
            turn.tell("cancelling")
            turn.stop(Stop(status=RunStatus.EXPIRED, reason="RUN_EXPIRED", message="The run's time was over."))
            return True
        return False
    item = next((each for each in turn.items.values() if each.timer and each.timer == event.timer), None)
    if item is None:
        return False
    turn.change(item, timer="")
    return True


def _waits(turn: Turn, event: TaskWaits) -> bool:
    item = turn.in_flight(event.task_id)
    # Without an approval it waits for work it handed on, not for a human.
    if item is None or event.approval_id in ("", item.approval_id, item.decided_id):
        return False
    run_id = event.agent_run_id or item.agent_run_id
    item = turn.change(item, status=TaskStatus.WAITING, approval_id=event.approval_id, agent_run_id=run_id)
    turn.tell("task_waiting", {"approval_id": event.approval_id}, item)
    return True


def _resumes(turn: Turn, event: TaskResumes) -> bool:
    item = turn.in_flight(event.task_id)
    if item is None or item.status is not TaskStatus.WAITING:
        return False
    item = turn.change(item, status=TaskStatus.IN_PROGRESS, approval_id="", decided_id=item.approval_id)
    turn.tell("task_resumed", {}, item)
    return True


def _delegation_asked(turn: Turn, event: DelegationAsked) -> bool:
    item = turn.in_flight(event.task_id)
    if item is None or event.delegation_id in item.delegations:
        return False
    known = event.coworker in {each.name for each in turn.cast.coworkers(item)}
    refused = turn.state.stop is not None or item.orphan or not known or item.delegated >= MAX_DELEGATIONS
    item = turn.change(
        item, delegations=(*item.delegations, event.delegation_id), delegated=item.delegated + (not refused)
    )
    if refused:
        turn.commands.append(
            AnswerDelegation(task_id=event.task_id, delegation_id=event.delegation_id, reason="DELEGATION_REFUSED")
        )
        return True
    name = f"{item.name}/{event.coworker}-{item.delegated}"
    turn.items[name] = Item(
        name=name,
        origin=Origin.DELEGATED,
        agent=event.coworker,
        parent=item.name,
        delegated_by=item.agent,
        description=event.description,
        context=event.context,
        depth=item.depth + 1,
        delegation_id=event.delegation_id,
        for_task_id=event.task_id,
    )
    turn.tell("work_delegated", {"agent": event.coworker, "task": name}, item)
    return True


def _ended(turn: Turn, event: TaskEnded) -> bool:
    item = turn.in_flight(event.task_id)
    if item is None:
        return False
    outcome = event.outcome
    turn.remember(usage=turn.state.usage + outcome.usage)
    fields = {"task_id": "", "reserved": NOTHING, "status": TaskStatus.IN_PROGRESS, "approval_id": "", "decided_id": ""}
    item = turn.change(item, **fields, usage=item.usage + outcome.usage)
    if item.ask is Ask.WORK:
        run_id, model = outcome.agent_run_id or item.agent_run_id, outcome.model or item.model
        item = turn.change(item, agent_run_id=run_id, model=model)
    turn.abandon(event.task_id)
    if turn.state.stop is not None or item.orphan:
        _stopped(turn, item, outcome)
    elif item.ask is Ask.JUDGE:
        _judged(turn, item, outcome)
    else:
        _worked(turn, item, outcome)
    return True


def _worked(turn: Turn, item: Item, outcome: TaskOutcome) -> None:
    task = turn.cast.task(item)
    cut = outcome.status is TaskStatus.INCOMPLETE
    retryable = task.retry.retry_incomplete if cut else outcome.retryable and outcome.status is TaskStatus.FAILED
    if retryable and turn.may_retry(item):
        turn.retry(item, outcome.reason, outcome.message)
    elif not _made(outcome):
        status = TaskStatus.CANCELLED if outcome.status is TaskStatus.CANCELLED else TaskStatus.FAILED
        turn.fail(item, outcome.reason, outcome.message, status)
    else:
        item = _kept(turn, item, outcome)
        match item.origin:
            case Origin.PLAN:
                managing.planned(turn, item)
            case Origin.CHECK:
                managing.checked(turn, item)
            case _:
                _examine(turn, item, task)


def _made(outcome: TaskOutcome) -> bool:
    """Whether there is an output: also one that a limit cut."""
    if outcome.status is TaskStatus.INCOMPLETE:
        return bool(outcome.output or outcome.output_json)
    return outcome.status is TaskStatus.COMPLETED


def _kept(turn: Turn, item: Item, outcome: TaskOutcome) -> Item:
    return turn.change(
        item,
        output=outcome.output,
        output_json=outcome.output_json,
        sources=outcome.sources,
        partial=outcome.status is TaskStatus.INCOMPLETE,
        reason=outcome.reason,
        message=outcome.message,
        failures=0,
        guardrail=0,
        draft=False,
    )


def _examine(turn: Turn, item: Item, task: CrewTask) -> None:
    problem = guardrails.problem(task.guardrails, item.output, item.output_json)
    if problem:
        _objected(turn, item, task, problem)
    else:
        _judge(turn, item, task, 0)


def _judge(turn: Turn, item: Item, task: CrewTask, begin: int) -> None:
    """Have the next criterion judged; where there is none the output is good."""
    criterion = guardrails.next_criterion(task.guardrails, begin)
    if criterion is not None:
        turn.change(item, ask=Ask.JUDGE, guardrail=criterion, failures=0)
    elif turn.cast.managed and item.origin is Origin.TASK:
        turn.change(item, ask=Ask.WORK, held=True)
    elif item.partial:
        turn.finish(item, TaskStatus.INCOMPLETE, item.reason, item.message)
    else:
        turn.finish(item, TaskStatus.COMPLETED)


def _judged(turn: Turn, item: Item, outcome: TaskOutcome) -> None:
    task = turn.cast.task(item)
    said = guardrails.verdict(outcome.output_json) if outcome.status is TaskStatus.COMPLETED else None
    if said is None:
        passing = outcome.retryable or outcome.status is not TaskStatus.FAILED
        message = f"It could not be judged: {outcome.message or outcome.reason or 'the judge gave no verdict.'}"
        if passing and outcome.status is not TaskStatus.CANCELLED and turn.may_retry(item):
            turn.retry(item, outcome.reason or "GUARDRAIL_FAILED", message)
        else:
            turn.fail(item, "GUARDRAIL_FAILED", message)
    elif said[0]:
        _judge(turn, item, task, item.guardrail + 1)
    else:
        guardrail = task.guardrails[item.guardrail]
        problem = guardrail.message or f"It must fulfil this: {guardrail.criterion}"
        _objected(turn, item, task, f"{problem}\n{said[1]}".strip())


def _objected(turn: Turn, item: Item, task: CrewTask, problem: str) -> None:
    if item.rounds < task.max_guardrail_rounds:
        turn.send_back(item, "GUARDRAIL_FAILED", problem)
    else:
        turn.fail(item, "GUARDRAIL_FAILED", f"Its output did not fulfil its guardrails: {problem}")


def _stopped(turn: Turn, item: Item, outcome: TaskOutcome) -> None:
    """End what was in flight when the run was stopped, or whoever waited for it was: what is done is done."""
    stop = turn.state.stop
    if item.ask is Ask.WORK and outcome.status is TaskStatus.FAILED:
        turn.finish(item, TaskStatus.FAILED, outcome.reason, outcome.message)
        return
    task = turn.cast.task(item)
    if item.ask is Ask.WORK and _made(outcome):
        item = _kept(turn, item, outcome)
        broken = guardrails.problem(task.guardrails, item.output, item.output_json)
        if not broken and guardrails.next_criterion(task.guardrails, 0) is None:
            partial = item.partial or (turn.cast.managed and item.origin is Origin.TASK)
            turn.finish(item, TaskStatus.INCOMPLETE if partial else TaskStatus.COMPLETED, item.reason, item.message)
            return
    turn.finish(item, TaskStatus.CANCELLED, stop.reason if stop else "", stop.message if stop else "")


# What each event changes at once; each says whether it changed anything. Others mean nothing to a crew.
_TAKEN: Mapping[type[Event], Callable[[Turn, Any], bool]] = {
    Started: lambda turn, _: _started(turn),
    TaskEnded: _ended,
    TaskWaits: _waits,
    TaskResumes: _resumes,
    DelegationAsked: _delegation_asked,
    TimerFired: _timer_fired,
    PauseAsked: _steered,
    ResumeAsked: _steered,
    CancelAsked: _steered,
}
