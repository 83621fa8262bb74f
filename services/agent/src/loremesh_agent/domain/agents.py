"""Agents: who answers, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loremesh_agent.domain.definitions import AgentDefinition, BusyPolicy, GroundingPolicy, Limits, MemorySettings
from loremesh_agent.domain.tools import ToolUse
from loremesh_agent.domain.wording import Wording

DEFAULT_AGENT = "default"
DEFAULT_VECTOR_STORE = "default"
# What `default` is until somebody changes it: as the installation says in everything.
BUILT_IN = AgentDefinition(id=DEFAULT_AGENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How much a model reads: `context_tokens` at most, answer included, and prompts of `prompt_tokens` if they can."""

    context_tokens: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """What a model is asked with unless an agent says otherwise; `model` is `provider/model`."""

    model: str
    wording: Wording
    window: Window
    max_output_tokens: int
    top_k: int
    temperature: float | None = None
    frequency_penalty: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedPrompt:
    """The prompt a run was made with."""

    name: str
    version: int
    language: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Who answers: a revision of a definition, with its model's profile and its prompt, ready to."""

    id: str
    # `provider/model`.
    model: str
    wording: Wording
    window: Window
    max_output_tokens: int
    top_k: int
    # None: as the model's provider thinks best.
    temperature: float | None = None
    frequency_penalty: float | None = None
    vector_store_ids: tuple[str, ...] = (DEFAULT_VECTOR_STORE,)
    revision: int = 1
    top_p: float | None = None
    fallback_models: tuple[str, ...] = ()
    tools: tuple[ToolUse, ...] = ()
    memory: MemorySettings | None = None
    response_schema: Mapping[str, Any] | None = None
    limits: Limits = field(default_factory=Limits)
    grounding: GroundingPolicy = GroundingPolicy.ANNOTATE
    rewrite_questions: bool = True
    busy_policy: BusyPolicy = BusyPolicy.REJECT
    # None: text of its own.
    prompt: PinnedPrompt | None = None


def ready(
    definition: AgentDefinition, *, profile: ModelProfile, wording: Wording, prompt: PinnedPrompt | None
) -> Agent:
    """The agent of a definition: what it leaves open is as its model's profile says."""
    top_k, output = definition.top_k_documents, definition.max_output_tokens
    return Agent(
        id=definition.id,
        revision=definition.revision,
        model=profile.model,
        fallback_models=definition.fallback_models,
        wording=wording,
        prompt=prompt,
        window=profile.window,
        max_output_tokens=profile.max_output_tokens if output is None else output,
        top_k=profile.top_k if top_k is None else top_k,
        temperature=profile.temperature if definition.temperature is None else definition.temperature,
        top_p=definition.top_p,
        frequency_penalty=profile.frequency_penalty,
        vector_store_ids=definition.vector_store_ids or (DEFAULT_VECTOR_STORE,),
        tools=definition.tools,
        memory=definition.memory,
        response_schema=definition.response_schema,
        limits=definition.limits,
        grounding=definition.grounding,
        rewrite_questions=definition.rewrite_questions,
        busy_policy=definition.busy_policy,
    )
