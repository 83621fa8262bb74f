"""What the use cases need of the world outside, each named for the need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from loremesh_kit.errors import FieldViolation

from loremesh_crew.domain.definitions import Crew, CrewAgent, Flow, RunLimits, ToolUse
from loremesh_crew.domain.machine import RunKind, TaskOutcome, TaskRequest


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

    async def create(self, task_id: str, request: TaskRequest, *, root_run_id: str) -> TaskStanding:
        """Have a task done.

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

    async def forget(self, run_id: str) -> None:
        """Forget the short-term memories of a run. Raises DependencyUnavailable."""
        ...
