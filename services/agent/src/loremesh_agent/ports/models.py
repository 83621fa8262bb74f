"""What is asked of models."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from loremesh_agent.domain.agents import ModelProfile
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.prices import KnownProvider
from loremesh_agent.domain.prompts import PromptMessage
from loremesh_agent.domain.tools import ToolCall, ToolSpec
from loremesh_agent.ports.memory import Embedded


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """What a model, `provider/model`, is asked; None leaves a parameter to the provider."""

    model: str
    messages: Sequence[PromptMessage]
    max_output_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    stop: Sequence[str] = ()
    # What it may ask for; a model without tools of its own is offered them through a JSON Schema of its answer.
    tools: Sequence[ToolSpec] = ()
    # JSON Schema of the answer's text; None: free text.
    response_schema: Mapping[str, Any] | None = None
    # Who is asked in its place, in turn, where it fails with nothing of the answer there.
    fallback_models: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ModelText:
    """A piece of the answer, not empty."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFinish:
    """The answer is whole, or cut by a limit of the provider; always the last event."""

    reason: FinishReason
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class ModelToolCall:
    """The model asks for a tool, its arguments complete; ids are unique in the answer."""

    call: ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSwitched:
    """Another model took over before anything of the answer was there; `provider/model` each."""

    before: str
    after: str
    reason: str


ModelEvent = ModelText | ModelToolCall | ModelSwitched | ModelFinish


@dataclass(frozen=True, slots=True)
class ModelProgress:
    """Something comes that is no answer yet: thoughts, or a part of a tool's arguments."""


class ModelSource(Protocol):
    """One provider's models, asked as they are: no limits in time, no second try."""

    @property
    def name(self) -> str:
        """What errors and logs call it."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent | ModelProgress, None]:
        """As ModelProvider's, and what shows that the provider is alive meanwhile."""
        ...


class ModelProvider(Protocol):
    """Asks language models."""

    @property
    def name(self) -> str:
        """What errors and logs call it."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """The answer as it comes; closing the generator ends the request.

        Ends with exactly one ModelFinish, or raises ProviderUnavailable, ProviderTimeout, ProviderRefused,
        ProviderRateLimited, ProviderStreamCut, ProviderNotConfigured, ModelUnknown, ModelOutputInvalid or
        AttachmentUnsupported.
        """
        ...


class Models(Protocol):
    """Knows models by name."""

    def profile(self, model: str) -> ModelProfile:
        """How a model is asked, the default one for an empty name; raises ModelUnknown, ProviderNotConfigured."""
        ...

    def cost(self, model: str, usage: Usage) -> int | None:
        """What the tokens cost in millionths of a US dollar; None where the model's price is not known."""
        ...


class TextEmbedder(Protocol):
    """Turns texts into vectors."""

    async def embed(self, texts: Sequence[str], *, are_queries: bool) -> Embedded:
        """One vector a text; raises DependencyUnavailable, DeadlineExceeded."""
        ...


class ProviderCatalogue(Protocol):
    """Knows the providers there are."""

    def known(self) -> Sequence[KnownProvider]:
        """All of them, by name."""
        ...


class ModelCatalogue(Models, ProviderCatalogue, Protocol):
    """Knows both."""


class Metronome(Protocol):
    """Counts how often agents ask their models."""

    async def beat(self, agent_id: str, *, limit: int) -> float:
        """Count one more in this minute; seconds to wait before asking again where it has `limit`, else zero."""
        ...
