"""What the embedding service is told by its environment."""

import os
import re
from typing import Annotated, ClassVar, Literal, NamedTuple

from loremesh_kit.settings import ServiceSettings, Shared
from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

_REMOTE_MODEL = re.compile(r"(?P<id>\S+):(?P<dimension>[1-9]\d{0,4})(/(?P<window>[1-9]\d{0,6}))?")


class RemoteModel(NamedTuple):
    """A provider's dense model: `id:dimension`, or `id:dimension/window` where the window, in tokens, is known."""

    id: str
    dimension: int
    window: int = 0


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _remote_models(value: object) -> object:
    parts = _split(value)
    return tuple(_remote_model(part) for part in parts) if isinstance(parts, tuple) else parts


def _remote_model(part: object) -> object:
    if not isinstance(part, str):
        return part
    found = _REMOTE_MODEL.fullmatch(part)
    if found is None:
        raise ValueError("each model is written id:dimension or id:dimension/window")
    return RemoteModel(found["id"], int(found["dimension"]), int(found["window"] or 0))


# The Snowball stemmers there are.
Language = Literal[
    "arabic",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hungarian",
    "italian",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
]
RemoteModels = Annotated[tuple[RemoteModel, ...] | None, NoDecode, BeforeValidator(_remote_models)]

_OPENAI_MODELS = (
    RemoteModel("text-embedding-3-small", 1536, 8191),
    RemoteModel("text-embedding-3-large", 3072, 8191),
)
_COHERE_MODELS = (RemoteModel("embed-v4.0", 1536, 128_000),)
_COHERE_RERANK_MODELS = ("rerank-v3.5",)


class EmbeddingSettings(ServiceSettings):
    """EMBEDDING_..., and the shared ones by their bare names."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="EMBEDDING_")

    default_model: str = Field(default="minilm-l6-int8", description="dense model of requests that name none")
    default_rerank_model: str = Field(default="minilm-l6-maxsim", description="the same for Rerank")

    workers: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)),
        gt=0,
        description="batches the local model computes at once; default: one for each core of this process",
    )
    intra_op_threads: int = Field(default=1, gt=0, description="threads for one batch")
    batch_tokens: int = Field(default=512, gt=0, description="tokens in a batch, padding included")
    niceness: int = Field(default=5, ge=0, le=19, description="how far documents' threads give way to all others")
    queue_limit: int = Field(default=1024, gt=0, description="texts that may wait before OVERLOADED")

    bm25_language: Language = Field(default="english", description="whose stemmer and stop words are used")
    bm25_average_length: float = Field(default=112.0, gt=0, description="terms in a usual chunk")

    openai_api_key: Annotated[SecretStr, Shared()] = Field(default=SecretStr(""), description="empty: none is sent")
    openai_base_url: Annotated[str, Shared()] = Field(default="", description="empty: OpenAI's own")
    openai_models: RemoteModels = Field(
        default=None,
        description="id:dimension[/window], comma-separated; default: OpenAI's own where only its key is set",
    )
    cohere_api_key: Annotated[SecretStr, Shared()] = Field(default=SecretStr(""), description="empty: Cohere is off")
    cohere_base_url: Annotated[str, Shared()] = Field(default="", description="empty: Cohere's own")
    cohere_models: RemoteModels = Field(default=_COHERE_MODELS, description="id:dimension[/window], comma-separated")
    cohere_rerank_models: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        default=_COHERE_RERANK_MODELS,
        description="ids, comma-separated",
    )

    provider_attempts: int = Field(default=3, gt=0, description="calls made of a provider before giving up")
    provider_connect_seconds: float = Field(default=5.0, gt=0, description="to connect")
    provider_attempt_seconds: float = Field(default=20.0, gt=0, description="for one call")
    provider_total_seconds: float = Field(default=60.0, gt=0, description="for all of them and the waits between")

    def offered_openai_models(self) -> tuple[RemoteModel, ...]:
        """Those that are named; OpenAI's own where a key, and no other endpoint, is given."""
        if self.openai_models is not None:
            return self.openai_models
        return _OPENAI_MODELS if self.openai_api_key.get_secret_value() and not self.openai_base_url else ()

    def offered_cohere_models(self) -> tuple[RemoteModel, ...]:
        """Those that are named, none without a key."""
        return (self.cohere_models or ()) if self.cohere_api_key.get_secret_value() else ()

    def offered_cohere_rerank_models(self) -> tuple[str, ...]:
        """Those that are named, none without a key."""
        return self.cohere_rerank_models if self.cohere_api_key.get_secret_value() else ()
