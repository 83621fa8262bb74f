"""What keeps agents and their prompts."""

from collections.abc import Sequence
from typing import Protocol

from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.definitions import AgentDefinition
from loremesh_agent.domain.templates import KeptPrompt


class PromptLibrary(Protocol):
    """Keeps prompts."""

    async def find(self, name: str, *, version: int, language: str) -> KeptPrompt:
        """The prompt, its newest version for 0; raises PromptNotFound, PromptInvalid, DependencyUnavailable."""
        ...


class AgentStore(Protocol):
    """Keeps what agents were made and changed to. The built-in `default` is none of them until it is changed."""

    async def current(self, agent_id: str) -> AgentDefinition | None:
        """The agent as it is, None where there is none."""
        ...

    async def revision(self, agent_id: str, revision: int) -> AgentDefinition | None:
        """The agent as it was, though it may be deleted now; None where it never was."""
        ...

    async def held(self, conversation_id: str) -> tuple[str, AgentDefinition | None]:
        """The agent which a conversation is held with: its id, and as it is; raises ConversationNotFound."""
        ...

    async def page(self, *, after: str, limit: int) -> Sequence[AgentDefinition]:
        """At most `limit` agents whose id is behind `after`, by id, without `default`."""
        ...

    async def revisions(self, agent_id: str, *, before: int | None, limit: int) -> Sequence[AgentDefinition]:
        """At most `limit` revisions with a number below `before`, newest first."""
        ...

    async def create(self, definition: AgentDefinition) -> AgentDefinition:
        """Keep an agent that there is not, as its revision, or as the one after its last; raises AgentExists."""
        ...

    async def revise(self, definition: AgentDefinition, *, expected: int) -> AgentDefinition | None:
        """Keep an agent's next revision, or return None where `expected` is not the current one."""
        ...

    async def delete(self, agent_id: str) -> bool:
        """Delete it, but for its revisions; False where there is none."""
        ...


class AgentDirectory(Protocol):
    """Knows the agents."""

    async def get(self, agent_id: str, *, revision: int = 0, prompt_version: int = 0) -> Agent:
        """The agent as it is, or as it was, though it may be deleted now; empty means the default one.

        With `prompt_version` that version stands in for a prompt whose newest the agent takes: a run keeps what it
        began with. Raises AgentNotFound, AgentRevisionNotFound, ModelUnknown, ProviderNotConfigured, PromptNotFound,
        PromptInvalid, and DependencyUnavailable where prompts cannot be had.
        """
        ...

    async def held(self, conversation_id: str, *, agent_id: str = "") -> Agent:
        """The agent as it is which a conversation is held with; `agent_id`, if not empty, must be the same.

        Raises ConversationNotFound, AgentMismatch, and as `get`.
        """
        ...
