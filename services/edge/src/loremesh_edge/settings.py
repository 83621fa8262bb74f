"""The edge service's settings: where its sisters are."""

from collections.abc import Mapping
from typing import Annotated

from loremesh_kit.settings import ServiceSettings, Shared
from pydantic import Field
from pydantic_settings import SettingsConfigDict


class EdgeSettings(ServiceSettings):
    """Read from EDGE_<NAME>; the targets also from <NAME>."""

    model_config = SettingsConfigDict(env_prefix="EDGE_")

    ingestion_target: Annotated[str, Shared()] = "127.0.0.1:50051"
    embedding_target: Annotated[str, Shared()] = "127.0.0.1:50052"
    retrieval_target: Annotated[str, Shared()] = "127.0.0.1:50053"
    agent_target: Annotated[str, Shared()] = "127.0.0.1:50054"
    crew_target: Annotated[str, Shared()] = "127.0.0.1:50055"
    readiness_seconds: float = Field(default=2.0, gt=0, description="seconds each service gets to say how it is")
    websocket_listen: str = Field(default="127.0.0.1:0", description="host:port to serve WebSockets on")
    websocket_connections: int = Field(default=256, gt=0, description="WebSockets open at once before OVERLOADED")
    websocket_idle_seconds: float = Field(default=300.0, gt=0, description="until one without a run is closed")

    @property
    def targets(self) -> Mapping[str, str]:
        """Every service of the mesh but this one, and its host:port."""
        return {
            "ingestion": self.ingestion_target,
            "embedding": self.embedding_target,
            "retrieval": self.retrieval_target,
            "agent": self.agent_target,
            "crew": self.crew_target,
        }
