"""A vector store: documents which are searched together, with one embedding model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from loremesh_ingestion.domain.chunking import ChunkingStrategy

DEFAULT_ID = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorStore:
    """A vector store's row, with the number of documents in it."""

    id: str
    display_name: str = ""
    description: str = ""
    embedding_model: str
    chunking_strategy: ChunkingStrategy = field(default_factory=ChunkingStrategy)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    document_count: int = 0
    generation: int = 1
    revision: int = 1
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def etag(self) -> str:
        """Changes with every update."""
        return str(self.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorStoreChange:
    """New values; None leaves a value as it is."""

    display_name: str | None = None
    description: str | None = None
    chunking_strategy: ChunkingStrategy | None = None
    attributes: Mapping[str, Any] | None = None
