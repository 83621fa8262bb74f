"""One decision on a flow's run in the making: what is remembered as it changes, and the commands that follow."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from loremesh_crew.domain import flow_tells as tells
from loremesh_crew.domain import flow_ways as ways
from loremesh_crew.domain import flow_work as work
from loremesh_crew.domain.definitions import AgentWork, FlowState, ToolWork, WaitWork
from loremesh_crew.domain.flow_checks import MAX_LEVELS
from loremesh_crew.domain.flow_state import FlowRunState, KeptSignal, Visit
from loremesh_crew.domain.machine import (
    CancelTask,
    Command,
    End,
    Pinned,
    RunStatus,
    StartTimer,
    SteerChild,
    TaskStatus,
    Tell,
    Usage,
)
from loremesh_crew.domain.placeholders import as_text
from loremesh_crew.domain.texts import TextTooLong

# Of the visits that are shown, and of their outputs.
_MAX_VISITS = 1000
_MAX_OUTPUTS = 1_000_000
# States gone through in one decision; then the run takes a breath, so that no decision is long.
_MAX_STEPS = 50
_MAX_MESSAGE = 2000


class Turn:
    """A decision: what it changes is a copy, and the same calls always change it the same way."""

    def __init__(self, run: Pinned, state: FlowRunState, time: datetime) -> None:
        self.run = run
        self.flow = work.flow_of(run)
        self.states = {each.id: each for each in reversed(self.flow.states)}
        self.state = state
        self.time = time
        self.commands: list[Command] = []
        self._steps = 0

    def result(self) -> tuple[FlowRunState, tuple[Command, ...]]:
        """The state after it, and the commands."""
        if self._steps:
            self.remember(visits=_shown(self.state.visits), reports=ways.kept(self.state.reports))
        return self.state, tuple(self.commands)

    def remember(self, **fields: Any) -> None:
        """The run with other values."""
        self.state = replace(self.state, **fields)

    def tell(self, kind: str, data: Mapping[str, Any] | None = None, *, of: Visit | None = None) -> None:
        """Tell clients."""
        path, attempt = ((of.state,), of.number) if of else ((), 1)
        self.commands.append(Tell(kind=kind, data=data or {}, path=path, attempt=attempt))

    def change(self, visit: Visit, **fields: Any) -> Visit:
        """The visit it is at with other values."""
        changed = replace(visit, **fields)
        self.remember(visits=(*self.state.visits[:-1], changed))
        return changed

    # Going in

    def enter(self, state_id: str) -> None:
        """Come to a state, and go on from there as far as that needs nobody else."""
        going: str | None = state_id
        while going is not None:
            most = self.flow.max_iterations
            if self.state.entered >= most:
                self.fail("ITERATIONS_EXHAUSTED", f"The flow came to {most} states, as many as it may.")
                return
            visit = self._visit(going)
            self._begin(self.states[going], visit)
            going = self.next_state()

    def next_state(self) -> str | None:
        """Where to go on, once the work of the state it is at is done; None where something comes before that."""
        visit = self.state.visit
        if visit is None or not visit.finished or self.state.paused or self.state.ending or self.state.end:
            return None
        self._steps += 1
        if self._steps > _MAX_STEPS:
            self.commands.append(StartTimer(timer=self.breath, seconds=0.0))
            return None
        return self._leave(self.states[visit.state], visit)

    @property
    def breath(self) -> str:
        """The timer that goes on from where it is."""
        return f"step:{self.state.entered}"

    @property
    def pause(self) -> str:
        """The timer of the state it is at."""
        return f"wait:{self.state.entered}"

    def _visit(self, state_id: str) -> Visit:
        counts = dict(self.state.entered_by_state)
        counts[state_id] = counts.get(state_id, 0) + 1
        visit = Visit(state=state_id, number=counts[state_id])
        self.remember(entered=self.state.entered + 1, entered_by_state=counts, visits=(*self.state.visits, visit))
        self.tell("state_entered", {"state": state_id, "visit": visit.number}, of=visit)
        return visit

    def _begin(self, at: FlowState, visit: Visit) -> None:
        visit = self.change(visit, status=TaskStatus.IN_PROGRESS, start_time=self.time)
        match at.work:
            case None:
                self.finish(output=self.state.output, output_json=self.state.output_json)
            case WaitWork() as wait:
                self._wait(wait, visit)
            case _:
                self._delegate(at, visit)

    def _delegate(self, at: FlowState, visit: Visit) -> None:
        if kind := work.spent(self.run, self.state, at):
            self.fail("RUN_BUDGET_EXHAUSTED", f"The run took as much as it may: {kind}.")
            return
        if at.flow and self.run.depth + 2 > MAX_LEVELS:
            message = f"Flows contain each other deeper than {MAX_LEVELS} levels."
            self.finish(TaskStatus.FAILED, reason="FLOW_CYCLE", message=message)
            return
        id_ = f"{self.run.run_id}.{self.state.started + 1}"
        try:
            command = work.begun(self.run, self.state, at, id_, self.time)
        except TextTooLong:
            self.finish(TaskStatus.FAILED, reason="TASK_TOO_LARGE", message="What it was to be given is too long.")
            return
        if command is None:
            return
        self.remember(started=self.state.started + 1)
        self.commands.append(command)
        if isinstance(at.work, ToolWork):
            visit = self.change(visit, task_id=id_)
            self.tell("task_started", of=visit)
        else:
            name = at.work.agent.name if isinstance(at.work, AgentWork) else ""
            visit = self.change(visit, child_run_id=id_, agent=name)
            self.tell("child_started", {"child_run_id": id_}, of=visit)

    def _wait(self, wait: WaitWork, visit: Visit) -> None:
        if wait.signal and self.receive(wait.signal):
            return
        visit = self.change(visit, status=TaskStatus.WAITING)
        if wait.seconds is not None:
            self.commands.append(StartTimer(timer=self.pause, seconds=wait.seconds))
            due = self.time + timedelta(seconds=wait.seconds)
            self.tell("timer_started", {"due_time": tells.timestamp(due)}, of=visit)

    def receive(self, signal: str) -> bool:
        """Take the oldest kept signal of a name as the state's output; whether there is one."""
        kept = next((each for each in self.state.signals if each.signal == signal), None)
        if kept is None:
            return False
        signals = list(self.state.signals)
        signals.remove(kept)
        self.remember(signals=tuple(signals))
        payload = kept.payload
        output = "" if payload is None else as_text(payload)
        self.finish(output=output, output_json=payload if isinstance(payload, dict) else None)
        return True

    def keep(self, signal: KeptSignal) -> None:
        """Keep a signal until a state waits for it."""
        self.remember(signals=(*self.state.signals, signal))

    # Coming out

    def finish(
        self,
        status: TaskStatus = TaskStatus.COMPLETED,
        *,
        output: str = "",
        output_json: Mapping[str, Any] | None = None,
        usage: Usage | None = None,
        reason: str = "",
        message: str = "",
        **more: Any,
    ) -> None:
        """End the work of the state it is at."""
        visit = self.state.visit
        if visit is None:
            return
        usage = usage or Usage()
        visit = self.change(
            visit,
            status=status,
            output=output,
            output_json=output_json,
            usage=usage,
            reason=reason,
            message=message[:_MAX_MESSAGE],
            finish_time=self.time,
            approval_id="",
            **more,
        )
        self.remember(usage=self.state.usage + usage)
        if status is TaskStatus.INCOMPLETE and not self.state.incomplete_reason:
            self.remember(incomplete_reason=reason or "CHILD_FAILED", incomplete_message=visit.message)
        if self.states[visit.state].work is not None and not visit.child_run_id:
            self.tell("task_finished", tells.task_finished(visit), of=visit)

    def _leave(self, at: FlowState, visit: Visit) -> str | None:
        self._take_output(at, visit)
        if at.final and not visit.succeeded:
            self.fail(visit.reason or "CHILD_FAILED", f"The final state {at.id} failed: {visit.message}")
            return None
        try:
            variables, told = ways.assigned(self.run, self.state, at, visit)
        except ways.AssignmentFailed as failed:
            self.fail("EXPRESSION_FAILED", failed.message)
            return None
        self.remember(variables=variables)
        for data in told:
            self.tell("variable_set", data, of=visit)
        if at.final:
            self._arrive(at)
            return None
        report, chosen = ways.chosen(self.run, self.state, at, visit)
        self.remember(reports=(*self.state.reports, report))
        self.tell("transition_taken", {"report": report}, of=visit)
        if chosen is None:
            self.fail("NO_TRANSITION", ways.none_held(at, visit, report))
        return chosen

    def _take_output(self, at: FlowState, visit: Visit) -> None:
        self.remember(output=visit.output, output_json=visit.output_json)
        if self._asked_for is None or at.id in self._asked_for:
            self.remember(outputs={**self.state.outputs, at.id: visit.output})
        if visit.output:
            self.remember(result=visit.output, result_json=visit.output_json)

    @cached_property
    def _asked_for(self) -> frozenset[str] | None:
        return work.asked_for(self.flow)

    def _arrive(self, at: FlowState) -> None:
        if at.fails:
            self.fail("FLOW_FAILED", f"The flow ended in the state {at.id}, which says that it failed.")
            return
        state = self.state
        whole = not state.incomplete_reason
        try:
            output = work.output(self.run, state)
        except TextTooLong:
            self.fail("TASK_TOO_LARGE", "The output that the flow asks for is too long.")
            return
        self.end(
            End(
                status=RunStatus.COMPLETED if whole else RunStatus.INCOMPLETE,
                output=state.result if output is None else output,
                output_json=state.result_json if output is None else None,
                reason=state.incomplete_reason,
                message=state.incomplete_message,
            )
        )

    # Ends

    def fail(self, reason: str, message: str) -> None:
        """End it without a result."""
        visit = self.state.visit
        if visit and not visit.finished:
            self.change(
                visit, status=TaskStatus.SKIPPED, reason=reason, message=message[:_MAX_MESSAGE], finish_time=self.time
            )
        self.end(End(status=RunStatus.FAILED, reason=reason, message=message[:_MAX_MESSAGE]))

    def end(self, end: End) -> None:
        """End it."""
        self.remember(end=end, status=end.status, paused=False, ending=None)

    def stop(self, end: End) -> None:
        """End it so as soon as nothing is at work."""
        visit = self.state.visit
        if visit and not visit.finished and (visit.task_id or visit.child_run_id):
            self.remember(ending=end, status=RunStatus.CANCELLING, paused=False)
            self.steer("cancel")
            return
        if visit and not visit.finished:
            self.change(visit, status=TaskStatus.CANCELLED, finish_time=self.time)
        self.end(end)

    def steer(self, action: str) -> None:
        """Cancel, pause or resume what is at work; a task is not paused."""
        visit = self.state.visit
        if visit is None or visit.finished:
            return
        if visit.child_run_id:
            self.commands.append(SteerChild(child_run_id=visit.child_run_id, action=action))
        elif visit.task_id and action == "cancel":
            self.commands.append(CancelTask(task_id=visit.task_id))


def _shown(visits: tuple[Visit, ...]) -> tuple[Visit, ...]:
    """The last visits; of outputs the last ones, too."""
    visits = visits[-_MAX_VISITS:]
    left = _MAX_OUTPUTS
    shown: list[Visit] = []
    for visit in reversed(visits):
        left -= len(visit.output)
        shown.append(visit if left >= 0 or not visit.output else replace(visit, output="", output_json=None))
    return tuple(reversed(shown))
