"""What the use cases need of the world outside, each named for the need."""

from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from loremesh_ingestion.domain.chunking import Chunk, ChunkingStrategy
from loremesh_ingestion.parsing.result import Parsed


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's key, and when it was written."""

    key: str
    write_time: datetime


class BlobStore(Protocol):
    """Keeps bytes under keys. Every method raises DependencyUnavailable when the store does not answer."""

    async def write(self, key: str, pieces: AsyncIterable[bytes]) -> None:
        """Store the pieces as one object, holding a few MiB of them at most; nothing is stored if `pieces` raises."""
        ...

    def read(self, key: str, *, first: int = 0, last: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes from `first` up to and including `last` (None is the end), in pieces."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those which are not there count as removed."""
        ...

    async def delete_all(self, prefix: str) -> int:
        """Remove every object whose key begins with `prefix`, and say how many there were."""
        ...

    def entries(self, prefix: str) -> AsyncIterator[Sequence[StoredObject]]:
        """Every object whose key begins with `prefix`, up to 1,000 at a time."""
        ...

    async def link(self, key: str, *, filename: str, media_type: str, seconds: int) -> str:
        """A URL by which anybody can read the object for so long, under that name and type."""
        ...


class Parser(Protocol):
    """Reads documents and cuts them into chunks."""

    async def parse_and_chunk(
        self, path: Path, *, filename: str, declared_media_type: str, strategy: ChunkingStrategy, directory: Path
    ) -> Parsed:
        """Write the text and the chunks of the file at `path` into `directory`.

        Raises a DocumentUnreadable for what the document is to blame, ParserCrashed for what it may not be.
        """
        ...


@dataclass(frozen=True, slots=True)
class Vector:
    """A text's vectors: dense of unit length, sparse as term ids with weights."""

    dense: Sequence[float]
    sparse_indices: Sequence[int]
    sparse_values: Sequence[float]


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A model for dense vectors; `max_input_tokens` is 0 where it is unknown or unlimited."""

    id: str
    dimension: int
    max_input_tokens: int
    default: bool


class Embedder(Protocol):
    """Turns text into vectors."""

    async def embed(self, texts: Sequence[str], *, model: str) -> Sequence[Vector]:
        """One vector per text. Raises DependencyUnavailable, and what the embedding service refuses."""
        ...

    async def models(self) -> Sequence[EmbeddingModel]:
        """The models for dense vectors. Raises DependencyUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A chunk with its id and vector."""

    id: str
    chunk: Chunk
    vector: Vector


@dataclass(frozen=True, slots=True)
class IndexedDocument:
    """Which document's version, and what each of its chunks carries in the index."""

    vector_store_id: str
    generation: int
    embedding_model: str
    document_id: str
    version: int
    title: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IndexedVersion:
    """How many chunks of a document's version are in the index."""

    document_id: str
    version: int
    chunk_count: int


class SearchIndex(Protocol):
    """Holds chunks to be searched. Every method is idempotent and raises DependencyUnavailable."""

    async def upsert(self, document: IndexedDocument, entries: Sequence[IndexEntry]) -> None:
        """Write the chunks; searches see them when it returns."""
        ...

    async def delete(
        self,
        *,
        vector_store_id: str,
        generation: int,
        embedding_model: str,
        document_id: str = "",
        before_version: int = 0,
    ) -> int:
        """Remove a document's chunks, or all of a generation; with `before_version` only older ones. How many."""
        ...

    async def vectors(self, document: IndexedDocument, chunk_ids: Sequence[str]) -> Mapping[str, Vector]:
        """The vectors of chunks of the document, at most 500, by id; those which are not there are left out."""
        ...

    async def update(self, document: IndexedDocument) -> None:
        """Replace title and attributes on all chunks of the document."""
        ...

    async def count(self, document: IndexedDocument) -> int:
        """How many chunks of the document's version there are."""
        ...

    def versions(
        self, *, vector_store_id: str, embedding_model: str, generation: int = 1
    ) -> AsyncIterator[Sequence[IndexedVersion]]:
        """What the index of a vector store holds, in parts; the counts of a version are to be added up."""
        ...
