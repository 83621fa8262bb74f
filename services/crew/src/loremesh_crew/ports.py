"""What the use cases need of the world outside, each named for the need."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from loremesh_kit.errors import FieldViolation
from loremesh_kit.eventlog import Event as LogEvent
from loremesh_kit.pages import Position
from loremesh_kit.postgres import Row
from psycopg import AsyncConnection

from loremesh_crew.domain.definitions import Crew, CrewAgent, Flow, RunLimits, ToolUse
from loremesh_crew.domain.machine import (
    Command,
    Event,
    Machine,
    Pinned,
    RunKind,
    RunStatus,
    StartTask,
    TaskOutcome,
    TaskRequest,
    Tell,
    Usage,
    View,
)

Machines = Mapping[tuple[RunKind, int], Machine[Any]]


class Library(Protocol):
    """The crews and flows there are, those built in among them."""

    async def crew(self, crew_id: str, *, revision: int = 0) -> Crew:
        """The crew as it is, or as it was, though it may be deleted now; raises CrewNotFound, CrewRevisionNotFound."""
        ...

    async def flow(self, flow_id: str, *, revision: int = 0) -> Flow:
        """The same of flows; raises FlowNotFound, FlowRevisionNotFound."""
        ...


class DefinitionStore(Protocol):
    """Keeps definitions of one kind with their revisions; `D` is Crew or Flow."""

    async def current(self, definition_id: str) -> Any | None:
        """As it is; None where there is none."""
        ...

    async def revision(self, definition_id: str, revision: int) -> Any | None:
        """As it was, though it may be deleted now."""
        ...

    async def page(self, *, after: str, limit: int) -> Sequence[Any]:
        """At most `limit` whose ids come after one, by id."""
        ...

    async def revisions(self, definition_id: str, *, before: int | None, limit: int) -> Sequence[Any]:
        """At most `limit` revisions older than one, newest first."""
        ...

    async def create(self, definition: Any) -> Any:
        """Keep it as its first revision, or where it was deleted as the next; raises CrewExists or FlowExists."""
        ...

    async def revise(self, definition: Any, *, expected: int) -> Any | None:
        """Keep its next revision; None where the current one is not the one expected."""
        ...

    async def delete(self, definition_id: str) -> bool:
        """Delete it, but for its revisions; False where there is none."""
        ...


class AgentRegistry(Protocol):
    """Knows the agents of the mesh, their tools and models."""

    async def faults(
        self, agent: CrewAgent, *, tools: Sequence[ToolUse] = (), output_schema: Mapping[str, Any] | None = None
    ) -> Sequence[FieldViolation]:
        """What is wrong with an agent of these fields, or with `tools` or answers of `output_schema` for it.

        Fields are those of CrewAgent, `tools[n]` and `output_schema`. Raises DependencyUnavailable.
        """
        ...

    async def revision(self, agent_id: str, *, revision: int = 0) -> int | None:
        """The number of its current revision, or `revision` where there is that; None where there is neither.

        Raises DependencyUnavailable.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be started: what it is of, and with what."""

    kind: RunKind
    definition_id: str
    revision: int
    inputs: Mapping[str, Any]
    limits: RunLimits


class Kickoffs(Protocol):
    """Starts runs. Idempotent by the caller's key: the servicer's transaction joins these."""

    async def start(self, runs: Sequence[NewRun]) -> Sequence[str]:
        """Accept runs, all or none; their ids.

        Raises CrewNotFound, CrewRevisionNotFound, FlowNotFound, FlowRevisionNotFound, InputMissing, InputInvalid,
        VariableInvalid, AgentUnknown, RunsFull.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedDelegation:
    """Work that an agent hands on."""

    id: str
    coworker: str
    description: str
    context: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStanding:
    """How a task of the agent service stands; `outcome` None while it is not finished."""

    task_id: str
    agent_run_id: str
    outcome: TaskOutcome | None = None
    # Whether it waits, and for which approval, if for one.
    waits: bool = False
    approval_id: str = ""
    delegations: tuple[AskedDelegation, ...] = ()


