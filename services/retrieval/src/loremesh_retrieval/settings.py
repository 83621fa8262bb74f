"""What the retrieval service is told by its environment."""

from pathlib import Path
from typing import Annotated, ClassVar

from loremesh_kit.settings import ServiceSettings, Shared
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict


class RetrievalSettings(ServiceSettings):
    """RETRIEVAL_..., and the shared ones by their bare names."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="RETRIEVAL_")

    # Searches are work, not waiting: more at once are not answered sooner, but each waits behind them.
    admission_limit: int = Field(default=64, gt=0, description="calls served at once before OVERLOADED")
    qdrant_url: Annotated[str, Shared()] = Field(
        default="",
        description="the Qdrant server's HTTP address; empty: the index is kept in this process",
    )
    qdrant_grpc_port: Annotated[int, Shared()] = Field(default=6334, ge=1, le=65535, description="its gRPC port")
    qdrant_api_key: Annotated[SecretStr, Shared()] = Field(default=SecretStr(""), description="empty: none is sent")
    data_dir: Path = Field(
        default=Path("data/retrieval"),
        description="where the index in this process is kept; one process may use it",
    )
    embedding_target: Annotated[str, Shared()] = Field(description="host:port of the embedding service")
    ingestion_target: Annotated[str, Shared()] = Field(description="host:port of the ingestion service")
