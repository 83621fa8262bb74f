"""Our conditions and points in Qdrant Edge's own types."""

import os
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import qdrant_edge as edge

from loremesh_retrieval.domain import queries
from loremesh_retrieval.domain.chunks import ChunkVectors, DocumentVersion, IndexedChunk, SparseVector
from loremesh_retrieval.domain.conditions import All, Between, Condition, Either, Holds, IsPoint, Never
from loremesh_retrieval.domain.payloads import VERSION, payload_of, version_in
from loremesh_retrieval.domain.ranking import Hit, ranked
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import Branch, QueryVectors

DENSE, SPARSE = "dense", "bm25"
_NEVER = 10**9


def configuration(dimension: int) -> edge.EdgeConfig:
    """Dense cosine and BM25 side by side; no graph: its making stops the process for seconds."""
    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)},
        sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=_NEVER),
        # More of them than cores only take turns: eight on two cores make a small search half as long again.
        max_search_threads=len(os.sched_getaffinity(0)),
    )


def keyword_indexes() -> list[edge.UpdateOperation]:
    """The payload indexes every shard has."""
    create = edge.UpdateOperation.create_field_index
    return [
        create(queries.SCOPE, edge.KeywordIndexParams(is_tenant=True)),
        *(create(name, edge.KeywordIndexParams()) for name in queries.KEYWORDS),
    ]


def where(conditions: All) -> edge.Filter:
    """A filter of the conditions."""
    return edge.Filter(must=[_condition(each) for each in conditions.conditions])


def _condition(condition: Condition) -> Any:
    match condition:
        case Holds(field, values):
            # One value has a quicker way of its own.
            match = edge.MatchValue(values[0]) if len(values) == 1 else edge.MatchAny(list(values))
            return edge.FieldCondition(key=field, match=match)
        case Between(field=field):
            bounds = edge.RangeFloat(gt=condition.gt, gte=condition.gte, lt=condition.lt, lte=condition.lte)
            return edge.FieldCondition(key=field, range=bounds)
        case IsPoint(ids):
            return edge.HasIdCondition({UUID(each) for each in ids})
        case All(inner):
            return edge.Filter(must=[_condition(each) for each in inner])
        case Either(inner):
            return edge.Filter(should=[_condition(each) for each in inner])
        case Never(inner):
            return edge.Filter(must_not=[_condition(inner)])


def rank(
    shard: edge.EdgeShard, vectors: QueryVectors, *, limit: int, seen: edge.Filter, corpus: edge.Filter
) -> Mapping[Branch, list[Hit]]:
    """Rank the points of `seen` by each vector in one pass; `corpus` is what term statistics are taken over."""
    asked: dict[Branch, edge.QueryRequest] = {}
    if vectors.dense is not None:
        nearest = edge.Query.Nearest(list(vectors.dense), using=DENSE)
        asked[Branch.DENSE] = edge.QueryRequest(limit=limit, query=nearest, filter=seen)
    if vectors.sparse is not None:
        asked[Branch.SPARSE] = _by_terms(vectors.sparse, limit=limit, seen=seen, corpus=corpus)
    answers = shard.query_batch(edge.QueryBatchRequest(list(asked.values())))
    return {
        branch: ranked(Hit(digits(point.id), point.score) for point in answer)
        for branch, answer in zip(asked, answers, strict=True)
    }


def rank_terms(
    shard: edge.EdgeShard, terms: SparseVector, *, limit: int, seen: edge.Filter, corpus: edge.Filter
) -> Mapping[Hit, DocumentVersion]:
    """Rank the points of `seen` by terms alone; to read what they are of at once takes a third of reading it later."""
    fields = edge.PayloadSelector.Include(list(VERSION))
    asked = _by_terms(terms, limit=limit, seen=seen, corpus=corpus, fields=fields)
    (answer,) = shard.query_batch(edge.QueryBatchRequest([asked]))
    found = {Hit(digits(point.id), point.score): version_in(point.payload or {}) for point in answer}
    return {hit: found[hit] for hit in ranked(found)}


def _by_terms(
    terms: SparseVector, *, limit: int, seen: edge.Filter, corpus: edge.Filter, fields: Any = None
) -> edge.QueryRequest:
    sparse = edge.SparseVector(list(terms.indices), list(terms.values))
    return edge.QueryRequest(
        limit=limit,
        query=edge.Query.Nearest(sparse, using=SPARSE),
        filter=seen,
        params=edge.SearchParams(idf=edge.IdfParams(corpus=corpus)),
        with_payload=fields,
    )


def digits(point_id: object) -> str:
    """A point's id as `Scope.point_id` writes it."""
    return point_id.hex if isinstance(point_id, UUID) else str(point_id)


def points(scope: Scope, chunks: Sequence[IndexedChunk]) -> list[edge.Point]:
    """The points that hold the chunks."""
    return [
        edge.Point(
            id=scope.point_id(indexed.chunk.chunk_id),
            vector=_vectors(indexed),
            payload=payload_of(scope, indexed.chunk),
        )
        for indexed in chunks
    ]


def _vectors(indexed: IndexedChunk) -> dict[str, Any]:
    vectors: dict[str, Any] = {DENSE: list(indexed.dense)}
    if indexed.sparse.indices:
        vectors[SPARSE] = edge.SparseVector(list(indexed.sparse.indices), list(indexed.sparse.values))
    return vectors


def vectors_in(vectors: Any) -> ChunkVectors:
    """The vectors a point holds; one without terms has no sparse vector."""
    sparse = vectors.get(SPARSE)
    return ChunkVectors(
        tuple(vectors[DENSE]),
        SparseVector(tuple(sparse.indices), tuple(sparse.values)) if sparse else SparseVector((), ()),
    )
