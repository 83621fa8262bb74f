"""Models that the environment describes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from loremesh_agent.domain.agents import ModelProfile
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.errors import ModelUnknown, ProviderNotConfigured
from loremesh_agent.ports import KnownProvider


class ConfiguredModels:
    """Knows the models of one provider."""

    def __init__(self, *, default: ModelProfile, provider: str, variables: Mapping[str, str]) -> None:
        """`variables` configure the providers there are, by their names."""
        self._default = default
        self._provider = provider
        self._variables = variables

    def profile(self, model: str) -> ModelProfile:
        """See ports.Models."""
        if not model:
            return self._default
        provider, _, name = model.partition("/")
        if not name or provider not in self._variables:
            raise ModelUnknown(model)
        if provider != self._provider:
            raise ProviderNotConfigured(provider, variable=self._variables[provider])
        return replace(self._default, model=name)

    def cost(self, model: str, usage: Usage) -> int | None:
        """See ports.Models."""
        del model, usage
        return None

    def known(self) -> Sequence[KnownProvider]:
        """See ports.ProviderCatalogue."""
        return [
            KnownProvider(name=name, configured=name == self._provider, variable=variable)
            for name, variable in sorted(self._variables.items())
        ]
