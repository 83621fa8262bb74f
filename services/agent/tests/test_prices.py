"""What models cost, and which models there are."""

from pathlib import Path

import pytest
from loremesh_agent import prompts
from loremesh_agent.adapters.memory import ScriptedProvider
from loremesh_agent.adapters.prices import load
from loremesh_agent.adapters.providers import Providers
from loremesh_agent.domain import prices
from loremesh_agent.domain.agents import ModelProfile, Window
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.prices import Prices, PricesInvalid
from loremesh_agent.errors import ModelUnknown, ProviderNotConfigured
from loremesh_agent.ports import ModelRequest

pytestmark = pytest.mark.unit

PROFILE = ModelProfile(
    model="local/small",
    wording=prompts.load("full"),
    window=Window(context_tokens=4096, prompt_tokens=2048),
    max_output_tokens=99,
    top_k=4,
)
TABLE = """
[openai]
"big-1.5" = { input = 2.00, cached_input = 0.075, output = 8 }
"vendor/small" = { input = 0.0375, output = 0.15 }
[local]
"*" = { input = 0, output = 0 }
"""


@pytest.mark.parametrize(
    ("model", "usage", "micros"),
    [
        ("openai/big-1.5", Usage(input_tokens=1_000_000, output_tokens=0), 2_000_000),
        ("openai/big-1.5", Usage(input_tokens=0, output_tokens=1_000_000), 8_000_000),
        ("openai/big-1.5", Usage(input_tokens=100, output_tokens=10, cached_input_tokens=40), 60 * 2 + 3 + 10 * 8),
        ("openai/big-1.5", Usage(input_tokens=1, output_tokens=0, cached_input_tokens=9), 1),
        ("openai/big-1.5-2026-03-17", Usage(input_tokens=10, output_tokens=0), 20),
        ("openai/big-1.5-20260317", Usage(input_tokens=10, output_tokens=0), 20),
        ("openai/vendor/small", Usage(input_tokens=1, output_tokens=0), 1),
        ("openai/vendor/small", Usage(input_tokens=0, output_tokens=0), 0),
        ("local/whatever", Usage(input_tokens=10**9, output_tokens=10**9), 0),
        ("openai/unknown", Usage(input_tokens=1, output_tokens=1), None),
        ("openai/big-1.5-turbo", Usage(input_tokens=1, output_tokens=1), None),
        ("big-1.5", Usage(input_tokens=1, output_tokens=1), None),
    ],
)
def test_tokens_cost_what_the_table_says_rounded_up(model: str, usage: Usage, micros: int | None) -> None:
    assert prices.read(TABLE).cost(model, usage) == micros


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "openai = 3",
        '[openai]\n"m" = 3',
        '[openai]\n"m" = { input = 1 }',
        '[openai]\n"m" = { input = 1, output = "free" }',
        '[openai]\n"m" = { input = 1, output = true }',
        '[openai]\n"m" = { input = -1, output = 1 }',
        '[openai]\n"m" = { input = nan, output = 1 }',
        '[openai]\n"m" = { input = 1, output = 1, per = "token" }',
    ],
)
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(PricesInvalid):
        prices.read(text)


def test_the_operators_prices_take_the_place_of_ours(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('[openai]\n"gpt-4.1" = { input = 1, output = 1 }\n"mine" = { input = 7, output = 7 }')
    usage = Usage(input_tokens=1_000_000, output_tokens=0)
    ours, theirs = load(""), load(str(file))
    assert (ours.cost("openai/gpt-4.1", usage), theirs.cost("openai/gpt-4.1", usage)) == (2_000_000, 1_000_000)
    assert (ours.cost("openai/mine", usage), theirs.cost("openai/mine", usage)) == (None, 7_000_000)
    assert theirs.cost("anthropic/claude-opus-5-5", usage) == 4_000_000


def providers() -> Providers:
    sources = {"local": ScriptedProvider([]), "openai": ScriptedProvider([])}
    profiles = dict.fromkeys(("openai", "local", "anthropic", "cohere"), PROFILE)
    return Providers(sources=sources, default=PROFILE, profiles=profiles, prices=prices.read(TABLE))


def test_providers_are_listed_with_what_configures_them() -> None:
    listed = [(each.name, each.configured, each.variable, len(each.models)) for each in providers().known()]
    assert listed == [
        ("anthropic", False, "ANTHROPIC_API_KEY", 0),
        ("cohere", False, "COHERE_API_KEY", 0),
        ("local", True, "LOCAL_MODEL_URL", 1),
        ("openai", True, "OPENAI_API_KEY", 2),
    ]
    (big, _) = providers().known()[3].models
    assert (big.model, big.price.cached_input_micros) == ("openai/big-1.5", 75_000)


def test_a_models_profile_is_its_providers() -> None:
    known = providers()
    assert known.profile("") == known.profile("local/small") == PROFILE
    assert known.profile("openai/vendor/small").model == "openai/vendor/small"


@pytest.mark.parametrize("model", ["gpt-4.1", "opnai/gpt-4.1", "openai/", "/m"])
async def test_a_model_of_nobody_is_unknown(model: str) -> None:
    with pytest.raises(ModelUnknown):
        providers().profile(model)
    with pytest.raises(ModelUnknown):
        await anext(providers().stream(ModelRequest(model=model, messages=(), max_output_tokens=1)))


def test_a_provider_without_a_key_says_which_variable_to_set() -> None:
    with pytest.raises(ProviderNotConfigured, match="ANTHROPIC_API_KEY") as refused:
        providers().profile("anthropic/claude-opus-5")
    assert refused.value.metadata == {"provider": "anthropic", "variable": "ANTHROPIC_API_KEY"}


def test_nothing_is_known_of_no_prices() -> None:
    assert Prices({}).cost("openai/m", Usage(input_tokens=1, output_tokens=1)) is None
