"""What stands in for the outside in tests: it keeps what the real ones keep, for as long as the process lives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loremesh_kit import identity
from loremesh_kit.clock import Clock
from loremesh_kit.errors import FieldViolation, ServiceError

from loremesh_crew.domain.definitions import CrewAgent, ToolUse


class MemoryDefinitions:
    """Definitions of one kind; see ports.DefinitionStore."""

    def __init__(self, *, clock: Clock, exists: Callable[[str], ServiceError]) -> None:
        """`exists` makes the error for an id that is taken."""
        self._clock = clock
        self._exists = exists
        self._revisions: dict[tuple[str, str], list[Any]] = {}
        self._deleted: set[tuple[str, str]] = set()

    async def current(self, definition_id: str) -> Any | None:
        """See ports.DefinitionStore."""
        key = _key(definition_id)
        return self._revisions[key][-1] if key in self._revisions and key not in self._deleted else None

    async def revision(self, definition_id: str, revision: int) -> Any | None:
        """See ports.DefinitionStore."""
        kept = self._revisions.get(_key(definition_id), [])
        return next((each for each in kept if each.revision == revision), None)

    async def page(self, *, after: str, limit: int) -> Sequence[Any]:
        """See ports.DefinitionStore."""
        tenant = identity.current().tenant
        kept = [
            revisions[-1]
            for key, revisions in sorted(self._revisions.items())
            if key[0] == tenant and key[1] > after and key not in self._deleted
        ]
        return kept[:limit]

    async def revisions(self, definition_id: str, *, before: int | None, limit: int) -> Sequence[Any]:
        """See ports.DefinitionStore."""
        kept = reversed(self._revisions.get(_key(definition_id), []))
        return [each for each in kept if before is None or each.revision < before][:limit]

    async def create(self, definition: Any) -> Any:
        """See ports.DefinitionStore."""
        key = _key(definition.id)
        if key in self._revisions and key not in self._deleted:
            raise self._exists(definition.id)
        self._deleted.discard(key)
        now = self._clock.now()
        return self._keep(replace(definition, create_time=now, update_time=now))

    async def revise(self, definition: Any, *, expected: int) -> Any | None:
        """See ports.DefinitionStore."""
        current = await self.current(definition.id)
        if current is None or current.revision != expected:
            return None
        return self._keep(replace(definition, create_time=current.create_time, update_time=self._clock.now()))

    async def delete(self, definition_id: str) -> bool:
        """See ports.DefinitionStore."""
        if await self.current(definition_id) is None:
            return False
        self._deleted.add(_key(definition_id))
        return True

    def _keep(self, definition: Any) -> Any:
        kept = self._revisions.setdefault(_key(definition.id), [])
        kept.append(replace(definition, revision=len(kept) + 1, built_in=False))
        return kept[-1]


class MemoryAgents:
    """Agents, tools and models by their names; see ports.AgentRegistry."""

    def __init__(
        self, *, tools: Sequence[str] = (), models: Sequence[str] = (), agents: Mapping[str, int] | None = None
    ) -> None:
        """`agents` are current revisions by id."""
        self._tools = frozenset(tools)
        self._models = frozenset(models)
        self._agents = agents or {}
        # What was asked for, for those who count.
        self.asked: list[CrewAgent] = []

    async def faults(
        self, agent: CrewAgent, *, tools: Sequence[ToolUse] = (), output_schema: Mapping[str, Any] | None = None
    ) -> Sequence[FieldViolation]:
        """See ports.AgentRegistry."""
        del output_schema
        self.asked.append(agent)
        found = []
        if agent.model and agent.model not in self._models:
            found.append(FieldViolation("model", f"There is no model {agent.model!r}.", "MODEL_UNKNOWN"))
        for i, use in enumerate(tools or agent.tools):
            if use.name not in self._tools:
                found.append(FieldViolation(f"tools[{i}].name", f"There is no tool {use.name!r}.", "TOOL_NOT_FOUND"))
        return found

    async def revision(self, agent_id: str, *, revision: int = 0) -> int | None:
        """See ports.AgentRegistry."""
        current = self._agents.get(agent_id)
        if current is None or revision > current:
            return None
        return revision or current


def _key(definition_id: str) -> tuple[str, str]:
    return identity.current().tenant, definition_id
