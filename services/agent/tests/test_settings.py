"""What the environment may say."""

import pytest
from loremesh_agent.settings import AgentSettings
from pydantic import SecretStr, ValidationError

pytestmark = pytest.mark.unit

LOCAL = "http://127.0.0.1:1/v1"


def endpoints(settings: AgentSettings) -> dict[str, tuple[str, str]]:
    return {each.provider: (each.base_url, each.api_key.get_secret_value()) for each in settings.endpoints()}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = [f"{name}_{what}" for name in ("OPENAI", "ANTHROPIC", "COHERE") for what in ("API_KEY", "BASE_URL")]
    for name in (*providers, "LOCAL_MODEL_URL", "AGENT_PROVIDER", "AGENT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RETRIEVAL_TARGET", "127.0.0.1:1")
    monkeypatch.setenv("INGESTION_TARGET", "127.0.0.1:1")


def test_without_a_key_the_local_model_answers_in_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_MODEL_URL", LOCAL)
    settings = AgentSettings()
    agent = settings.default_profile()
    assert endpoints(settings) == {"local": (LOCAL, "")}
    assert (agent.model, agent.temperature) == ("local/smollm2-135m-instruct", 0.1)
    assert agent.window.prompt_tokens <= 600


def test_with_a_key_openai_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_MODEL_URL", LOCAL)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    settings = AgentSettings()
    agent = settings.default_profile()
    # The local model is there, too, and is not given anybody's key.
    assert endpoints(settings) == {"openai": ("", "sk-secret"), "local": (LOCAL, "")}
    assert agent.model == "openai/gpt-5.4-mini"
    assert agent.temperature is None
    assert agent.window.context_tokens == 100_000
    assert "sk-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({"COHERE_API_KEY": "k", "LOCAL_MODEL_URL": LOCAL}, "cohere"),
        ({"COHERE_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}, "anthropic"),
        ({"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}, "openai"),
        ({"OPENAI_BASE_URL": LOCAL, "LOCAL_MODEL_URL": LOCAL}, "local"),
        ({"OPENAI_BASE_URL": LOCAL}, "openai"),
        ({"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k", "AGENT_PROVIDER": "anthropic"}, "anthropic"),
    ],
)
def test_the_default_is_of_the_first_provider_with_a_key(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], chosen: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = AgentSettings()
    assert settings.chosen_provider == chosen
    assert settings.default_profile().model.startswith(f"{chosen}/")
    assert not {"k"} & set(repr(settings).split("'"))


def test_limits_name_providers_and_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_MODEL_URL", LOCAL)
    monkeypatch.setenv("AGENT_REQUESTS_PER_MINUTE", '{"openai": 500}')
    assert AgentSettings().traffic().requests_per_minute == {"openai": 500}
    for wrong in ('{"opnai": 5}', '{"openai": 0}'):
        monkeypatch.setenv("AGENT_REQUESTS_PER_MINUTE", wrong)
        with pytest.raises(ValidationError, match="name providers"):
            AgentSettings()


def test_everything_about_the_agent_can_be_said() -> None:
    settings = AgentSettings(
        openai_base_url=LOCAL, provider="openai", model="m", context_tokens=4096, prompt_tokens=1000,
        max_output_tokens=99, top_k=7, temperature=0, prompt="compact", openai_api_key=SecretStr(""),
    )  # fmt: skip
    agent = settings.default_profile()
    assert settings.profiles()["openai"].window.context_tokens == 100_000
    assert (agent.model, agent.window.context_tokens, agent.window.prompt_tokens) == ("openai/m", 4096, 1000)
    assert (agent.max_output_tokens, agent.top_k, agent.temperature) == (99, 7, 0)
    assert not agent.wording.multiline


@pytest.mark.parametrize(
    ("provider", "variable"),
    [
        (None, "OPENAI_API_KEY"),
        ("openai", "OPENAI_API_KEY"),
        ("cohere", "COHERE_API_KEY"),
        ("local", "LOCAL_MODEL_URL"),
    ],
)
def test_no_provider_at_all_says_what_to_set(provider: str | None, variable: str) -> None:
    with pytest.raises(ValidationError, match=variable):
        AgentSettings(provider=provider)  # type: ignore[arg-type]


def test_hosts_are_exempt_by_name_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_MODEL_URL", LOCAL)
    assert not AgentSettings().exemptions().entries
    monkeypatch.setenv("AGENT_WEB_ALLOW_HOSTS", "Docs.intranet, 10.0.0.7:8080,")
    exempt = AgentSettings().exemptions()
    assert exempt.cover("docs.intranet", 443)
    assert exempt.cover("10.0.0.7", 8080)
    assert not exempt.cover("10.0.0.7", 80)
