"""Agents, ready to answer."""

from loremesh_agent.domain import agents
from loremesh_agent.domain.agents import BUILT_IN, DEFAULT_AGENT, Agent, PinnedPrompt
from loremesh_agent.domain.definitions import AgentDefinition
from loremesh_agent.domain.templates import render
from loremesh_agent.errors import AgentMismatch, AgentNotFound, AgentRevisionNotFound
from loremesh_agent.ports import AgentStore, Models, PromptLibrary


class Directory:
    """Knows the agents, ready to answer; see ports.AgentDirectory."""

    def __init__(self, *, store: AgentStore, models: Models, prompts: PromptLibrary) -> None:
        self._store = store
        self._models = models
        self._prompts = prompts

    async def get(self, agent_id: str, *, revision: int = 0, prompt_version: int = 0) -> Agent:
        """See ports.AgentDirectory."""
        definition = await self.definition(agent_id or DEFAULT_AGENT, revision=revision)
        return await self.ready(definition, prompt_version=prompt_version)

    async def definition(self, agent_id: str, *, revision: int = 0) -> AgentDefinition:
        """The agent as it is, or as it was; raises AgentNotFound, AgentRevisionNotFound."""
        if not revision:
            return existing(agent_id, await self._store.current(agent_id))
        definition = await self._store.revision(agent_id, revision) or built_in(agent_id, revision)
        if definition is None:
            raise AgentRevisionNotFound(agent_id, revision)
        return definition

    async def held(self, conversation_id: str, *, agent_id: str = "") -> Agent:
        """See ports.AgentDirectory."""
        held_with, definition = await self._store.held(conversation_id)
        if agent_id not in ("", held_with):
            raise AgentMismatch(held_with)
        return await self.ready(existing(held_with, definition))

    async def ready(self, definition: AgentDefinition, *, prompt_version: int = 0) -> Agent:
        """The agent of a definition; raises as `get`."""
        profile, pinned = self._models.profile(definition.model), None
        wording, asked_for = profile.wording, definition.prompt
        if asked_for is not None:
            kept = await self._prompts.find(
                asked_for.name, version=asked_for.version or prompt_version, language=asked_for.language
            )
            wording = wording.instructed(render(kept.text, asked_for.variables), refusal=kept.refusal)
            pinned = PinnedPrompt(name=kept.name, version=kept.version, language=kept.language)
        elif definition.system_prompt:
            wording = wording.instructed(definition.system_prompt)
        return agents.ready(definition, profile=profile, wording=wording, prompt=pinned)


def existing(agent_id: str, found: AgentDefinition | None) -> AgentDefinition:
    """What was found of an agent, or what is built in; raises AgentNotFound."""
    definition = found or built_in(agent_id, BUILT_IN.revision)
    if definition is None:
        raise AgentNotFound(agent_id)
    return definition


def built_in(agent_id: str, revision: int) -> AgentDefinition | None:
    """A revision which nobody made."""
    return BUILT_IN if (agent_id, revision) == (DEFAULT_AGENT, BUILT_IN.revision) else None
