"""What a flow's run remembers: plain values that go through JSON and back unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from loremesh_crew.domain.machine import End, RunStatus, TaskStatus, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One visit to a state, and what came of its work."""

    state: str
    # Of this state, from 1.
    number: int
    status: TaskStatus = TaskStatus.PENDING
    agent: str = ""
    output: str = ""
    output_json: Mapping[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)
    reason: str = ""
    message: str = ""
    # Of the child run, where it has one that failed.
    child_reason: str = ""
    start_time: datetime | None = None
    finish_time: datetime | None = None
    # Whose end it waits for, if for one's.
    task_id: str = ""
    child_run_id: str = ""
    agent_run_id: str = ""
    approval_id: str = ""
    model: str = ""

    @property
    def finished(self) -> bool:
        """Whether its work is done, or was none."""
        return self.status in (TaskStatus.COMPLETED, TaskStatus.INCOMPLETE, TaskStatus.FAILED, TaskStatus.CANCELLED)

    @property
    def succeeded(self) -> bool:
        """Whether it has a result."""
        return self.status in (TaskStatus.COMPLETED, TaskStatus.INCOMPLETE)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSignal:
    """A signal that nothing waited for yet."""

    signal: str
    payload: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRunState:
    """Where a flow's run stands."""

    status: RunStatus = RunStatus.QUEUED
    end: End | None = None
    start_time: datetime | None = None
    # Visits begun, and those to each state.
    entered: int = 0
    entered_by_state: Mapping[str, int] = field(default_factory=dict)
    # The last ones; the very last is the one it is at.
    visits: tuple[Visit, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    # Output of the state before, and the last ones of those states that something asks for.
    output: str = ""
    output_json: Mapping[str, Any] | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    # Of the last state that had any: the run's.
    result: str = ""
    result_json: Mapping[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)
    # Tasks and child runs begun; their numbers.
    started: int = 0
    paused: bool = False
    # As what it ends once what is at work has ended.
    ending: End | None = None
    # Why the result is not whole; empty where it is.
    incomplete_reason: str = ""
    incomplete_message: str = ""
    signals: tuple[KeptSignal, ...] = ()
    signal_ids: tuple[str, ...] = ()
    reports: tuple[Mapping[str, Any], ...] = ()

    @property
    def visit(self) -> Visit | None:
        """The visit it is at; None before the first."""
        return self.visits[-1] if self.visits else None
