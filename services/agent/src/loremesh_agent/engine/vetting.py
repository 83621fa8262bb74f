"""What is wrong with an agent that is to be kept."""

from dataclasses import replace

from loremesh_agent.domain import prompts, validation
from loremesh_agent.domain.agents import DEFAULT_VECTOR_STORE
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.definitions import AgentDefinition, LimitPolicy
from loremesh_agent.domain.validation import Fault
from loremesh_agent.engine.directory import Directory
from loremesh_agent.errors import (
    AgentInvalid,
    MessageTooLong,
    ModelUnknown,
    PromptInvalid,
    PromptNotFound,
    ProviderNotConfigured,
    VectorStoreNotFound,
)
from loremesh_agent.ports import Models, Toolbox, VectorStoreRegistry

_MILLION = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
# Some 100 tokens: an agent that cannot be asked as much is of no use.
_A_QUESTION = "word " * 80


class Vetting:
    """Finds all faults of an agent at once."""

    def __init__(
        self, *, directory: Directory, models: Models, toolbox: Toolbox, vector_stores: VectorStoreRegistry
    ) -> None:
        self._directory = directory
        self._models = models
        self._toolbox = toolbox
        self._vector_stores = vector_stores

    async def check(self, definition: AgentDefinition) -> None:
        """Raise what is wrong with it, all of it at once."""
        if found := await self.faults(definition):
            raise validation.refusal(found)

    async def faults(self, definition: AgentDefinition) -> list[Fault]:
        """All that is wrong with it."""
        tools = {spec.name for spec in await self._toolbox.specs()} if definition.tools else frozenset[str]()
        models = self._model_faults(definition)
        is_model_known = all(fault.field != "model" for fault in models)
        return [
            *models,
            *await self._instruction_faults(definition, is_model_known=is_model_known),
            *await self._store_faults(definition),
            *validation.faults(definition, tools=tools),
        ]

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
            Fault(f"vector_store_ids[{i}]", VectorStoreNotFound(each))
            for i, each in enumerate(named)
            if each in missing
        ]
