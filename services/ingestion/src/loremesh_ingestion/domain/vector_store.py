"""A vector store: documents which are searched together, with one embedding model."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from loremesh_ingestion.domain.chunking import ChunkingStrategy

DEFAULT_ID = "default"


@dataclass(frozen=True, slots=True)
class VectorStore:
    """A vector store's row, with the number of documents in it."""

    id: str
    display_name: str
    description: str
    embedding_model: str
    chunking_strategy: ChunkingStrategy
    attributes: Mapping[str, Any]
    document_count: int
    revision: int
    create_time: datetime
    update_time: datetime

    @property
    def etag(self) -> str:
        """Changes with every update."""
        return str(self.revision)
