"""Decides runs of flows: which state comes next, what is begun there, and how the run ends."""

from collections.abc import Sequence

from loremesh_crew.domain import flow_tells as tells
from loremesh_crew.domain.definitions import FlowState, WaitWork
from loremesh_crew.domain.expressions import ExpressionFailed
from loremesh_crew.domain.flow_checks import signals, variables_of
from loremesh_crew.domain.flow_state import FlowRunState, KeptSignal, Visit
from loremesh_crew.domain.flow_turn import Turn
from loremesh_crew.domain.machine import (
    CancelAsked,
    ChildEnded,
    Command,
    End,
    Event,
    PauseAsked,
    Pinned,
    ResumeAsked,
    RunStatus,
    SignalCame,
    Started,
    StartTimer,
    TaskEnded,
    TaskResumes,
    TaskStatus,
    TaskWaits,
    TimerFired,
    View,
)
from loremesh_crew.domain.placeholders import as_text

_DEADLINE = "deadline"
# What a child run's end is for the state it is of; all else is a failure.
_CHILDREN = {
    RunStatus.COMPLETED: TaskStatus.COMPLETED,
    RunStatus.INCOMPLETE: TaskStatus.INCOMPLETE,
    RunStatus.CANCELLED: TaskStatus.CANCELLED,
}
_MAX_SIGNALS = 100
_MAX_PAYLOADS = 1_000_000
_MAX_SIGNAL_IDS = 1000


class FlowMachine:
    """See Machine."""

    version = 1
    state = FlowRunState

    def begin(self, run: Pinned) -> FlowRunState:
        """The state before Started."""
        del run
        return FlowRunState()

    def decide(self, run: Pinned, state: FlowRunState, event: Event) -> tuple[FlowRunState, Sequence[Command]]:
        """The state after an event, and what is to be done."""
        if state.end is not None or isinstance(event, Started) is not (state.start_time is None):
            return state, ()
        turn = Turn(run, state, event.time)
        self._decide(turn, event)
        return turn.result()

    def view(self, run: Pinned, state: FlowRunState) -> View:
        """What readers are shown."""
        del run
        end = state.end or End(status=state.status)
        return View(
            status=end.status,
            tasks=tuple(map(tells.view, state.visits)),
            usage=state.usage,
            output=end.output,
            output_json=end.output_json,
            reason=end.reason,
            message=end.message,
            variables=state.variables,
            current_state=state.visit.state if state.visit else "",
            reports=state.reports,
        )

    def _decide(self, turn: Turn, event: Event) -> None:  # noqa: C901 - a table of the events
        match event:
            case Started():
                _start(turn)
            case TaskEnded() if visit := _of_task(turn, event.task_id):
                _task_ended(turn, event, visit)
            case ChildEnded() if visit := _of_child(turn, event.child_run_id):
                _child_ended(turn, event, visit)
            case TaskWaits() if (visit := _of_task(turn, event.task_id)) and visit.status is TaskStatus.IN_PROGRESS:
                run_id = event.agent_run_id or visit.agent_run_id
                visit = turn.change(
                    visit, status=TaskStatus.WAITING, approval_id=event.approval_id, agent_run_id=run_id
                )
                turn.tell("task_waiting", {"approval_id": event.approval_id}, of=visit)
            case TaskResumes() if (visit := _of_task(turn, event.task_id)) and visit.status is TaskStatus.WAITING:
                visit = turn.change(visit, status=TaskStatus.IN_PROGRESS, approval_id="")
                turn.tell("task_resumed", of=visit)
            case TimerFired():
                _timer_fired(turn, event.timer)
            case SignalCame() if _is_new(turn, event):
                _signal_came(turn, event)
            case CancelAsked() if turn.state.ending is None:
                turn.tell("cancelling", {"comment": event.comment} if event.comment else {})
                turn.stop(End(status=RunStatus.CANCELLED))
            case PauseAsked() if not turn.state.paused and turn.state.ending is None:
                turn.remember(paused=True, status=RunStatus.INTERRUPTED)
                turn.tell("paused")
                turn.steer("pause")
            case ResumeAsked() if turn.state.paused:
                turn.remember(paused=False, status=RunStatus.IN_PROGRESS)
                turn.tell("resumed")
                turn.steer("resume")
                _go_on(turn)


def _start(turn: Turn) -> None:
    turn.remember(start_time=turn.time, status=RunStatus.IN_PROGRESS)
    turn.tell("run_started", tells.run_started(turn.flow))
    if turn.run.limits.max_seconds:
        turn.commands.append(StartTimer(timer=_DEADLINE, seconds=turn.run.limits.max_seconds))
    try:
        turn.remember(variables=variables_of(turn.flow, turn.run.inputs))
    except ExpressionFailed as failed:
        turn.fail("VARIABLE_INVALID", f"An input is not of its variable's type: {failed.problem}.")
        return
    turn.enter(next(state.id for state in turn.flow.states if state.initial))


