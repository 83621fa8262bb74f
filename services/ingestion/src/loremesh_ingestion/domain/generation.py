"""A generation: one index of a vector store, by one embedding model and one chunking strategy."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from loremesh_ingestion.domain.chunking import ChunkingStrategy


class GenerationState(StrEnum):
    """Where a generation stands."""

    BUILDING = "BUILDING"
    COMPLETE = "COMPLETE"
    LIVE = "LIVE"


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation's row, with its documents counted; `missing` are those that keep it from being activated."""

    vector_store_id: str
    generation: int
    embedding_model: str
    chunking_strategy: ChunkingStrategy
    live: bool
    documents_ready: int
    documents_failed: int
    documents_total: int
    missing: int
    create_time: datetime
    activate_time: datetime | None

    @property
    def state(self) -> GenerationState:
        """LIVE, or whether it could be."""
        if self.live:
            return GenerationState.LIVE
        return GenerationState.BUILDING if self.missing else GenerationState.COMPLETE
