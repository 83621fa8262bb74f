"""All model providers as one: `provider/model` says which is asked."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Self

from pydantic import SecretStr

from loremesh_agent.adapters.local_tools import LocalTools
from loremesh_agent.domain.agents import ModelProfile
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.model_names import VARIABLES, split
from loremesh_agent.domain.prices import KnownProvider, Prices
from loremesh_agent.errors import ModelUnknown, ProviderNotConfigured
from loremesh_agent.ports import ModelEvent, ModelProgress, ModelRequest, ModelSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a provider is; empty: its own `base_url`, no `api_key`."""

    provider: str
    base_url: str
    api_key: SecretStr


class Providers:
    """Routes each request to its provider, which gets the model's bare name; see ports.Models and ports.ModelSource."""

    def __init__(
        self,
        *,
        sources: Mapping[str, ModelSource],
        default: ModelProfile,
        profiles: Mapping[str, ModelProfile],
        prices: Prices,
    ) -> None:
        """`sources` are those configured; `profiles` are for models other than the default, by provider."""
        self._sources = dict(sources)
        self._default = default
        self._profiles = dict(profiles)
        self._prices = prices

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        endpoints: Sequence[Endpoint],
        *,
        connect_seconds: float,
        default: ModelProfile,
        profiles: Mapping[str, ModelProfile],
        prices: Prices,
    ) -> AsyncIterator[Self]:
        """The providers at these endpoints; the SDKs of others are not even imported."""
        async with AsyncExitStack() as stack:
            sources = {
                endpoint.provider: await stack.enter_async_context(_open(endpoint, connect_seconds=connect_seconds))
                for endpoint in endpoints
            }
            yield cls(sources=sources, default=default, profiles=profiles, prices=prices)

    @property
    def name(self) -> str:
        """Whoever is asked for the default model."""
        return split(self._default.model)[0]

    async def ping(self) -> None:
        """Raise when the local model does not answer; others are not ours to poll."""
        local = self._sources.get("local")
        if isinstance(local, LocalTools):
            await local.ping()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent | ModelProgress, None]:
        """See ports.ModelSource; raises ModelUnknown and ProviderNotConfigured, too."""
        provider, model = self._known(request.model)
        async with aclosing(self._sources[provider].stream(replace(request, model=model))) as events:
            async for event in events:
                yield event

    def profile(self, model: str) -> ModelProfile:
        """See ports.Models."""
        if model in {"", self._default.model}:
            return self._default
        provider, _ = self._known(model)
        return replace(self._profiles[provider], model=model)

    def cost(self, model: str, usage: Usage) -> int | None:
        """See ports.Models."""
        return self._prices.cost(model, usage)

    def known(self) -> Sequence[KnownProvider]:
        """The providers there could be, by name."""
        return tuple(
            KnownProvider(
                name=name,
                configured=name in self._sources,
                variable=variable,
                models=self._prices.of_provider(name),
            )
            for name, variable in sorted(VARIABLES.items())
        )

    def _known(self, model: str) -> tuple[str, str]:
        provider, name = split(model)
        if provider not in VARIABLES:
            raise ModelUnknown(model)
        if provider not in self._sources:
            raise ProviderNotConfigured(provider, variable=VARIABLES[provider])
        return provider, name


def _open(endpoint: Endpoint, *, connect_seconds: float) -> AbstractAsyncContextManager[ModelSource]:
    name, url, key = endpoint.provider, endpoint.base_url, endpoint.api_key.get_secret_value()
    match name:
        case "anthropic":
            from loremesh_agent.adapters.anthropic import AnthropicProvider

            return AnthropicProvider.open(name=name, base_url=url, api_key=key, connect_seconds=connect_seconds)
        case "cohere":
            from loremesh_agent.adapters.cohere import CohereProvider

            return CohereProvider.open(name=name, base_url=url, api_key=key, connect_seconds=connect_seconds)
        case "local":
            return _local(endpoint, connect_seconds=connect_seconds)
    from loremesh_agent.adapters.openai import OpenAIProvider

    return OpenAIProvider.open(name=name, base_url=url, api_key=key, connect_seconds=connect_seconds)


@asynccontextmanager
async def _local(endpoint: Endpoint, *, connect_seconds: float) -> AsyncIterator[ModelSource]:
    from loremesh_agent.adapters.openai import OpenAIProvider

    key = endpoint.api_key.get_secret_value()
    async with OpenAIProvider.open(
        name=endpoint.provider, base_url=endpoint.base_url, api_key=key, connect_seconds=connect_seconds
    ) as source:
        yield LocalTools(source)