class AgentTasks(Protocol):
    """Has tasks done by the agent service; all of it may be repeated."""

    async def create(self, task_id: str, request: TaskRequest, *, root_run_id: str, wait: float = 0.0) -> TaskStanding:
        """Have a task done; an end within `wait` seconds is in the answer, and may be told of nowhere else.

        Raises TaskRefused where it never will be, DependencyUnavailable or a retryable error where it may later.
        """
        ...

    async def get(self, task_id: str) -> TaskStanding | None:
        """How it stands; None where there is none of this id. Raises DependencyUnavailable."""
        ...

    async def cancel(self, task_id: str) -> None:
        """Stop it; nothing where it is finished or was never begun. Raises DependencyUnavailable."""
        ...

    async def answer(self, task_id: str, delegation_id: str, *, output: str, reason: str) -> None:
        """Tell it what came of work it handed on. Raises DependencyUnavailable."""
        ...

    async def forget(self, run_id: str, *, agent_ids: Collection[str]) -> None:
        """Forget the short-term memories of a run that agents of these ids have. Raises DependencyUnavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as it is kept; `state` is its machine's."""

    pinned: Pinned
    state: Any
    engine_version: int
    status: RunStatus
    name: str
    principal: str
    revision: int
    definition_id: str = ""
    decisions: int = 0
    last_seq: int = 0
    parent_run_id: str = ""
    parent_state: str = ""
    forked_from: str = ""
    forked_after_seq: int = 0
    create_time: datetime
    finish_time: datetime | None = None
    expire_time: datetime | None = None

    @property
    def id(self) -> str:
        """Its id."""
        return self.pinned.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecord:
    """A run to be kept, before its machine has seen it."""

    pinned: Pinned
    name: str
    principal: str
    definition_id: str
    revision: int
    parent_run_id: str = ""
    parent_state: str = ""
    forked_from: str = ""
    forked_after_seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRun:
    """A run in a list: without its state."""

    pinned: Pinned
    engine_version: int
    status: RunStatus
    name: str
    revision: int
    definition_id: str
    last_seq: int
    output: str = ""
    reason: str = ""
    message: str = ""
    usage: Usage = field(default_factory=Usage)
    parent_run_id: str = ""
    parent_state: str = ""
    forked_from: str = ""
    forked_after_seq: int = 0
    create_time: datetime
    finish_time: datetime | None = None
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An event, and what was decided on it."""

    event: Event
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDecision:
    """A decision as it is kept: `commands` in JSON, as they are compared; `last_seq` of the log after it."""

    number: int
    event: Event
    commands: Sequence[Mapping[str, Any]]
    last_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Where a command is found: the decision's number in the run, and the command's index in it."""

    run_id: str
    number: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTask:
    """A task to begin; not `wanted`: it has ended or was cancelled meanwhile."""

    command: StartTask
    root_run_id: str
    wanted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInFlight:
    """A task nobody said anything of for a while."""

    tenant: str
    principal: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What came of decisions on a run."""

    # As it was.
    run: RunRecord
    state: Any
    view: View
    decisions: Sequence[Decision]
    # Tasks no longer in flight.
    ended: Sequence[str] = ()
    # Its last event, where it has ended, and when that was.
    terminal: Tell | None = None
    finish_time: datetime | None = None
    # Whether short-term memories are to be forgotten.
    forgets: bool = False
    # Commands are kept but not carried out.
    discarded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A command of an earlier decision; `delay` in seconds from now, of timers."""

    errand: Errand
    command: Command
    delay: float = 0.0


class RunStore(Protocol):
    """Keeps runs, the decisions on them, and which of their tasks are in flight."""

    async def lock(self, connection: AsyncConnection[Row], run_id: str) -> RunRecord | None:
        """The run, which nobody else changes until the transaction ends."""
        ...

    async def insert(self, connection: AsyncConnection[Row], run: RunRecord) -> bool:
        """Keep a new run; False where there is one of its id."""
        ...

    async def write(self, connection: AsyncConnection[Row], change: "Change") -> None:
        """Write a change, with its commands as jobs and its events."""
        ...

    async def issue(self, connection: AsyncConnection[Row], run: RunRecord, due: "Sequence[Due]") -> None:
        """Have commands of earlier decisions carried out."""
        ...

    async def forget_tasks(self, connection: AsyncConnection[Row], task_ids: Sequence[str]) -> None:
        """They are no longer in flight."""
        ...

    async def command(self, errand: Errand) -> Command | None:
        """A command to carry out; None where its run is gone."""
        ...

    async def wanted(self, errand: Errand) -> WantedTask | None:
        """The same of a StartTask."""
        ...

    async def begun(self, connection: AsyncConnection[Row], task_id: str) -> bool:
        """Note that the agent service has a task; False where it is not wanted any more."""
        ...

    async def cancelled(self, task_id: str) -> None:
        """Note that a task is not wanted any more."""
        ...

    async def unheard(self, *, seconds: float, limit: int) -> Sequence[TaskInFlight]:
        """Tasks of all tenants that were not asked after for so long; they count as asked from now on."""
        ...

    async def meet(self, connection: AsyncConnection[Row], run_id: str) -> None:
        """Be alone with a run that may not be there yet, until the transaction ends."""
        ...


class RunViews(Protocol):
    """Reads what is kept of runs."""

    async def get(self, run_id: str) -> RunRecord:
        """The run; raises RunNotFound, EngineVersionUnknown."""
        ...

    async def standing(self, run_id: str) -> tuple[RunStatus, int]:
        """Where it stands, and the seq of its last event; raises RunNotFound."""
        ...

    async def page(
        self, *, after: Position | None, limit: int, definition_id: str, status: RunStatus | None, children: bool
    ) -> Sequence[ListedRun]:
        """At most `limit`, newest first."""
        ...

    async def tree(self, root_run_id: str, *, limit: int) -> Sequence[RunRecord]:
        """At most `limit` of the runs below a root, itself among them, oldest first."""
        ...

    async def crews(self, root_run_id: str) -> Sequence[Crew]:
        """The crews of a root and of all runs below it, each once."""
        ...

    async def history(self, run_id: str, *, after: int, limit: int) -> Sequence[KeptDecision]:
        """Decisions behind a number, in order."""
        ...

    async def events(self, run_id: str, *, after_seq: int, limit: int) -> Sequence[LogEvent]:
        """Events of its log."""
        ...

    async def at_work(self, *, limit: int) -> int:
        """How many runs without parents are not finished, counted up to `limit`."""
        ...

    async def purge(self) -> int:
        """Delete runs whose days are over; how many."""
        ...
