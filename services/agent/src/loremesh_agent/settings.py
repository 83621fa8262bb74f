"""What the agent service is told by its environment."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, Self

from loremesh_kit.settings import ServiceSettings, Shared
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from loremesh_agent import prompts
from loremesh_agent.adapters import tool_server_file
from loremesh_agent.adapters.providers import Endpoint
from loremesh_agent.adapters.tool_hosts import ToolHosts
from loremesh_agent.domain.addresses import Exemptions, exemptions
from loremesh_agent.domain.agents import ModelProfile, Window
from loremesh_agent.domain.budgets import Budget
from loremesh_agent.domain.model_names import VARIABLES
from loremesh_agent.domain.relevance import Floors
from loremesh_agent.engine.asking import Patience
from loremesh_agent.engine.chat import Pace
from loremesh_agent.engine.lanes import Traffic
from loremesh_agent.engine.operator_servers import NamedServer

Provider = Literal["openai", "anthropic", "cohere", "local"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Defaults:
    """What a provider's models are given unless the environment says otherwise."""

    model: str
    context_tokens: int = 100_000
    prompt_tokens: int = 32_000
    output_tokens: int = 2048
    top_k: int = 8
    temperature: float | None = None
    frequency_penalty: float | None = None
    prompt: prompts.Name = "full"


_DEFAULTS: dict[Provider, _Defaults] = {
    "openai": _Defaults(model="gpt-5.4-mini"),
    # Its models think before they write, within the same limit.
    "anthropic": _Defaults(model="claude-sonnet-5-5", output_tokens=8192),
    "cohere": _Defaults(model="command-a-03-2025"),
    "local": _Defaults(
        model="smollm2-135m-instruct",
        context_tokens=2048,
        prompt_tokens=400,
        output_tokens=160,
        top_k=4,
        temperature=0.1,
        frequency_penalty=0.3,
        prompt="compact",
    ),
}
# Where no provider has a key.
_BY_URL: tuple[Provider, ...] = ("local", "openai", "anthropic", "cohere")
# One lease lasts for several chances to renew it.
_LEASE_OF_KEEPS = 4