def _go_on(turn: Turn) -> None:
    """Go on from a state whose work is done, or end where that was waited for."""
    visit = turn.state.visit
    if turn.state.ending and (visit is None or visit.finished):
        turn.end(turn.state.ending)
    elif (state_id := turn.next_state()) is not None:
        turn.enter(state_id)


def _of_task(turn: Turn, task_id: str) -> Visit | None:
    visit = turn.state.visit
    return visit if visit and visit.task_id == task_id and not visit.finished else None


def _of_child(turn: Turn, child_run_id: str) -> Visit | None:
    visit = turn.state.visit
    return visit if visit and visit.child_run_id == child_run_id and not visit.finished else None


def _task_ended(turn: Turn, event: TaskEnded, visit: Visit) -> None:
    outcome = event.outcome
    failed = outcome.status in (TaskStatus.FAILED, TaskStatus.CANCELLED)
    turn.finish(
        outcome.status,
        output=outcome.output,
        output_json=outcome.output_json,
        usage=outcome.usage,
        reason=outcome.reason or ("TASK_FAILED" if failed else ""),
        message=outcome.message,
        agent_run_id=outcome.agent_run_id or visit.agent_run_id,
        model=outcome.model,
    )
    _go_on(turn)


def _child_ended(turn: Turn, event: ChildEnded, visit: Visit) -> None:
    turn.tell(
        "child_finished",
        {"child_run_id": event.child_run_id, "status": f"RUN_STATUS_{event.status}"},
        of=visit,
    )
    status = _CHILDREN.get(event.status, TaskStatus.FAILED)
    reason, message = event.reason, event.message
    if status not in (TaskStatus.COMPLETED, TaskStatus.INCOMPLETE):
        why = ": ".join(filter(None, (reason, message)))
        message = f"The child run {event.child_run_id} ended as {event.status}{f' ({why})' if why else ''}."
        reason = "CHILD_FAILED"
    turn.finish(
        status,
        output=event.output,
        output_json=event.output_json,
        usage=event.usage,
        reason=reason,
        message=message,
        child_reason=event.reason,
    )
    _go_on(turn)


def _timer_fired(turn: Turn, timer: str) -> None:
    visit = turn.state.visit
    if timer == _DEADLINE:
        _expire(turn)
    elif timer == turn.breath and visit and visit.finished:
        _go_on(turn)
    elif timer == turn.pause and visit and not visit.finished and turn.state.ending is None:
        wait = _waited_for(turn, visit)
        if wait is None:
            return
        if wait.signal:
            message = f"The signal {wait.signal} did not come in time."
            turn.finish(TaskStatus.FAILED, reason="WAIT_EXPIRED", message=message)
        else:
            turn.finish(output=turn.state.output, output_json=turn.state.output_json)
        _go_on(turn)


def _expire(turn: Turn) -> None:
    expired = End(status=RunStatus.EXPIRED, reason="RUN_EXPIRED", message="The run's time was over.")
    if turn.state.ending is None:
        turn.stop(expired)


def full(run: Pinned, state: FlowRunState, event: SignalCame) -> bool:
    """Whether there is no room for a signal: so many are kept that nothing waited for yet, and nothing waits for it."""
    turn = Turn(run, state, event.time)
    if not _may_come(turn, event) or _is_waited_for(turn, event):
        return False
    # Runs of before may have kept more: of that the machine knows nothing.
    much = sum(len(as_text(each.payload)) for each in state.signals) >= _MAX_PAYLOADS
    return much or not _has_room(turn, event)


def _is_new(turn: Turn, event: SignalCame) -> bool:
    return _may_come(turn, event) and _has_room(turn, event)


def _may_come(turn: Turn, event: SignalCame) -> bool:
    return (
        event.signal in signals(turn.flow)
        and (not event.signal_id or event.signal_id not in turn.state.signal_ids)
        and turn.state.ending is None
        and turn.state.end is None
    )


def _has_room(turn: Turn, event: SignalCame) -> bool:
    return _is_waited_for(turn, event) or len(turn.state.signals) < _MAX_SIGNALS


def _is_waited_for(turn: Turn, event: SignalCame) -> bool:
    visit = turn.state.visit
    wait = _waited_for(turn, visit) if visit else None
    return wait is not None and wait.signal == event.signal


def _signal_came(turn: Turn, event: SignalCame) -> None:
    if event.signal_id:
        turn.remember(signal_ids=(*turn.state.signal_ids, event.signal_id)[-_MAX_SIGNAL_IDS:])
    turn.keep(KeptSignal(signal=event.signal, payload=event.payload))
    turn.tell("signal_received", {"signal": event.signal})
    if _is_waited_for(turn, event) and turn.receive(event.signal):
        _go_on(turn)


def _waited_for(turn: Turn, visit: Visit) -> WaitWork | None:
    """What the state it is at waits for, if it still does."""
    at: FlowState = turn.states[visit.state]
    return at.wait if not visit.finished and visit.status is TaskStatus.WAITING else None
