"""One decision in the making: the pieces of work as they change, and the commands that follow from it."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from loremesh_crew.domain import tells
from loremesh_crew.domain.budgeting import NOTHING, capped, share, spent_out
from loremesh_crew.domain.composing import Cast, TaskTooLarge
from loremesh_crew.domain.crew_state import Ask, CrewState, Item, Origin, Stage, Stop
from loremesh_crew.domain.definitions import Crew
from loremesh_crew.domain.machine import (
    AnswerDelegation,
    CancelTask,
    Command,
    Pinned,
    RunStatus,
    StartTask,
    StartTimer,
    TaskStatus,
    Tell,
)

BUDGET = "RUN_BUDGET_EXHAUSTED"
_MAX_ANSWER = 60_000
_MAX_MESSAGE = 2_000


class Turn:
    """A decision: what it changes is a copy, and the same calls always change it the same way."""

    def __init__(self, run: Pinned, crew: Crew, state: CrewState, time: datetime) -> None:
        self.run = run
        self.crew = crew
        self.cast = Cast(run, crew)
        self.time = time
        self.state = state
        self.items = {item.name: item for item in state.items}
        self.commands: list[Command] = []

    def result(self) -> tuple[CrewState, tuple[Command, ...]]:
        """The state after it, and the commands."""
        return replace(self.state, items=tuple(self.items.values())), tuple(self.commands)

    def change(self, item: Item, **fields: Any) -> Item:
        """The item with other values."""
        changed = replace(item, **fields)
        self.items[item.name] = changed
        return changed

    def remember(self, **fields: Any) -> None:
        """The run with other values."""
        self.state = replace(self.state, **fields)

    def tell(self, kind: str, data: dict[str, Any] | None = None, item: Item | None = None) -> None:
        """Tell clients."""
        path, attempt = ((item.name,), max(item.attempts, 1)) if item else ((), 1)
        self.commands.append(Tell(kind=kind, data=data or {}, path=path, attempt=attempt))

    def of(self, *origins: Origin) -> list[Item]:
        """The items of some origin, oldest first."""
        return [item for item in self.items.values() if item.origin in origins]

    def in_flight(self, task_id: str) -> Item | None:
        """The item that the agent service knows by this id."""
        return next((item for item in self.items.values() if item.task_id and item.task_id == task_id), None)

    # Beginnings

    def begin(self, item: Item) -> bool:
        """Have it done, or end it where that cannot be; False where it has to wait for a budget."""
        tools = self.cast.tools(item)
        limits, used = self.run.limits, self.state.usage
        part = None
        if not spent_out(limits, used, tools=tools):
            reserved = [each.reserved for each in self.items.values() if each.task_id]
            # Whoever may hand work on leaves something for it.
            among = self._to_begin() + bool(self.cast.coworkers(item))
            part = share(limits, used, reserved, among=among, tools=tools)
            # Whoever waits for work handed on gives nothing back before that is done.
            if part is None and item.origin is not Origin.DELEGATED:
                return False
        if part is None:
            self._unpaid(item)
            return True
        part = capped(part, tokens=item.max_tokens)
        try:
            request = self.cast.compose(item, self.items, part)
        except TaskTooLarge:
            self.fail(item, "TASK_TOO_LARGE", "What it was to be given is longer than a task may be.")
            return True
        self.remember(number=self.state.number + 1)
        works = item.ask is Ask.WORK
        item = self.change(
            item,
            status=TaskStatus.IN_PROGRESS,
            task_id=f"{self.run.run_id}.{self.state.number}",
            reserved=part,
            attempts=item.attempts + works,
            start_time=item.start_time or self.time,
            delegations=(),
        )
        self.commands.append(StartTask(task_id=item.task_id, request=request))
        if works:
            prompt = request.message if self.cast.verbose(item) else ""
            self.tell("task_started", tells.task_started(item, prompt=prompt), item)
        return True

    def _to_begin(self) -> int:
        known = sum(item.to_begin for item in self.items.values())
        if not self.cast.managed:
            return known
        # The work of a plan that is still to be made, and the check.
        planned = len(self.cast.workers) if self.state.stage is Stage.PLANNING else 0
        return known + planned + (self.state.stage is not Stage.CHECKING)

    def _unpaid(self, item: Item) -> None:
        message = "The run took as much as it may."
        if item.status is TaskStatus.PENDING:
            self.finish(item, TaskStatus.SKIPPED, BUDGET, message)
        elif item.draft or item.ask is Ask.JUDGE:
            self.finish(item, TaskStatus.INCOMPLETE, BUDGET, message)
        else:
            self.finish(item, TaskStatus.FAILED, BUDGET, message)

    # Ends

    def finish(self, item: Item, status: TaskStatus, reason: str = "", message: str = "") -> None:
        """End it: whoever waits for it is told."""
        fields = {"status": status, "reason": reason, "message": message[:_MAX_MESSAGE], "finish_time": self.time}
        item = self.change(item, **fields, timer="", held=False, draft=False, reserved=NOTHING)
        self.tell("task_finished", tells.task_finished(tells.view(item)), item)
        asker = self.in_flight(item.for_task_id) if item.origin is Origin.DELEGATED else None
        # Who is being stopped needs no answer.
        if asker is not None and not asker.orphan and self.state.stop is None:
            self._answer(item)

    def _answer(self, item: Item) -> None:
        output, reason = (item.output[:_MAX_ANSWER], "") if item.done else ("", item.reason or "TASK_FAILED")
        self.commands.append(
            AnswerDelegation(task_id=item.for_task_id, delegation_id=item.delegation_id, output=output, reason=reason)
        )

    def fail(self, item: Item, reason: str, message: str, status: TaskStatus = TaskStatus.FAILED) -> None:
        """End it without an output, and the run with it where the crew says so; what a round before made is kept."""
        if item.draft:
            self.finish(item, TaskStatus.INCOMPLETE, reason, message)
            return
        self.finish(item, status, reason, message)
        if item.origin is Origin.TASK and self.crew.fail_fast:
            said = f"The task {item.name} failed: {message or reason}"[:_MAX_MESSAGE]
            self.stop(Stop(status=RunStatus.FAILED, reason="TASK_FAILED", message=said))

    def may_retry(self, item: Item) -> bool:
        """Whether another attempt is left."""
        return item.failures + 1 < self.cast.task(item).retry.max_attempts

    def retry(self, item: Item, reason: str, message: str) -> None:
        """Try it again after a pause."""
        pause = self.cast.task(item).retry.initial_pause * 2**item.failures
        timer = f"retry:{self.state.number}:{item.name}"
        item = self.change(item, status=TaskStatus.RETRYING, timer=timer, failures=item.failures + 1)
        self.commands.append(StartTimer(timer=timer, seconds=pause))
        next_time = self.time + timedelta(seconds=pause)
        self.tell("task_retried", tells.task_retried(reason, message[:_MAX_MESSAGE], next_time), item)

    def send_back(self, item: Item, reason: str, feedback: str) -> None:
        """Have it done again at once, with why."""
        item = self.change(item, ask=Ask.WORK, rounds=item.rounds + 1, feedback=feedback)
        self.tell("task_retried", tells.task_retried(reason, feedback[:_MAX_MESSAGE], self.time), item)

    def abandon(self, task_id: str) -> None:
        """Let go of work that was handed on by a task which ended."""
        for item in self.of(Origin.DELEGATED):
            if item.for_task_id == task_id and not item.ended and not item.orphan:
                self._let_go(item)

    def _let_go(self, item: Item) -> None:
        if item.task_id:
            self.commands.append(CancelTask(task_id=item.task_id))
            self.change(item, orphan=True)
            self.abandon(item.task_id)
        else:
            pending = item.status is TaskStatus.PENDING
            self.finish(item, TaskStatus.SKIPPED if pending else TaskStatus.CANCELLED)

    def stop(self, stop: Stop) -> None:
        """Begin nothing more, stop what is in flight; the first reason to do so counts."""
        if self.state.stop is not None:
            return
        self.remember(stop=stop, paused=False)
        for item in tuple(self.items.values()):
            if item.task_id and not item.orphan:
                self.commands.append(CancelTask(task_id=item.task_id))
            elif item.held:
                self.finish(item, TaskStatus.INCOMPLETE, stop.reason, stop.message)
            elif not item.ended and not item.task_id:
                pending = item.status is TaskStatus.PENDING
                self.finish(item, TaskStatus.SKIPPED if pending else TaskStatus.CANCELLED, stop.reason, stop.message)

    def skip(self, items: Iterable[Item], reason: str, message: str) -> None:
        """End what was not begun."""
        for item in items:
            self.finish(item, TaskStatus.SKIPPED, reason, message)