class AgentSettings(ServiceSettings):
    """AGENT_..., and the shared ones by their bare names."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="AGENT_")

    # Answers of large models take their time.
    default_deadline_seconds: float = Field(default=300.0, gt=0, description="for calls which bring none")
    retrieval_target: Annotated[str, Shared()] = Field(description="host:port of the retrieval service")

    ingestion_target: Annotated[str, Shared()] = Field(description="host:port of the ingestion service")
    embedding_target: Annotated[str, Shared()] = Field(
        default="", description="host:port of the embedding service; empty: memories are found by their words alone"
    )

    provider: Provider | None = Field(
        default=None, description="whose model is the default; unset: the first with a key, else local"
    )
    local_model_url: Annotated[str, Shared()] = Field(
        default="", description="base URL of the local model's OpenAI-compatible server"
    )
    openai_api_key: Annotated[SecretStr, Shared()] = Field(default=SecretStr(""), description="empty: none is sent")
    openai_base_url: Annotated[str, Shared()] = Field(
        default="", description="base URL of an OpenAI-compatible server; empty: OpenAI's own"
    )

    anthropic_api_key: Annotated[SecretStr, Shared()] = Field(default=SecretStr(""), description="empty: none is sent")
    anthropic_base_url: Annotated[str, Shared()] = Field(
        default="", description="base URL of a server that speaks Anthropic's Messages; empty: Anthropic's own"
    )
    cohere_api_key: Annotated[SecretStr, Shared()] = Field(default=SecretStr(""), description="empty: none is sent")
    cohere_base_url: Annotated[str, Shared()] = Field(
        default="", description="base URL of a server that speaks Cohere's chat; empty: Cohere's own"
    )
    prices_file: str = Field(default="", description="TOML of prices that take the place of our own")

    # What follows describes the default model; an agent names others as provider/model.
    model: str = Field(default="", description="as its provider calls it; empty: the provider's default here")
    context_tokens: int | None = Field(default=None, ge=512, description="tokens the model reads and writes at most")
    prompt_tokens: int | None = Field(default=None, ge=256, description="tokens a prompt should not exceed")
    max_output_tokens: int | None = Field(default=None, ge=1, le=16_384, description="tokens of an answer at most")
    top_k: int | None = Field(default=None, ge=1, le=50, description="passages to find for an answer")
    temperature: float | None = Field(default=None, ge=0, le=2, description="unset: the provider's own choice, or low")
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, description="unset: the provider's own choice")
    prompt: prompts.Name | None = Field(default=None, description="wording: full, or compact for small models")

    prompts_file: str = Field(default="", description="TOML file of prompts; empty: those that come with the service")
    langfuse_public_key: Annotated[str, Shared()] = Field(default="", description="with the secret one: use Langfuse")
    langfuse_secret_key: Annotated[SecretStr, Shared()] = SecretStr("")
    langfuse_base_url: Annotated[str, Shared()] = "https://cloud.langfuse.com"

    near_similarity: float = Field(default=0.40, description="cosine from which the nearest passage is relevant")
    far_similarity: float = Field(default=0.28, description="cosine below which no passage is relevant")
    term_coverage: float = Field(default=0.5, description="share of the question's words that decides between them")

    connect_seconds: float = Field(default=5.0, gt=0, description="to connect to the provider")
    first_token_seconds: float = Field(default=60.0, gt=0, description="until it begins to answer")
    idle_seconds: float = Field(default=30.0, gt=0, description="between two tokens")
    total_seconds: float = Field(default=240.0, gt=0, description="for a whole answer")
    requests_per_minute: dict[str, int] = Field(
        default_factory=dict, description='by provider, as {"openai": 500}; each process counts for itself'
    )
    tokens_per_minute: dict[str, int] = Field(default_factory=dict, description="by provider, read and written")
    breaker_failures: int = Field(default=10, gt=0, description="of a provider in a row, before it is left alone")
    breaker_seconds: float = Field(default=5.0, gt=0, description="for which it is left alone")
    heartbeat_seconds: float = Field(default=10.0, gt=0, description="of silence before a stream says that it lives")
    keep_seconds: float = Field(
        default=5.0,
        gt=0,
        description="between keeping what there is of an answer; four of them block a conversation after a crash",
    )

    # Its jobs wait for models, not for a processor; a crew's tasks are ten at once.
    job_concurrency: int = Field(default=32, gt=0, description="jobs a worker holds at once")
    chat_job_seconds: float = Field(default=900.0, gt=0, description="for a chat job, waiting included")
    chat_jobs_waiting: int = Field(default=1000, gt=0, description="chat jobs of a tenant that wait before QUEUE_FULL")
    group_seconds: float = Field(default=0.2, gt=0, description="of text in one event of a chat job")

    memories_per_scope: int = Field(default=5000, gt=0, description="memories of one scope before MEMORY_FULL")

    @field_validator("requests_per_minute", "tokens_per_minute")
    @classmethod
    def _limits_providers(cls, limits: dict[str, int]) -> dict[str, int]:
        if not limits.keys() <= _DEFAULTS.keys() or any(limit < 1 for limit in limits.values()):
            message = f"name providers ({', '.join(_DEFAULTS)}) and numbers above zero"
            raise ValueError(message)
        return limits

    searxng_url: Annotated[str, Shared()] = Field(default="", description="of a SearXNG, for the tool web_search")
    tavily_api_key: Annotated[SecretStr, Shared()] = Field(default=SecretStr(""), description="for web_search, instead")
    brave_api_key: Annotated[SecretStr, Shared()] = Field(default=SecretStr(""), description="for web_search, instead")
    web_allow_hosts: str = Field(
        default="", description="host or host:port, with commas: what web_fetch may read although it is not public"
    )

    max_steps: int = Field(default=20, ge=1, le=100, description="times a run asks the model at most")
    max_tool_calls: int = Field(default=100, ge=0, le=1000, description="tools a run calls at most")
    max_run_seconds: float | None = Field(default=None, gt=0, description="of work for a run; waiting does not count")
    tenant_monthly_tokens: int | None = Field(
        default=None, gt=0, description="of all runs of a tenant; unset: no limit"
    )
    tenant_monthly_micros: int | None = Field(
        default=None, gt=0, description="millionths of a US dollar for all runs of a tenant; unset: no limit"
    )

    tool_servers_file: str = Field(default="", description="TOML file of tool servers for all tenants; empty: none")
    tool_hosts: str = Field(
        default="", description="host:port or host:*, with commas: tool servers there may be private and without TLS"
    )

    @model_validator(mode="after")
    def _has_usable_tool_servers(self) -> Self:
        self.allowed_tool_hosts()
        self.named_tool_servers()
        return self

    @model_validator(mode="after")
    def _has_a_provider(self) -> Self:
        if self.chosen_provider not in self._endpoints():
            variable = VARIABLES[self.chosen_provider]
            message = f"the provider {self.chosen_provider} needs {variable}"
            if self.provider is None:
                message = "set OPENAI_API_KEY, ANTHROPIC_API_KEY or COHERE_API_KEY, or LOCAL_MODEL_URL"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _has_both_keys_of_langfuse(self) -> Self:
        if bool(self.langfuse_public_key) != bool(self.langfuse_secret_key.get_secret_value()):
            message = "set both LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY, or neither"
            raise ValueError(message)
        return self

    @property
    def chosen_provider(self) -> Provider:
        """Whose model is the default."""
        keys: dict[Provider, SecretStr] = {
            "openai": self.openai_api_key,
            "anthropic": self.anthropic_api_key,
            "cohere": self.cohere_api_key,
        }
        of_key = next((name for name, key in keys.items() if key.get_secret_value()), None)
        of_url: Provider = next((name for name in _BY_URL if name in self._endpoints()), "local")
        return self.provider or of_key or of_url

    def endpoints(self) -> Sequence[Endpoint]:
        """The providers that are configured."""
        return tuple(self._endpoints().values())

    def _endpoints(self) -> dict[Provider, Endpoint]:
        # The local model has no business with anybody's key.
        given: dict[Provider, tuple[str, SecretStr]] = {
            "openai": (self.openai_base_url, self.openai_api_key),
            "anthropic": (self.anthropic_base_url, self.anthropic_api_key),
            "cohere": (self.cohere_base_url, self.cohere_api_key),
            "local": (self.local_model_url, SecretStr("")),
        }
        return {
            name: Endpoint(provider=name, base_url=url, api_key=key)
            for name, (url, key) in given.items()
            if url or key.get_secret_value()
        }

    def traffic(self) -> Traffic:
        """With the providers."""
        return Traffic(
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            failures=self.breaker_failures,
            rest=self.breaker_seconds,
        )

    def default_profile(self) -> ModelProfile:
        """How the default model is asked."""
        base = self.profiles()[self.chosen_provider]
        wording = prompts.load(self.prompt) if self.prompt else base.wording
        return replace(
            base,
            model=f"{self.chosen_provider}/{self.model}" if self.model else base.model,
            wording=wording,
            window=Window(
                context_tokens=self.context_tokens or base.window.context_tokens,
                prompt_tokens=self.prompt_tokens or base.window.prompt_tokens,
            ),
            max_output_tokens=self.max_output_tokens or base.max_output_tokens,
            top_k=self.top_k or base.top_k,
            temperature=base.temperature if self.temperature is None else self.temperature,
            frequency_penalty=base.frequency_penalty if self.frequency_penalty is None else self.frequency_penalty,
        )

    def profiles(self) -> Mapping[str, ModelProfile]:
        """How other models are asked, by provider; `model` is the provider's default here."""
        return {
            provider: ModelProfile(
                model=f"{provider}/{of.model}",
                wording=prompts.load(of.prompt),
                window=Window(context_tokens=of.context_tokens, prompt_tokens=of.prompt_tokens),
                max_output_tokens=of.output_tokens,
                top_k=of.top_k,
                temperature=of.temperature,
                frequency_penalty=of.frequency_penalty,
            )
            for provider, of in _DEFAULTS.items()
        }

    def exemptions(self) -> Exemptions:
        """What may be fetched although it is not public."""
        return exemptions(self.web_allow_hosts.split(","))

    def allowed_tool_hosts(self) -> ToolHosts:
        """Those the operator trusts."""
        return ToolHosts.parse(self.tool_hosts)

    def named_tool_servers(self) -> Sequence[NamedServer]:
        """Those of the operator's file."""
        return tool_server_file.read(self.tool_servers_file, environment=os.environ)

    def floors(self) -> Floors:
        """When passages are relevant."""
        return Floors(near=self.near_similarity, far=self.far_similarity, coverage=self.term_coverage)

    def budget(self) -> Budget:
        """Of a run; agents and questions may only lower it."""
        return Budget(steps=self.max_steps, tool_calls=self.max_tool_calls, seconds=self.max_run_seconds)

    def patience(self) -> Patience:
        """With the provider."""
        return Patience(first_token=self.first_token_seconds, idle=self.idle_seconds, total=self.total_seconds)

    def patience_of_jobs(self) -> Patience:
        """The same without another try: the next attempt of the job is that."""
        return replace(self.patience(), attempts=1)

    def pace_of_jobs(self) -> Pace:
        """Of runs whose text is written in groups: after so much silence, what there is of one."""
        return Pace(heartbeat=self.group_seconds, keep=self.keep_seconds)

    def pace(self) -> Pace:
        """Of streams."""
        return Pace(heartbeat=self.heartbeat_seconds, keep=self.keep_seconds)

    @property
    def lease_seconds(self) -> float:
        """How long a crashed answer blocks its conversation."""
        return self.keep_seconds * _LEASE_OF_KEEPS
