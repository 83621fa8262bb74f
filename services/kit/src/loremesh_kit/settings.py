"""The settings every service has, read from the environment and from nowhere else."""

from typing import Annotated, Any, ClassVar

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict


class Shared:
    """Marks a field which is also read without the service's prefix: INGESTION_NATS_URL, then NATS_URL."""


class _SharedEnvironment(EnvSettingsSource):
    """Reads the fields marked Shared by their bare names."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        """`settings` is the class whose marked fields are read."""
        super().__init__(settings, env_prefix="")

    def __call__(self) -> dict[str, Any]:
        """The values of marked fields only, so that a field `path` never picks up PATH."""
        fields = self.settings_cls.model_fields
        marked = {name for name, field in fields.items() if any(isinstance(m, Shared) for m in field.metadata)}
        return {name: value for name, value in super().__call__().items() if name in marked}


class ServiceSettings(BaseSettings):
    """What every service is told; a service's own settings subclass this and set `env_prefix`."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_ignore_empty=True, frozen=True)

    listen: str = Field(default="127.0.0.1:0", description="host:port to serve gRPC on; port 0 takes a free one")
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="port for Prometheus, on the host of `listen`; 0 is off"
    )
    drain_seconds: float = Field(
        default=0.5,
        ge=0,
        description="seconds between NOT_SERVING and the stop, for load balancers to notice; 3 behind Envoy at scale",
    )
    grace_seconds: float = Field(default=10.0, ge=0, description="seconds calls and jobs in hand get to finish")
    admission_limit: int = Field(default=256, gt=0, description="calls served at once before OVERLOADED")
    default_deadline_seconds: float = Field(default=60.0, gt=0, description="for unary calls which bring none")
    probe_seconds: float = Field(default=5.0, gt=0, description="seconds between dependency probes")
    job_concurrency: int = Field(default=4, gt=0, description="jobs a worker holds at once")
    job_lease_seconds: float = Field(default=15.0, gt=0, description="how long a silent worker keeps its jobs")

    database_url: Annotated[SecretStr, Shared()] = Field(
        default=SecretStr(""),
        description="postgresql:// URL of the service's plain role",
    )
    migrate_database_url: Annotated[SecretStr, Shared()] = Field(
        default=SecretStr(""),
        description="postgresql:// URL of the role that owns the schema; empty means database_url",
    )
    database_pool_size: int = Field(default=10, gt=0, description="connections at most")
    nats_url: Annotated[str, Shared()] = "nats://127.0.0.1:4222"
    otel_exporter_otlp_endpoint: Annotated[str, Shared()] = Field(default="", description="empty: no traces are sent")
    log_level: Annotated[str, Shared()] = "INFO"
    log_format: Annotated[str, Shared()] = Field(default="json", pattern="^(json|console)$")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Constructor, then SERVICE_NAME, then NAME for shared fields; no files."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _SharedEnvironment(settings_cls)
