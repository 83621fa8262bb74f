"""What the environment may say."""

import pytest
from loremesh_agent.settings import AgentSettings
from pydantic import SecretStr, ValidationError

pytestmark = pytest.mark.unit

LOCAL = "http://127.0.0.1:1/v1"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LOCAL_MODEL_URL", "AGENT_PROVIDER", "AGENT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RETRIEVAL_TARGET", "127.0.0.1:1")
    monkeypatch.setenv("INGESTION_TARGET", "127.0.0.1:1")


def test_without_a_key_the_local_model_answers_in_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_MODEL_URL", LOCAL)
    settings = AgentSettings()
    agent = settings.default_agent()
    assert (settings.chosen_provider, settings.base_url(), settings.api_key()) == ("local", LOCAL, "")
    assert (agent.model, agent.temperature) == ("smollm2-135m-instruct", 0.1)
    assert agent.window.prompt_tokens <= 600


def test_with_a_key_openai_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_MODEL_URL", LOCAL)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    settings = AgentSettings()
    agent = settings.default_agent()
    assert (settings.chosen_provider, settings.base_url(), settings.api_key()) == ("openai", "", "sk-secret")
    assert agent.temperature is None
    assert agent.window.context_tokens == 100_000
    assert "sk-secret" not in repr(settings)


def test_the_local_model_is_not_given_openais_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_MODEL_URL", LOCAL)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert AgentSettings(provider="local").api_key() == ""


def test_everything_about_the_agent_can_be_said() -> None:
    settings = AgentSettings(
        openai_base_url=LOCAL, provider="openai", model="m", context_tokens=4096, prompt_tokens=1000,
        max_output_tokens=99, top_k=7, temperature=0, prompt="compact", openai_api_key=SecretStr(""),
    )  # fmt: skip
    agent = settings.default_agent()
    assert (agent.model, agent.window.context_tokens, agent.window.prompt_tokens) == ("m", 4096, 1000)
    assert (agent.max_output_tokens, agent.top_k, agent.temperature) == (99, 7, 0)
    assert not agent.wording.multiline


@pytest.mark.parametrize(("provider", "variable"), [(None, "OPENAI_API_KEY"), ("openai", "OPENAI_API_KEY")])
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
