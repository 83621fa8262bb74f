"""A run as its events tell it, task by task."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from loremesh.agent.v1 import chat_pb2
from loremesh.crew.v1 import run_pb2 as pb

_OPEN = frozenset({pb.TASK_STATUS_PENDING, pb.TASK_STATUS_IN_PROGRESS, pb.TASK_STATUS_WAITING, pb.TASK_STATUS_RETRYING})
_RUNS = {
    "paused": pb.RUN_STATUS_INTERRUPTED,
    "resumed": pb.RUN_STATUS_IN_PROGRESS,
    "cancelling": pb.RUN_STATUS_CANCELLING,
    "completed": pb.RUN_STATUS_COMPLETED,
    "incomplete": pb.RUN_STATUS_INCOMPLETE,
    "failed": pb.RUN_STATUS_FAILED,
    "cancelled": pb.RUN_STATUS_CANCELLED,
    "expired": pb.RUN_STATUS_EXPIRED,
}
# How the state that a child run is for ended with it.
_CHILDREN = {
    pb.RUN_STATUS_COMPLETED: pb.TASK_STATUS_COMPLETED,
    pb.RUN_STATUS_INCOMPLETE: pb.TASK_STATUS_INCOMPLETE,
    pb.RUN_STATUS_CANCELLED: pb.TASK_STATUS_CANCELLED,
}


@dataclass(slots=True)
class Row:
    """A task, or a flow's visit to a state."""

    name: str
    agent: str = ""
    status: pb.TaskStatus.ValueType = pb.TASK_STATUS_PENDING
    visit: int = 0
    attempt: int = 1
    tokens: int = 0
    began: datetime | None = None
    ended: datetime | None = None
    approval_id: str = ""
    note: str = ""
    child: "Board | None" = None
    # Work that it handed on.
    below: "list[Row]" = field(default_factory=list)

    @property
    def called(self) -> str:
        """Its name, and which visit it is."""
        return f"{self.name} (visit {self.visit})" if self.visit > 1 else self.name

    def end(self, status: pb.TaskStatus.ValueType, time: datetime) -> None:
        """It is over, unless it was before."""
        if self.status in _OPEN:
            self.status, self.ended = status, time


@dataclass(slots=True)
class Board:
    """A run, from its first event to the last that was seen."""

    run_id: str
    name: str = ""
    # How many runs are above it.
    depth: int = 0
    status: pb.RunStatus.ValueType = pb.RUN_STATUS_QUEUED
    rows: list[Row] = field(default_factory=list)
    tokens: int = 0
    began: datetime | None = None
    ended: datetime | None = None

    def apply(self, event: pb.RunEvent) -> str:
        """Take note of an event; what there is to say of it in a line, empty for nothing."""
        kind, time = event.WhichOneof("payload") or "", event.time.ToDatetime(UTC)
        if kind in _RUNS:
            return self._stands(kind, event, time)
        if kind in _OF_RUNS:
            return _OF_RUNS[kind](self, event, time)
        row = self.row(event) if kind in _OF_ROWS else None
        return _OF_ROWS[kind](row, event, time) if row else ""

    def row(self, event: pb.RunEvent) -> Row | None:
        """The row that an event is of, the last of its name or a new one; None where it is of the run itself."""
        if not event.path:
            return None
        found = [row for row in self.all_rows() if row.name == event.path[-1]]
        if not found:
            found = [Row(event.path[-1])]
            self.rows += found
        return found[-1]

    def all_rows(self) -> Iterator[Row]:
        """Every row of it, those of work handed on after the one who did; not those of child runs."""
        pending = list(self.rows)
        while pending:
            row = pending.pop(0)
            yield row
            pending[:0] = row.below

    @property
    def called(self) -> str:
        """It, in a line."""
        # A task may be called as its crew is.
        return f"run {self.name}" if self.name else "the run"

    def taken(self) -> int:
        """Tokens it took, as far as is known: at its end, or by what ended of it and of its child runs."""
        return self.tokens or sum(row.tokens + (row.child.taken() if row.child else 0) for row in self.all_rows())

    def _stands(self, kind: str, event: pb.RunEvent, time: datetime) -> str:
        self.status = _RUNS[kind]
        payload = getattr(event, kind)
        if not isinstance(payload, pb.RunEnded):
            return f"{self.called} is {kind}"
        self.ended, self.tokens = time, _tokens(payload.usage)
        whole = kind in ("completed", "incomplete")
        for row in self.rows:
            # A final state is not left: its visit ends with the run.
            if row.visit:
                row.end(pb.TASK_STATUS_COMPLETED if whole else pb.TASK_STATUS_FAILED, time)
        return f"{self.called} is {kind}{because(payload.reason, payload.message)}"


def because(reason: str, message: str) -> str:
    """A reason and its sentence, after what they are the reason for; empty where there is neither."""
    return "".join(f": {each}" for each in (reason, message) if each)


