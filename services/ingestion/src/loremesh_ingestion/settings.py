"""What ingestion is told by its environment; nothing else reads it."""

import os
from pathlib import Path
from typing import Annotated

from loremesh_kit.settings import ServiceSettings, Shared
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - files there get names nobody can guess, in folders of our own


def _memory() -> Path | None:
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None


class Settings(ServiceSettings):
    """INGESTION_<NAME>, and unprefixed what other services are told too."""

    model_config = SettingsConfigDict(env_prefix="INGESTION_")

    embedding_target: Annotated[str, Shared()] = Field(default="127.0.0.1:8082", description="host:port")
    retrieval_target: Annotated[str, Shared()] = Field(default="127.0.0.1:8083", description="host:port")

    s3_endpoint_url: Annotated[str, Shared()] = Field(default="", description="empty: Amazon's")
    s3_public_endpoint_url: Annotated[str, Shared()] = Field(
        default="", description="where clients reach the object store, for download links; empty: the same"
    )
    s3_access_key_id: Annotated[str, Shared()] = Field(default="", description="empty: what the machine's role has")
    s3_secret_access_key: Annotated[SecretStr, Shared()] = SecretStr("")
    s3_region: Annotated[str, Shared()] = "us-east-1"
    s3_bucket: Annotated[str, Shared()] = "loremesh"

    queue_limit: int = Field(default=100_000, gt=0, description="jobs a tenant may have waiting before QUEUE_FULL")
    job_concurrency: int = Field(default=16, gt=0, description="jobs a worker holds at once")
    uploads_at_once: int = Field(default=256, gt=0, description="uploads taken at once before OVERLOADED")
    large_uploads_at_once: int = Field(default=24, gt=0, description="of more than 1 MiB; each takes about 16 MiB")

    work_directory: Path | None = Field(default=None, description="for files being parsed; empty: the system's")
    quick_work_directory: Path | None = Field(
        default_factory=_memory, description="the same for small ones; a file system in memory where there is one"
    )
    parser_processes: int = Field(default=2, gt=0, description="documents parsed at once")
    parser_memory_bytes: int = Field(default=1024 * 1024 * 1024, gt=0, description="address space of each")
    parser_cpu_seconds: int = Field(default=300, gt=0, description="for one document")
    parser_wall_seconds: float = Field(default=600.0, gt=0, description="for one document")
