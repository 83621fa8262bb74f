"""A chunk of a document, the vectors it is found by, and the version it is of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class DocumentVersion(NamedTuple):
    """A version of a document."""

    document_id: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage, with all it takes to find it in its document; offsets count code points, `end_char` is exclusive."""

    chunk_id: str
    document_id: str
    document_version: int
    index: int
    title: str
    content: str = field(repr=False)
    attributes: Mapping[str, Any]
    page: int | None
    start_char: int
    end_char: int
    heading_path: Sequence[str]

    @property
    def of(self) -> DocumentVersion:
        """What it is a chunk of."""
        return DocumentVersion(self.document_id, self.document_version)


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Weights of terms; `indices` are strictly increasing and as many as `values`."""

    indices: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class ChunkVectors:
    """The vectors a chunk is found by."""

    dense: Sequence[float]
    sparse: SparseVector


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedChunk:
    """A chunk with its vectors."""

    chunk: Chunk
    dense: Sequence[float]
    sparse: SparseVector
