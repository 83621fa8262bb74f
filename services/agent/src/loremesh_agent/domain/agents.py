"""Agents: who answers, and how."""

from dataclasses import dataclass

from loremesh_agent.domain.wording import Wording

DEFAULT_AGENT = "default"
DEFAULT_VECTOR_STORE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How much a model reads: `context_tokens` at most, answer included, and prompts of `prompt_tokens` if they can."""

    context_tokens: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Who answers."""

    id: str
    model: str
    wording: Wording
    window: Window
    max_output_tokens: int
    top_k: int
    # None: as the model's provider thinks best.
    temperature: float | None = None
    frequency_penalty: float | None = None
    vector_store_ids: tuple[str, ...] = (DEFAULT_VECTOR_STORE,)
