"""Names of models: `provider/model`, the second part as the provider calls it."""

from types import MappingProxyType

# What configures each provider.
VARIABLES = MappingProxyType(
    {
        "openai": "OPENAI_API_KEY",
        "anthropic": "ANTHROPIC_API_KEY",
        "cohere": "COHERE_API_KEY",
        "local": "LOCAL_MODEL_URL",
    }
)


def split(model: str) -> tuple[str, str]:
    """The provider and its own name of the model, which may hold further slashes; empty where there is none."""
    provider, _, name = model.partition("/")
    return (provider, name) if name else ("", model)
