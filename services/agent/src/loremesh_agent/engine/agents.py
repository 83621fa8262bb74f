"""Agents: made, read, changed, deleted, and made ready to answer."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from loremesh_kit.errors import EtagMismatch
from loremesh_kit.ids import new_id
from loremesh_kit.pages import Position

from loremesh_agent.domain import agents, prompts, validation
from loremesh_agent.domain.agents import BUILT_IN, DEFAULT_AGENT, DEFAULT_VECTOR_STORE, Agent, PinnedPrompt
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.definitions import AgentDefinition, LimitPolicy
from loremesh_agent.domain.templates import render
from loremesh_agent.domain.tools import ToolSpec
from loremesh_agent.domain.validation import Fault
from loremesh_agent.errors import (
    AgentExists,
    AgentInvalid,
    AgentMismatch,
    AgentNotFound,
    AgentRevisionNotFound,
    MessageTooLong,
    ModelUnknown,
    PromptInvalid,
    PromptNotFound,
    ProviderNotConfigured,
    VectorStoreNotFound,
)
from loremesh_agent.ports import (
    AgentStore,
    KnownProvider,
    Models,
    PromptLibrary,
    ProviderCatalogue,
    Toolbox,
    VectorStoreRegistry,
)

# How often a change is made anew because another came between.
_TRIES = 10
_MILLION = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
# Some 100 tokens: an agent that cannot be asked as much is of no use.
_A_QUESTION = "word " * 80


class Directory:
    """Knows the agents, ready to answer; see ports.AgentDirectory."""

    def __init__(self, *, store: AgentStore, models: Models, prompts: PromptLibrary) -> None:
        self._store = store
        self._models = models
        self._prompts = prompts

    async def get(self, agent_id: str, *, revision: int = 0, prompt_version: int = 0) -> Agent:
        """See ports.AgentDirectory."""
        agent_id = agent_id or DEFAULT_AGENT
        if revision:
            definition = await self._store.revision(agent_id, revision) or _built_in(agent_id, revision)
            if definition is None:
                raise AgentRevisionNotFound(agent_id, revision)
        else:
            definition = _existing(agent_id, await self._store.current(agent_id))
        return await self.ready(definition, prompt_version=prompt_version)

    async def held(self, conversation_id: str, *, agent_id: str = "") -> Agent:
        """See ports.AgentDirectory."""
        held_with, definition = await self._store.held(conversation_id)
        if agent_id not in ("", held_with):
            raise AgentMismatch(held_with)
        return await self.ready(_existing(held_with, definition))

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


class AgentEngine:
    """The use cases of AgentService."""

    def __init__(
        self,
        *,
        store: AgentStore,
        directory: Directory,
        models: Models,
        toolbox: Toolbox,
        providers: ProviderCatalogue,
        vector_stores: VectorStoreRegistry,
    ) -> None:
        self._store = store
        self._directory = directory
        self._models = models
        self._toolbox = toolbox
        self._providers = providers
        self._vector_stores = vector_stores

    async def create(self, definition: AgentDefinition) -> AgentDefinition:
        """Keep a new agent, with an id of ours where it has none; raises AgentExists, and what is wrong with it."""
        if definition.id == DEFAULT_AGENT:
            raise AgentExists(DEFAULT_AGENT)
        definition = replace(definition, id=definition.id or new_id(), revision=1)
        await self._check(definition)
        return await self._store.create(definition)

    async def get(self, agent_id: str, *, revision: int = 0) -> AgentDefinition:
        """The agent as it is, or as it was; raises AgentNotFound, AgentRevisionNotFound."""
        current = _existing(agent_id, await self._store.current(agent_id))
        if revision in (0, current.revision):
            return current
        past = await self._store.revision(agent_id, revision) or _built_in(agent_id, revision)
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
            await self._check(wanted)
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

    async def _check(self, definition: AgentDefinition) -> None:
        """Raise what is wrong with it, all of it at once."""
        tools = {spec.name for spec in await self._toolbox.specs()} if definition.tools else frozenset[str]()
        models = self._model_faults(definition)
        is_model_known = all(fault.field != "model" for fault in models)
        found = [
            *models,
            *await self._instruction_faults(definition, is_model_known=is_model_known),
            *await self._store_faults(definition),
            *validation.faults(definition, tools=tools),
        ]
        if found:
            raise validation.refusal(found)

    def _model_faults(self, definition: AgentDefinition) -> list[Fault]:
        limits = definition.limits
        named = [
            ("model", definition.model),
            *((f"fallback_models[{i}]", model) for i, model in enumerate(definition.fallback_models)),
            ("limits.fallback_model", limits.fallback_model),
        ]
        found = [fault for field, model in named if model and (fault := self._model_fault(field, model))]
        if not found and limits.on_limit is LimitPolicy.FALL_BACK and self._is_dearer(definition):
            problem = f"{limits.fallback_model!r} is not cheaper than the model it takes over from."
            found.append(Fault("limits.fallback_model", AgentInvalid(problem)))
        return found

    def _model_fault(self, field: str, model: str) -> Fault | None:
        try:
            self._models.profile(model)
        except (ModelUnknown, ProviderNotConfigured) as error:
            return Fault(field, error)
        return None

    def _is_dearer(self, definition: AgentDefinition) -> bool:
        """Whether the model that is to save money is known not to."""
        instead, model = definition.limits.fallback_model, self._models.profile(definition.model).model
        if not instead or instead == model:
            return False
        costs = self._models.cost(instead, _MILLION), self._models.cost(model, _MILLION)
        return costs[0] is not None and costs[1] is not None and costs[0] >= costs[1]

    async def _instruction_faults(self, definition: AgentDefinition, *, is_model_known: bool) -> list[Fault]:
        field = "prompt" if definition.prompt else "system_prompt"
        try:
            agent = await self._directory.ready(definition if is_model_known else replace(definition, model=""))
            prompts.check(agent, question=_A_QUESTION)
        except PromptNotFound as error:
            return [Fault("prompt", error)]
        except PromptInvalid as error:
            return [Fault("prompt.variables", error)]
        except MessageTooLong:
            # Of a model that is not known nobody can tell how much it reads.
            problem = "The instructions leave the model no room for a question."
            return [Fault(field, AgentInvalid(problem))] if is_model_known else []
        return []

    async def _store_faults(self, definition: AgentDefinition) -> list[Fault]:
        named = definition.vector_store_ids
        missing = await self._vector_stores.missing({*named} - {DEFAULT_VECTOR_STORE})
        return [
            Fault(f"vector_store_ids[{i}]", VectorStoreNotFound(each)) for i, each in enumerate(named) if each in missing
        ]


def _existing(agent_id: str, found: AgentDefinition | None) -> AgentDefinition:
    definition = found or _built_in(agent_id, BUILT_IN.revision)
    if definition is None:
        raise AgentNotFound(agent_id)
    return definition


def _built_in(agent_id: str, revision: int) -> AgentDefinition | None:
    return BUILT_IN if (agent_id, revision) == (DEFAULT_AGENT, BUILT_IN.revision) else None
