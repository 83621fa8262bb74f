"""What retrieval needs from outside."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from loremesh_kit.filters import Filter

from loremesh_retrieval.domain.chunks import Chunk, ChunkVectors, DocumentVersion, IndexedChunk, SparseVector
from loremesh_retrieval.domain.liveness import Live
from loremesh_retrieval.domain.ranking import Hit
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import Branch, QueryVectors


class ChunkSearch(Protocol):
    """Finds chunks in the index of an embedding model; where there is none yet, nothing is found."""

    async def rank(
        self,
        model: str,
        scope: Scope,
        vectors: QueryVectors,
        *,
        limit: int,
        filter_: Filter | None = None,
        point_ids: Sequence[str] | None = None,
        excluded: Collection[DocumentVersion] = (),
    ) -> Mapping[Branch, list[Hit]]:
        """The best chunks of each branch whose vector is given, as `ranking.ranked` orders them.

        `point_ids` scores these points only, `excluded` leaves out chunks of these versions. Which of several tied at
        the limit are among the best is left open. Dense scores are cosines; sparse ones BM25 with term statistics of
        the scope alone, so that no tenant's documents show in another's scores, and only of chunks which share a term.
        Raises DimensionMismatch.
        """
        ...

    async def fetch(self, model: str, scope: Scope, point_ids: Sequence[str]) -> Mapping[str, Chunk]:
        """Chunks by point id; those that are not in the scope are left out."""
        ...

    async def rank_terms(
        self, model: str, scope: Scope, terms: SparseVector, *, limit: int, filter_: Filter | None = None
    ) -> Mapping[Hit, DocumentVersion]:
        """The sparse branch of `rank` alone, best first, with what each hit is a chunk of."""
        ...

    async def ping(self) -> None:
        """Raise when the engine does not answer."""
        ...


class ChunkStore(Protocol):
    """Keeps chunks in the index of an embedding model; what it did is visible to searches when it returns."""

    async def upsert(self, model: str, dimension: int, scope: Scope, chunks: Sequence[IndexedChunk]) -> None:
        """Write at most 500 chunks, replacing those of the same id; makes the index. Raises DimensionMismatch."""
        ...

    async def delete(self, model: str, scope: Scope, *, document_id: str = "", before_version: int = 0) -> int:
        """Delete the scope's chunks, of one document and of older versions only if so given; how many there were."""
        ...

    async def describe(
        self, model: str, scope: Scope, *, document_id: str, title: str, attributes: Mapping[str, Any]
    ) -> None:
        """Replace title and attributes on every chunk of a document."""
        ...

    async def count(self, model: str, scope: Scope, *, document_id: str = "", version: int = 0) -> int:
        """How many chunks the scope holds, of one document and one version only if so given."""
        ...

    async def vectors(self, model: str, scope: Scope, chunk_ids: Sequence[str]) -> Mapping[str, ChunkVectors]:
        """The vectors of at most 500 chunks by their ids; those that are not in the scope are left out."""
        ...

    def versions(self, model: str, scope: Scope) -> AsyncIterator[Mapping[DocumentVersion, int]]:
        """How many chunks of which version the scope holds, in parts to be added up, each of at most 1,000 versions."""
        ...


class Index(ChunkSearch, ChunkStore, Protocol):
    """What an engine's adapter offers."""


class Embedder(Protocol):
    """Turns a query into vectors."""

    async def embed(self, model: str, query: str, *, branches: Sequence[Branch]) -> QueryVectors:
        """The vectors for these branches; raises QueryEmpty, EmbeddingModelUnavailable, DependencyUnavailable."""
        ...


class Reranker(Protocol):
    """Scores how well passages answer a query."""

    async def rerank(self, model: str, query: str, passages: Sequence[str]) -> Sequence[float]:
        """One score for each passage, in their order; raises InvalidField, DependencyUnavailable."""
        ...


class Liveness(Protocol):
    """Knows what may be shown at this instant of the caller's vector stores."""

    async def resolve(self, vector_store_id: str, *, generation: int = 0, document_ids: Iterable[str] = ()) -> Live:
        """The generation (0: the live one), its model, and the live versions of at most 1,000 documents in it.

        Raises VectorStoreNotFound, GenerationNotFound, DependencyUnavailable.
        """
        ...
