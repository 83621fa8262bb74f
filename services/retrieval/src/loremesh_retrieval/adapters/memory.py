"""An index in memory: exact, slow and small; the oracle the engines are measured against."""

import math
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from loremesh_kit.filters import Filter, matches
from numpy.typing import NDArray

from loremesh_retrieval.domain.attributes import comparable
from loremesh_retrieval.domain.chunks import Chunk, ChunkVectors, DocumentVersion, IndexedChunk, SparseVector
from loremesh_retrieval.domain.collections import check_dimension
from loremesh_retrieval.domain.ranking import Hit, ranked
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import Branch, QueryVectors


@dataclass
class _Collection:
    dimension: int
    points: dict[Scope, dict[str, IndexedChunk]] = field(default_factory=dict)


class MemoryIndex:
    """Keeps chunks in dictionaries and looks at every one."""

    def __init__(self) -> None:
        self._collections: dict[str, _Collection] = {}

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
        """See ports.ChunkSearch."""
        collection = self._collections.get(model)
        points = collection.points.get(scope, {}) if collection else {}
        if collection and vectors.dense is not None:
            check_dimension(model, expected=collection.dimension, actual=len(vectors.dense))
        wanted = None if point_ids is None else set(point_ids)
        seen = {
            point_id: indexed
            for point_id, indexed in points.items()
            if (wanted is None or point_id in wanted)
            and indexed.chunk.of not in excluded
            and (filter_ is None or matches(filter_, comparable(indexed.chunk.attributes)))
        }
        rankings: dict[Branch, list[Hit]] = {}
        if vectors.dense is not None:
            rankings[Branch.DENSE] = ranked(_cosines(vectors.dense, seen))[:limit]
        if vectors.sparse is not None:
            rankings[Branch.SPARSE] = ranked(_bm25(vectors.sparse, seen, corpus=points.values()))[:limit]
        return rankings

    async def fetch(self, model: str, scope: Scope, point_ids: Sequence[str]) -> Mapping[str, Chunk]:
        """See ports.ChunkSearch."""
        points = self._points(model, scope)
        return {point_id: points[point_id].chunk for point_id in point_ids if point_id in points}

    async def rank_terms(
        self, model: str, scope: Scope, terms: SparseVector, *, limit: int, filter_: Filter | None = None
    ) -> Mapping[Hit, DocumentVersion]:
        """See ports.ChunkSearch."""
        rankings = await self.rank(model, scope, QueryVectors(dense=None, sparse=terms), limit=limit, filter_=filter_)
        ranking = rankings.get(Branch.SPARSE, ())
        chunks = await self.fetch(model, scope, [hit.point_id for hit in ranking])
        return {hit: chunks[hit.point_id].of for hit in ranking if hit.point_id in chunks}

    async def ping(self) -> None:
        """Never down."""

    async def upsert(self, model: str, dimension: int, scope: Scope, chunks: Sequence[IndexedChunk]) -> None:
        """See ports.ChunkStore."""
        collection = self._collections.setdefault(model, _Collection(dimension))
        check_dimension(model, expected=collection.dimension, actual=dimension)
        points = collection.points.setdefault(scope, {})
        points.update((scope.point_id(indexed.chunk.chunk_id), indexed) for indexed in chunks)

    async def delete(self, model: str, scope: Scope, *, document_id: str = "", before_version: int = 0) -> int:
        """See ports.ChunkStore."""
        points = self._points(model, scope)
        doomed = [
            point_id
            for point_id, indexed in points.items()
            if _is_of(indexed.chunk, document_id)
            and (not before_version or indexed.chunk.document_version < before_version)
        ]
        for point_id in doomed:
            del points[point_id]
        return len(doomed)

    async def describe(
        self, model: str, scope: Scope, *, document_id: str, title: str, attributes: Mapping[str, Any]
    ) -> None:
        """See ports.ChunkStore."""
        points = self._points(model, scope)
        for point_id, indexed in points.items():
            if _is_of(indexed.chunk, document_id):
                points[point_id] = replace(indexed, chunk=replace(indexed.chunk, title=title, attributes=attributes))

    async def count(self, model: str, scope: Scope, *, document_id: str = "", version: int = 0) -> int:
        """See ports.ChunkStore."""
        return sum(
            _is_of(indexed.chunk, document_id) and version in (0, indexed.chunk.document_version)
            for indexed in self._points(model, scope).values()
        )

    async def vectors(self, model: str, scope: Scope, chunk_ids: Sequence[str]) -> Mapping[str, ChunkVectors]:
        """See ports.ChunkStore."""
        points = self._points(model, scope)
        found = {chunk_id: points.get(scope.point_id(chunk_id)) for chunk_id in chunk_ids}
        return {chunk_id: ChunkVectors(indexed.dense, indexed.sparse) for chunk_id, indexed in found.items() if indexed}

    async def versions(self, model: str, scope: Scope) -> AsyncIterator[Mapping[DocumentVersion, int]]:
        """See ports.ChunkStore."""
        for indexed in list(self._points(model, scope).values()):
            yield {indexed.chunk.of: 1}

    def _points(self, model: str, scope: Scope) -> dict[str, IndexedChunk]:
        collection = self._collections.get(model)
        return collection.points.get(scope, {}) if collection else {}


def _is_of(chunk: Chunk, document_id: str) -> bool:
    return document_id in ("", chunk.document_id)


def _cosines(query: Sequence[float], points: Mapping[str, IndexedChunk]) -> Iterable[Hit]:
    unit = _unit(query)
    for point_id, indexed in points.items():
        yield Hit(point_id, float((_unit(indexed.dense) * unit).sum()))


def _unit(vector: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(vector, np.float64)
    length = float(np.linalg.norm(array))
    return array / length if length else array


def _bm25(query: SparseVector, points: Mapping[str, IndexedChunk], *, corpus: Iterable[IndexedChunk]) -> Iterable[Hit]:
    documents = [set(indexed.sparse.indices) for indexed in corpus if indexed.sparse.indices]
    weights = {
        term: value * _idf(len(documents), sum(term in document for document in documents))
        for term, value in zip(query.indices, query.values, strict=True)
    }
    for point_id, indexed in points.items():
        shared = [
            value * weights[term]
            for term, value in zip(indexed.sparse.indices, indexed.sparse.values, strict=True)
            if term in weights
        ]
        if shared:
            yield Hit(point_id, sum(shared))


def _idf(documents: int, holding: int) -> float:
    return math.log((documents - holding + 0.5) / (holding + 0.5) + 1)
