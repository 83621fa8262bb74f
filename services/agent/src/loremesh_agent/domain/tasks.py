"""Tasks of crews and flows: what is asked for, and how it stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loremesh_agent.domain.chat_jobs import ChatJob
from loremesh_agent.domain.definitions import AgentDefinition, LimitPolicy, Limits
from loremesh_agent.domain.delegation import Coworker, Delegation
from loremesh_agent.domain.reviews import Review
from loremesh_agent.domain.tools import ToolUse

# What an agent that nobody keeps is called where it says nothing itself.
UNNAMED_AGENT = "inline"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReference:
    """A kept agent; revision 0 is the current one."""

    agent_id: str
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """A call of a tool without a model."""

    use: ToolUse
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOrder:
    """A task as it is asked for; `worker` is who does it, or the one call that it is."""

    task_id: str
    worker: AgentDefinition | AgentReference | Invocation
    message: str = ""
    root_run_id: str = ""
    name: str = ""
    # In place of the agent's; None: as it says. Of limits, those that are set.
    tools: tuple[ToolUse, ...] | None = None
    response_schema: Mapping[str, Any] | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    coworkers: tuple[Coworker, ...] = ()
    review: Review | None = None
    # Whose memories, in place of the agent's and of the conversation's; empty: those.
    memory_agent_id: str = ""
    memory_run_id: str = ""
    priority: int = 0
    # Whether the message holds what others than the caller wrote.
    untrusted: bool = False

    @property
    def invocation(self) -> Invocation | None:
        """The call it is, if it is one."""
        return self.worker if isinstance(self.worker, Invocation) else None

    @property
    def changes(self) -> frozenset[str]:
        """The fields of its agent in whose place it has its own."""
        given = {
            "tools": self.tools is not None,
            "response_schema": self.response_schema is not None,
            "limits": bool(self.limits),
        }
        return frozenset(name for name, is_given in given.items() if is_given)

    def changed(self, definition: AgentDefinition) -> AgentDefinition:
        """The agent as this task has it."""
        return replace(
            definition,
            tools=definition.tools if self.tools is None else self.tools,
            response_schema=definition.response_schema if self.response_schema is None else self.response_schema,
            limits=_limited(definition.limits, self.limits),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task as it stands; `approval_id` is what it waits for, if that is a human, `delegations` are those open."""

    id: str
    job: ChatJob
    approval_id: str = ""
    delegations: Sequence[Delegation] = ()
    # Whether it called a tool that changes something each time, or may have.
    changed: bool = False


def _limited(limits: Limits, changes: Mapping[str, Any]) -> Limits:
    limited = replace(limits, **changes)
    if limited.on_limit is not LimitPolicy.FALL_BACK and "fallback_model" not in changes:
        # What the agent falls back to is of no use to a task that does not.
        return replace(limited, fallback_model="")
    return limited
