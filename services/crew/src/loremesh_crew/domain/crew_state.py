"""What a run of a crew remembers between two decisions: plain values, through JSON and back unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from loremesh_crew.domain.budgeting import NOTHING, Share
from loremesh_crew.domain.machine import End, RunStatus, TaskStatus, Usage

_TERMINAL = frozenset(
    {TaskStatus.COMPLETED, TaskStatus.INCOMPLETE, TaskStatus.FAILED, TaskStatus.SKIPPED, TaskStatus.CANCELLED}
)
_DONE = frozenset({TaskStatus.COMPLETED, TaskStatus.INCOMPLETE})
_NONE = Usage()


class Origin(StrEnum):
    """Where a piece of work comes from."""

    TASK = "TASK"
    # The manager's own: what is to be done, and whether that is it.
    PLAN = "PLAN"
    CHECK = "CHECK"
    PLANNED = "PLANNED"
    DELEGATED = "DELEGATED"


class Ask(StrEnum):
    """What is asked of an agent."""

    WORK = "WORK"
    JUDGE = "JUDGE"


class Stage(StrEnum):
    """Where a round of a managed crew stands."""

    PLANNING = "PLANNING"
    WORKING = "WORKING"
    WRITING = "WRITING"
    CHECKING = "CHECKING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A piece of work: a task of the crew, one that was planned or handed on, or a question to the manager."""

    # One of each in a run. Those of a crew's tasks have no slash.
    name: str
    origin: Origin
    agent: str
    # Names of those whose outputs it is given.
    depends_on: tuple[str, ...] = ()
    # Of work handed on and planned: the item it is shown behind, and who handed it on.
    parent: str = ""
    delegated_by: str = ""
    description: str = ""
    context: str = ""
    depth: int = 0
    # Of the manager's: which round, from 1.
    round: int = 0
    # Limits of its plan.
    max_tokens: int = 0
    seconds: float | None = None
    # Of work handed on: who waits for it.
    delegation_id: str = ""
    for_task_id: str = ""

    status: TaskStatus = TaskStatus.PENDING
    # What is asked, or will be next.
    ask: Ask = Ask.WORK
    # What the agent service knows it by while it is in flight.
    task_id: str = ""
    # What it waits for before it is tried again.
    timer: str = ""
    reserved: Share = NOTHING
    # Begun, those that were sent back too; failed in a row; sent back.
    attempts: int = 0
    failures: int = 0
    rounds: int = 0
    # Index of the guardrail that is being judged.
    guardrail: int = 0
    # Why the last output was sent back.
    feedback: str = ""
    # Whether a limit cut the output in hand.
    partial: bool = False
    # Whether the output in hand is good as far as it goes, and waits for the whole to be accepted; or did in a round
    # before.
    held: bool = False
    draft: bool = False
    # Whether nobody waits for it any longer.
    orphan: bool = False
    # Ids of all that the attempt in flight asked to hand on, and how much all attempts did.
    delegations: tuple[str, ...] = ()
    delegated: int = 0
    # The approval it waits for, and the one it waited for last.
    approval_id: str = ""
    decided_id: str = ""

    output: str = ""
    output_json: Mapping[str, Any] | None = None
    usage: Usage = _NONE
    reason: str = ""
    message: str = ""
    start_time: datetime | None = None
    finish_time: datetime | None = None
    agent_run_id: str = ""
    model: str = ""
    sources: tuple[Mapping[str, Any], ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in _TERMINAL

    @property
    def done(self) -> bool:
        """Whether there is an output that others may use."""
        return self.held or self.status in _DONE

    @property
    def settled(self) -> bool:
        """Whether nothing more comes of it in this round."""
        return self.held or self.ended

    @property
    def to_begin(self) -> bool:
        """Whether something of it is still to be begun."""
        return not (self.task_id or self.settled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """How the run is to end as soon as nothing is in flight."""

    status: RunStatus
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewState:
    """A run of a crew."""

    # The crew's tasks in their order, then whatever came to be done, oldest first.
    items: tuple[Item, ...] = ()
    started: bool = False
    paused: bool = False
    stop: Stop | None = None
    end: End | None = None
    usage: Usage = _NONE
    # Tasks begun: the number in the last one's id.
    number: int = 0
    # Of managed crews: which round, where it stands, and what the result of the one before lacked.
    round: int = 1
    stage: Stage = Stage.PLANNING
    missing: str = ""

    @property
    def status(self) -> RunStatus:
        """Where it stands."""
        if self.end is not None:
            return self.end.status
        if self.stop is not None and self.stop.status is not RunStatus.FAILED:
            return RunStatus.CANCELLING
        if self.paused:
            return RunStatus.INTERRUPTED
        return RunStatus.IN_PROGRESS if self.started else RunStatus.QUEUED
