"""What keeps runs, tasks, and what humans and other agents are asked."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from loremesh_kit.jobs import Job
from loremesh_kit.pages import Position

from loremesh_agent.domain.approvals import Alarm, Approval, Decision, NewApproval
from loremesh_agent.domain.approvals import State as ApprovalState
from loremesh_agent.domain.chat_jobs import ChatJob
from loremesh_agent.domain.delegation import Delegation, Delivered
from loremesh_agent.domain.steps import Change, Step
from loremesh_agent.domain.tasks import Task, TaskOrder
from loremesh_agent.ports.chats import FinishedTurn


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task to be accepted: `request` as it came, and by what a request is known to be the same."""

    order: TaskOrder
    request: bytes
    request_hash: bytes
    agent_id: str = ""
    agent_revision: int = 0


class TaskCall(Protocol):
    """A caller who waits for the end of a task."""

    async def wait(self, seconds: float) -> ChatJob | None:
        """Its job with its answer, once it ended in this process; None where it did not within so many seconds.

        A little longer where it is ending just then: who is told None will be told by a fact.
        """
        ...


class TaskCallers(Protocol):
    """Knows who waits in this process: an end that they are told of needs no fact."""

    def waiting(self, task_id: str) -> AbstractContextManager[TaskCall]:
        """Inside the block somebody waits for the end of a task of the caller's tenant."""
        ...


class TaskStore(Protocol):
    """Keeps tasks; each is a chat job."""

    async def create(self, new: NewTask) -> Task:
        """Accept a task, all or nothing; the one there is where there is one of its id, with its answer.

        Raises QueueFull, IdempotencyConflict.
        """
        ...

    async def known(self, task_id: str, *, request_hash: bytes) -> Task | None:
        """The task which this request made, with its answer; None where there is none. Raises IdempotencyConflict."""
        ...

    async def get(self, task_id: str) -> Task:
        """The task, with its answer if there is one; raises TaskNotFound."""
        ...

    async def cancel(self, task_id: str) -> None:
        """End a task that is not finished; raises TaskNotFound."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A human is asked in a step of a run, about a call or a limit."""

    number: int
    new: NewApproval
    call_id: str = ""
    limit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingFor:
    """What a run begins to wait for, beside what it waits for already."""

    questions: Sequence[Asking] = ()
    delegations: Sequence[Delegation] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a run did so far, what it asked of humans, and what it handed on."""

    steps: Sequence[Step] = ()
    approvals: Sequence[Approval] = ()
    delegations: Sequence[Delegation] = ()


class RunWork(Protocol):
    """The journal of a run, written by its worker; every method raises FenceLost once the job is not its own."""

    @property
    def reserves(self) -> bool:
        """Whether what a model may take is to be kept before it is asked."""
        ...

    async def recorded(self, job: Job) -> Recorded:
        """How the run stands."""
        ...

    async def commit(self, job: Job, change: Change, *, answer_id: str, attempt: int) -> None:
        """Write a change, all of it or nothing; raises TenantBudgetExhausted where it reserves what is not there."""
        ...

    async def park(self, job: Job, change: Change, waiting: WaitingFor, *, answer_id: str, attempt: int) -> bool:
        """Write the change, ask and hand on, and let go of the job until somebody decides or delivers.

        False, and nothing is written, where that happened meanwhile and the run does not know of it yet.
        """
        ...

    async def finish(self, job: Job, change: Change, finished: FinishedTurn, *, answer_id: str, attempt: int) -> None:
        """Write the last change, keep the answer and complete the job: all of it or nothing."""
        ...

    async def leave(self, job: Job, step: Step) -> None:
        """Keep what a step took of a run that was cancelled meanwhile; nothing where it was not."""
        ...


class ApprovalStore(Protocol):
    """Keeps what runs ask of humans."""

    async def get(self, approval_id: str) -> Approval:
        """The approval; raises ApprovalNotFound."""
        ...

    async def page(
        self, *, after: Position | None, limit: int, state: ApprovalState, run_id: str = "", assignee: str = ""
    ) -> Sequence[Approval]:
        """At most `limit` approvals behind a position that stand so, those due first.

        Of one run, or of the tasks of a run of a crew or flow; for one who is asked, or anyone. Empty means all.
        """
        ...

    async def decide(self, approval_id: str, decision: Decision, *, etag: str) -> Approval:
        """Keep the decision, the caller's, and let the run go on: all or nothing; the same again changes nothing.

        Raises ApprovalNotFound, ApprovalDecided, and EtagMismatch unless `etag` is empty or the current one.
        """
        ...

    async def reassign(self, approval_id: str, assignee: str, *, etag: str) -> Approval:
        """Have somebody else asked; to whom it is assigned already changes nothing. Raises as `decide` does."""
        ...

    def watch(self, *, run_id: str, heartbeat: float) -> AsyncGenerator[Approval | None, None]:
        """Those pending, and then each that changes, for ever; None after each `heartbeat` quiet seconds."""
        ...


class DelegationStore(Protocol):
    """Keeps what runs handed on."""

    async def deliver(self, task_id: str, delegation_id: str, delivered: Delivered) -> None:
        """Keep what came of it, the first time, and let the run go on once all it handed on is delivered.

        Of a run that has ended nothing changes. Raises TaskNotFound.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DueAlarm:
    """An approval that is to be looked at, and for whom its run works."""

    tenant: str
    approval_id: str
    principal: str


class ApprovalAlarms(Protocol):
    """Knows which approvals, of any tenant, nobody decides."""

    async def due(self, *, limit: int) -> Sequence[DueAlarm]:
        """Those to be looked at now, at most `limit`."""
        ...

    async def ring(self, approval_id: str) -> Alarm | None:
        """Do what it is time for with an approval of the caller's tenant, once; None: nothing or not ours."""
        ...
