"""What the agent service is told by its environment."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from loremesh_kit.settings import ServiceSettings, Shared
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from loremesh_agent import prompts
from loremesh_agent.domain.addresses import Exemptions, exemptions
from loremesh_agent.domain.agents import DEFAULT_AGENT, Agent, Window
from loremesh_agent.domain.budgets import Budget
from loremesh_agent.domain.relevance import Floors
from loremesh_agent.engine.asking import Patience
from loremesh_agent.engine.chat import Pace

# What a model of each provider is given unless the environment says otherwise.
_MODEL = {"openai": "gpt-5.4-mini", "local": "smollm2-135m-instruct"}
_CONTEXT_TOKENS = {"openai": 100_000, "local": 2048}
_PROMPT_TOKENS = {"openai": 32_000, "local": 400}
_OUTPUT_TOKENS = {"openai": 2048, "local": 160}
_TOP_K = {"openai": 8, "local": 4}
_TEMPERATURE = {"openai": None, "local": 0.1}
_FREQUENCY_PENALTY = {"openai": None, "local": 0.3}
_PROMPT: dict[str, prompts.Name] = {"openai": "full", "local": "compact"}
# One lease lasts for several chances to renew it.
_LEASE_OF_KEEPS = 4


class AgentSettings(ServiceSettings):
    """AGENT_..., and the shared ones by their bare names."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="AGENT_")

    # Answers of large models take their time.
    default_deadline_seconds: float = Field(default=300.0, gt=0, description="for calls which bring none")
    retrieval_target: Annotated[str, Shared()] = Field(description="host:port of the retrieval service")

    ingestion_target: Annotated[str, Shared()] = Field(description="host:port of the ingestion service")

    provider: Literal["openai", "local"] | None = Field(
        default=None, description="whose models answer; unset: openai where there is a key, else local"
    )
    local_model_url: Annotated[str, Shared()] = Field(
        default="", description="base URL of the local model's OpenAI-compatible server"
    )
    openai_api_key: Annotated[SecretStr, Shared()] = Field(default=SecretStr(""), description="empty: none is sent")
    openai_base_url: Annotated[str, Shared()] = Field(
        default="", description="base URL of an OpenAI-compatible server; empty: OpenAI's own"
    )

    model: str = Field(default="", description="the model; empty: the provider's default here")
    context_tokens: int | None = Field(default=None, ge=512, description="tokens the model reads and writes at most")
    prompt_tokens: int | None = Field(default=None, ge=256, description="tokens a prompt should not exceed")
    max_output_tokens: int | None = Field(default=None, ge=1, le=16_384, description="tokens of an answer at most")
    top_k: int | None = Field(default=None, ge=1, le=50, description="passages to find for an answer")
    temperature: float | None = Field(default=None, ge=0, le=2, description="unset: the provider's own choice, or low")
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, description="unset: the provider's own choice")
    prompt: prompts.Name | None = Field(default=None, description="wording: full, or compact for small models")

    near_similarity: float = Field(default=0.40, description="cosine from which the nearest passage is relevant")
    far_similarity: float = Field(default=0.28, description="cosine below which no passage is relevant")
    term_coverage: float = Field(default=0.5, description="share of the question's words that decides between them")

    connect_seconds: float = Field(default=5.0, gt=0, description="to connect to the provider")
    first_token_seconds: float = Field(default=60.0, gt=0, description="until it begins to answer")
    idle_seconds: float = Field(default=30.0, gt=0, description="between two tokens")
    total_seconds: float = Field(default=240.0, gt=0, description="for a whole answer")
    heartbeat_seconds: float = Field(default=10.0, gt=0, description="of silence before a stream says that it lives")
    keep_seconds: float = Field(
        default=5.0,
        gt=0,
        description="between keeping what there is of an answer; four of them block a conversation after a crash",
    )

    chat_job_seconds: float = Field(default=900.0, gt=0, description="for a chat job, waiting included")
    chat_jobs_waiting: int = Field(default=1000, gt=0, description="chat jobs of a tenant that wait before QUEUE_FULL")
    group_seconds: float = Field(default=0.2, gt=0, description="of text in one event of a chat job")

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

    @model_validator(mode="after")
    def _has_a_provider(self) -> Self:
        if self.chosen_provider == "local" and not self.local_model_url:
            message = "set OPENAI_API_KEY, or LOCAL_MODEL_URL for a local model"
            raise ValueError(message)
        if self.chosen_provider == "openai" and not (self.openai_api_key.get_secret_value() or self.openai_base_url):
            message = "the provider openai needs OPENAI_API_KEY, or OPENAI_BASE_URL of a server that wants no key"
            raise ValueError(message)
        return self

    @property
    def chosen_provider(self) -> Literal["openai", "local"]:
        """Whose models answer."""
        return self.provider or ("openai" if self.openai_api_key.get_secret_value() else "local")

    def base_url(self) -> str:
        """Of the provider; empty for OpenAI's own."""
        return self.openai_base_url if self.chosen_provider == "openai" else self.local_model_url

    def api_key(self) -> str:
        """For the provider; the local model has no business with OpenAI's."""
        return self.openai_api_key.get_secret_value() if self.chosen_provider == "openai" else ""

    def default_agent(self) -> Agent:
        """The one agent there is."""
        of = self.chosen_provider
        return Agent(
            id=DEFAULT_AGENT,
            model=self.model or _MODEL[of],
            wording=prompts.load(self.prompt or _PROMPT[of]),
            window=Window(
                context_tokens=self.context_tokens or _CONTEXT_TOKENS[of],
                prompt_tokens=self.prompt_tokens or _PROMPT_TOKENS[of],
            ),
            max_output_tokens=self.max_output_tokens or _OUTPUT_TOKENS[of],
            top_k=self.top_k or _TOP_K[of],
            temperature=_TEMPERATURE[of] if self.temperature is None else self.temperature,
            frequency_penalty=_FREQUENCY_PENALTY[of] if self.frequency_penalty is None else self.frequency_penalty,
        )

    def exemptions(self) -> Exemptions:
        """What may be fetched although it is not public."""
        return exemptions(self.web_allow_hosts.split(","))

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
