"""Agents: made, read, changed, deleted."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from loremesh_kit.errors import EtagMismatch, FieldViolation
from loremesh_kit.ids import new_id
from loremesh_kit.pages import Position

from loremesh_agent.domain import validation
from loremesh_agent.domain.agents import BUILT_IN, DEFAULT_AGENT
from loremesh_agent.domain.definitions import AgentDefinition
from loremesh_agent.domain.prices import KnownProvider
from loremesh_agent.domain.tools import ToolSpec
from loremesh_agent.engine.directory import built_in, existing
from loremesh_agent.engine.vetting import Vetting
from loremesh_agent.errors import AgentExists, AgentNotFound, AgentRevisionNotFound
from loremesh_agent.ports import AgentStore, ProviderCatalogue, Toolbox

# How often a change is made anew because another came between.
_TRIES = 10


class AgentEngine:
    """The use cases of AgentService."""

    def __init__(
        self,
        *,
        store: AgentStore,
        vetting: Vetting,
        toolbox: Toolbox,
        providers: ProviderCatalogue,
    ) -> None:
        self._store = store
        self._vetting = vetting
        self._toolbox = toolbox
        self._providers = providers

    async def create(self, definition: AgentDefinition) -> AgentDefinition:
        """Keep a new agent, with an id of ours where it has none; raises AgentExists, and what is wrong with it."""
        if definition.id == DEFAULT_AGENT:
            raise AgentExists(DEFAULT_AGENT)
        definition = replace(definition, id=definition.id or new_id(), revision=1)
        await self._vetting.check(definition)
        return await self._store.create(definition)

    async def get(self, agent_id: str, *, revision: int = 0) -> AgentDefinition:
        """The agent as it is, or as it was; raises AgentNotFound, AgentRevisionNotFound."""
        current = existing(agent_id, await self._store.current(agent_id))
        if revision in (0, current.revision):
            return current
        past = await self._store.revision(agent_id, revision) or built_in(agent_id, revision)
        if past is None:
            raise AgentRevisionNotFound(agent_id, revision)
        return past

    async def page(self, *, after: Position | None, limit: int) -> Sequence[AgentDefinition]:
        """At most `limit`, 2 or more: `default`, then by id."""
        if after is not None:
            return await self._store.page(after="" if after.id == DEFAULT_AGENT else after.id, limit=limit)
        return [await self.get(DEFAULT_AGENT), *await self._store.page(after="", limit=limit - 1)]

    async def update(
        self, agent_id: str, change: Callable[[AgentDefinition], AgentDefinition], *, etag: str
    ) -> AgentDefinition:
        """What `change` makes of the agent, as its next revision; the current one where that is the same.

        Raises AgentNotFound, EtagMismatch, and what is wrong with it.
        """
        for _ in range(_TRIES):
            current = await self.get(agent_id)
            if etag not in ("", current.etag):
                raise EtagMismatch
            wanted = replace(
                change(current),
                id=agent_id,
                revision=current.revision,
                create_time=current.create_time,
                update_time=current.update_time,
            )
            if wanted == current:
                return current
            await self._vetting.check(wanted)
            kept = await self._keep_next(wanted)
            if kept is not None:
                return kept
        raise EtagMismatch

    async def delete(self, agent_id: str) -> None:
        """Delete it; `default` is as it was built in. Raises AgentNotFound."""
        if not await self._store.delete(agent_id) and agent_id != DEFAULT_AGENT:
            raise AgentNotFound(agent_id)

    async def revisions(self, agent_id: str, *, before: int | None, limit: int) -> Sequence[AgentDefinition]:
        """At most `limit`, newest first; raises AgentNotFound."""
        await self.get(agent_id)
        found = list(await self._store.revisions(agent_id, before=before, limit=limit))
        if agent_id == DEFAULT_AGENT and len(found) < limit and (before is None or before > BUILT_IN.revision):
            found.append(BUILT_IN)
        return found

    async def rollback(self, agent_id: str, *, revision: int, etag: str) -> AgentDefinition:
        """Make an old revision the next one; raises AgentRevisionNotFound, and as `update`."""
        past = await self.get(agent_id, revision=revision)
        return await self.update(agent_id, lambda _: past, etag=etag)

    async def violations(self, definition: AgentDefinition) -> Sequence[FieldViolation]:
        """All that is wrong with an agent, as `create` would say it."""
        return validation.violations_of(await self._vetting.faults(definition))

    async def tools(self) -> Sequence[ToolSpec]:
        """By name."""
        return await self._toolbox.specs()

    def providers(self) -> Sequence[KnownProvider]:
        """By name."""
        return self._providers.known()

    async def _keep_next(self, definition: AgentDefinition) -> AgentDefinition | None:
        """None where another change came between."""
        if definition.create_time is not None:
            return await self._store.revise(definition, expected=definition.revision)
        try:
            return await self._store.create(replace(definition, revision=BUILT_IN.revision + 1))
        except AgentExists:
            return None
