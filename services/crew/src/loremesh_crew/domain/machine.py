"""What a run's decisions are made of: events in, commands out, and the two kinds of machine between them.

A machine is pure and deterministic: the same run, state and event give the same state and commands, on any machine and
in any year. Everything it may know comes with them, the time too. What it remembers is its state, a frozen dataclass of
plain values that goes through JSON and back unchanged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from loremesh_crew.domain.definitions import Crew, Flow, HumanInput, RunLimits, ToolUse


class RunKind(StrEnum):
    """What a run is of."""

    CREW = "CREW"
    FLOW = "FLOW"


class RunStatus(StrEnum):
    """Where a run stands."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    INTERRUPTED = "INTERRUPTED"
    CANCELLING = "CANCELLING"
    COMPLETED = "COMPLETED"
    INCOMPLETE = "INCOMPLETE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @property
    def finished(self) -> bool:
        """Whether nothing comes after it."""
        return self in _FINISHED


_FINISHED = frozenset(
    {RunStatus.COMPLETED, RunStatus.INCOMPLETE, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.EXPIRED}
)


class TaskStatus(StrEnum):
    """Where a task stands."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    WAITING = "WAITING"
    RETRYING = "RETRYING"
    COMPLETED = "COMPLETED"
    INCOMPLETE = "INCOMPLETE"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What something took, as in chat.proto."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    cost_micros: int = 0
    steps: int = 0
    tool_calls: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Both together."""
        return Usage(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(Usage)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """What a run has from its start to its end."""

    run_id: str
    root_run_id: str
    kind: RunKind
    # As they were when it started; of a crew without an id, an agent's single task in a flow.
    crew: Crew | None = None
    flow: Flow | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    # The definition's and the caller's together: the smaller of each.
    limits: RunLimits = field(default_factory=RunLimits)
    # Revisions of all that it may come to, by `crew:ID`, `flow:ID` and `agent:ID`.
    pins: Mapping[str, int] = field(default_factory=dict)
    # How many runs are above it.
    depth: int = 0
    # Of a fork, for what begins below it: a model in place of its agents', and descriptions by `STATE/TASK`.
    model: str = ""
    descriptions: Mapping[str, str] = field(default_factory=dict)


# Of tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """An agent that nobody keeps, as a task brings it along."""

    id: str
    system_prompt: str
    model: str = ""
    temperature: float | None = None
    tools: tuple[ToolUse, ...] = ()
    recall: bool = False
    extract: bool = False
    max_memories: int = 0
    memory_ttl_seconds: float | None = None
    memory_embeddings: bool | None = None
    top_k_documents: int = 0
    vector_store_ids: tuple[str, ...] = ()
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReference:
    """An agent that is kept."""

    agent_id: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolInvocation:
    """A call of a tool without a model."""

    tool: ToolUse
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimits:
    """Limits of a task; zero and None: as the installation says."""

    max_steps: int = 0
    max_tokens: int = 0
    max_cost_micros: int = 0
    max_tool_calls: int = 0
    max_seconds: float | None = None
    max_rpm: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """What the agent service is asked to do; see CreateTaskRequest in task.proto. Exactly one worker is set."""

    name: str
    message: str = ""
    agent: AgentSpec | None = None
    reference: AgentReference | None = None
    invocation: ToolInvocation | None = None
    # None: the agent's own.
    tools: tuple[ToolUse, ...] | None = None
    response_schema: Mapping[str, Any] | None = None
    limits: TaskLimits = field(default_factory=TaskLimits)
    # Names and roles.
    coworkers: tuple[tuple[str, str], ...] = ()
    review: HumanInput | None = None
    memory_agent_id: str = ""
    memory_run_id: str = ""
    priority: int = 0
    # Whether the message holds what others than the run's caller wrote.
    untrusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOutcome:
    """How a task ended: COMPLETED, INCOMPLETE, FAILED or CANCELLED."""

    status: TaskStatus
    output: str = ""
    output_json: Mapping[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    # As Source in chat.proto, in JSON.
    sources: tuple[Mapping[str, Any], ...] = ()
    reason: str = ""
    message: str = ""
    retryable: bool = False
    agent_run_id: str = ""


# Events


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something a machine decides on."""

    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """The run begins; always the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnded(Event):
    """A task ended, or could not be begun."""

    task_id: str
    outcome: TaskOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWaits(Event):
    """A task waits for a human."""

    task_id: str
    approval_id: str
    agent_run_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResumes(Event):
    """A human decided."""

    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationAsked(Event):
    """The agent of a task hands work on."""

    task_id: str
    delegation_id: str
    coworker: str
    description: str
    context: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired(Event):
    """A timer is over."""

    timer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnded(Event):
    """A child run ended."""

    child_run_id: str
    status: RunStatus
    output: str = ""
    output_json: Mapping[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalCame(Event):
    """Somebody outside sent a signal."""

    signal: str
    signal_id: str
    payload: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelAsked(Event):
    """The run is to end as CANCELLED."""

    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseAsked(Event):
    """Nothing new is to begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeAsked(Event):
    """It is to go on."""


# Commands


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTask:
    """Have a task done; its end comes as TaskEnded."""

    # `RUN_ID.N`, N counted by the machine.
    task_id: str
    request: TaskRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTask:
    """Stop a task; its end still comes as TaskEnded."""

    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDelegation:
    """Tell a task what came of work it handed on."""

    task_id: str
    delegation_id: str
    output: str = ""
    # Why nothing did; empty where something did.
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTimer:
    """Say TimerFired after so many seconds; one that is no longer of use is let fire."""

    timer: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StartChild:
    """Begin a run below this one; its end comes as ChildEnded."""

    # `RUN_ID.N`, as for tasks.
    child_run_id: str
    state: str
    kind: RunKind
    # Empty with `crew`.
    definition_id: str = ""
    revision: int = 0
    crew: Crew | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    limits: RunLimits = field(default_factory=RunLimits)


@dataclass(frozen=True, slots=True, kw_only=True)
class SteerChild:
    """Cancel, pause or resume a child run."""

    child_run_id: str
    # `cancel`, `pause` or `resume`.
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Write an event to the run's log; terminal events are written by whoever runs the machine."""

    # The field's name in RunEvent, and the payload as proto JSON with the proto's own field names.
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    attempt: int = 1


Command = StartTask | CancelTask | AnswerDelegation | StartTimer | StartChild | SteerChild | Tell


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a run ended."""

    status: RunStatus
    output: str = ""
    output_json: Mapping[str, Any] | None = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """A task as readers see it; see TaskResult in run.proto."""

    name: str
    agent: str = ""
    status: TaskStatus = TaskStatus.PENDING
    output: str = ""
    output_json: Mapping[str, Any] | None = None
    attempts: int = 0
    usage: Usage = field(default_factory=Usage)
    reason: str = ""
    message: str = ""
    start_time: datetime | None = None
    finish_time: datetime | None = None
    agent_run_id: str = ""
    child_run_id: str = ""
    model: str = ""
    sources: tuple[Mapping[str, Any], ...] = ()
    approval_id: str = ""
    delegated_by: str = ""
    visit: int = 0
    description: str = ""
    # Name of the file it is offered as; empty for none.
    file: str = ""
    # Names of those it waits for, for drawing.
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A run as readers see it."""

    status: RunStatus
    tasks: tuple[TaskView, ...]
    usage: Usage
    output: str = ""
    output_json: Mapping[str, Any] | None = None
    reason: str = ""
    message: str = ""
    # Of flows.
    variables: Mapping[str, Any] = field(default_factory=dict)
    current_state: str = ""
    # Reports of transitions, oldest first: proto JSON of TransitionReport.
    reports: tuple[Mapping[str, Any], ...] = ()


class MachineState(Protocol):
    """What every state has."""

    @property
    def end(self) -> End | None:
        """How the run ended; None before."""
        ...

    @property
    def status(self) -> RunStatus:
        """Where it stands."""
        ...


S = TypeVar("S", bound=MachineState)


class Machine(Protocol[S]):
    """Decides runs of one kind. An event that means nothing (late, doubled, unknown) changes nothing."""

    # Of the decisions: a change of what is decided is a new version beside the old one.
    version: int
    # The dataclass its state is.
    state: type[S]

    def begin(self, run: Pinned) -> S:
        """The state before Started."""
        ...

    def decide(self, run: Pinned, state: S, event: Event) -> tuple[S, Sequence[Command]]:
        """The state after an event, and what is to be done."""
        ...

    def view(self, run: Pinned, state: S) -> View:
        """What readers are shown."""
        ...