def _started(board: Board, event: pb.RunEvent, time: datetime) -> str:
    started = event.run_started
    # An agent's single task has no definition: it is called as the state it is for.
    board.name, board.began, board.status = started.definition_id or board.name, time, pb.RUN_STATUS_IN_PROGRESS
    # A flow may never come to some of its states.
    board.rows += [Row(name) for name in started.names] if started.kind == pb.RUN_KIND_CREW else []
    return f"{board.called} began"


def _entered(board: Board, event: pb.RunEvent, time: datetime) -> str:
    entered = event.state_entered
    board.rows.append(Row(entered.state, status=pb.TASK_STATUS_IN_PROGRESS, visit=entered.visit, began=time))
    return f"{board.rows[-1].called} entered"


def _planned(_: Board, event: pb.RunEvent, __: datetime) -> str:
    planned = ", ".join(f"{each.name} ({each.agent})" for each in event.plan_made.tasks)
    return f"plan {event.plan_made.round}: {planned}"


def _refused(_: Board, event: pb.RunEvent, __: datetime) -> str:
    refused = event.plan_refused
    return f"plan {refused.round} is refused{because(refused.reason, refused.message)}"


def _signalled(_: Board, event: pb.RunEvent, __: datetime) -> str:
    return f"signal {event.signal_received.signal} came"


def _begun(row: Row, event: pb.RunEvent, time: datetime) -> str:
    row.status, row.began, row.ended = pb.TASK_STATUS_IN_PROGRESS, row.began or time, None
    row.agent, row.attempt, row.note = event.task_started.agent or row.agent, max(event.attempt, 1), ""
    return f"{row.called} began"


def _waits(row: Row, event: pb.RunEvent, _: datetime) -> str:
    row.status, row.approval_id = pb.TASK_STATUS_WAITING, event.task_waiting.approval_id
    return f"{row.called} waits for a human"


def _resumed(row: Row, _: pb.RunEvent, __: datetime) -> str:
    row.status, row.approval_id = pb.TASK_STATUS_IN_PROGRESS, ""
    return f"{row.called} goes on"


def _retried(row: Row, event: pb.RunEvent, _: datetime) -> str:
    why = because(event.task_retried.reason, event.task_retried.message)
    row.status, row.approval_id, row.note = pb.TASK_STATUS_RETRYING, "", why.removeprefix(": ")
    return f"{row.called} is tried again{why}"


def _finished(row: Row, event: pb.RunEvent, time: datetime) -> str:
    told = event.task_finished
    why = because(told.reason, told.message)
    row.end(told.status, time)
    row.agent, row.tokens, row.approval_id = told.agent or row.agent, _tokens(told.usage), ""
    row.attempt, row.note = max(told.attempts, 1), why.removeprefix(": ")
    return f"{row.called} is {pb.TaskStatus.Name(row.status).removeprefix('TASK_STATUS_').lower()}{why}"


def _delegated(row: Row, event: pb.RunEvent, _: datetime) -> str:
    handed = event.work_delegated
    row.below.append(Row(handed.task, agent=handed.agent))
    return f"{row.called} hands {handed.task} to {handed.agent}"


def _left(row: Row, event: pb.RunEvent, time: datetime) -> str:
    row.end(pb.TASK_STATUS_COMPLETED, time)
    return f"{row.name} → {event.transition_taken.report.to or 'nowhere'}"


def _timed(row: Row, event: pb.RunEvent, _: datetime) -> str:
    due = event.timer_started.due_time.ToDatetime(UTC).astimezone()
    row.note = f"until {due:%Y-%m-%d %H:%M:%S}"
    return f"{row.called} waits {row.note}"


def _child_began(board: Board, event: pb.RunEvent, _: datetime) -> str:
    if row := board.row(event):
        row.child = Board(event.child_started.child_run_id, name=row.name, depth=board.depth + 1)
    return ""


def _child_ended(row: Row, event: pb.RunEvent, time: datetime) -> str:
    row.end(_CHILDREN.get(event.child_finished.status, pb.TASK_STATUS_FAILED), time)
    return ""


def _tokens(usage: chat_pb2.Usage) -> int:
    return usage.input_tokens + usage.output_tokens


_OF_RUNS: dict[str, Callable[[Board, pb.RunEvent, datetime], str]] = {
    "run_started": _started,
    "state_entered": _entered,
    "plan_made": _planned,
    "plan_refused": _refused,
    "signal_received": _signalled,
    "child_started": _child_began,
}
_OF_ROWS: dict[str, Callable[[Row, pb.RunEvent, datetime], str]] = {
    "task_started": _begun,
    "task_waiting": _waits,
    "task_resumed": _resumed,
    "task_retried": _retried,
    "task_finished": _finished,
    "work_delegated": _delegated,
    "transition_taken": _left,
    "timer_started": _timed,
    "child_finished": _child_ended,
}
