"""What the crew service is told by its environment."""

from typing import Annotated, ClassVar

from loremesh_kit.settings import ServiceSettings, Shared
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class CrewSettings(ServiceSettings):
    """CREW_..., and the shared ones by their bare names."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix="CREW_")

    # Its jobs wait for the agent service, not for a processor: one that starts a task, up to two seconds for its end.
    job_concurrency: int = Field(default=256, gt=0, description="jobs a worker holds at once")
    agent_target: Annotated[str, Shared()] = Field(description="host:port of the agent service")
    heartbeat_seconds: float = Field(default=10.0, gt=0, description="of silence before a stream says that it lives")
    runs_at_once: int = Field(default=1000, gt=0, description="runs of a tenant in progress before RUNS_FULL")
    silence_seconds: float = Field(
        default=60.0, gt=0, description="without a word of a task before the agent service is asked after it"
    )
