"""Our conditions and points in the types of qdrant-client."""

from collections.abc import Mapping, Sequence
from typing import Any

from qdrant_client import models

from loremesh_retrieval.domain import queries
from loremesh_retrieval.domain.chunks import ChunkVectors, IndexedChunk, SparseVector
from loremesh_retrieval.domain.conditions import All, Between, Condition, Either, Holds, IsPoint, Never
from loremesh_retrieval.domain.payloads import payload_of
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import Branch, QueryVectors

DENSE, SPARSE = "dense", "bm25"


def collection(dimension: int) -> Mapping[str, Any]:
    """How a collection is made: dense cosine and BM25 side by side, a graph for each scope and none over them all."""
    return {
        "vectors_config": {DENSE: models.VectorParams(size=dimension, distance=models.Distance.COSINE)},
        "sparse_vectors_config": {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
        "hnsw_config": models.HnswConfigDiff(m=0, payload_m=16),
    }


def keyword_indexes() -> Mapping[str, models.KeywordIndexParams]:
    """The payload indexes every collection has; only what every search names gets graphs."""
    keyword = models.KeywordIndexType.KEYWORD
    return {
        queries.SCOPE: models.KeywordIndexParams(type=keyword, is_tenant=True),
        **{name: models.KeywordIndexParams(type=keyword, enable_hnsw=False) for name in queries.KEYWORDS},
    }


def where(conditions: All) -> models.Filter:
    """A filter of the conditions."""
    return models.Filter(must=[_condition(each) for each in conditions.conditions])


def _condition(condition: Condition) -> models.Condition:
    match condition:
        case Holds(field, values):
            match = models.MatchValue(value=values[0]) if len(values) == 1 else models.MatchAny(any=list(values))
            return models.FieldCondition(key=field, match=match)
        case Between(field=field):
            bounds = models.Range(gt=condition.gt, gte=condition.gte, lt=condition.lt, lte=condition.lte)
            return models.FieldCondition(key=field, range=bounds)
        case IsPoint(ids):
            return models.HasIdCondition(has_id=list(ids))
        case All(inner):
            return models.Filter(must=[_condition(each) for each in inner])
        case Either(inner):
            return models.Filter(should=[_condition(each) for each in inner])
        case Never(inner):
            return models.Filter(must_not=[_condition(inner)])


def rankings(
    vectors: QueryVectors, *, limit: int, seen: models.Filter, corpus: models.Filter
) -> Mapping[Branch, models.QueryRequest]:
    """A query for each branch; `corpus` is what term statistics are taken over."""
    asked: dict[Branch, models.QueryRequest] = {}
    if vectors.dense is not None:
        asked[Branch.DENSE] = models.QueryRequest(query=list(vectors.dense), using=DENSE, filter=seen, limit=limit)
    if vectors.sparse is not None:
        asked[Branch.SPARSE] = by_terms(vectors.sparse, limit=limit, seen=seen, corpus=corpus)
    return asked


def by_terms(
    terms: SparseVector, *, limit: int, seen: models.Filter, corpus: models.Filter, fields: Sequence[str] = ()
) -> models.QueryRequest:
    """A query by terms, with these fields of what it finds."""
    return models.QueryRequest(
        query=models.SparseVector(indices=list(terms.indices), values=list(terms.values)),
        using=SPARSE,
        filter=seen,
        limit=limit,
        params=models.SearchParams(idf=models.IdfCorpusParams(corpus=corpus)),
        with_payload=list(fields) or None,
    )


def points(scope: Scope, chunks: Sequence[IndexedChunk]) -> list[models.PointStruct]:
    """The points that hold the chunks."""
    return [
        models.PointStruct(
            id=scope.point_id(indexed.chunk.chunk_id),
            vector=_vectors(indexed),
            payload=payload_of(scope, indexed.chunk),
        )
        for indexed in chunks
    ]


def _vectors(indexed: IndexedChunk) -> dict[str, Any]:
    vectors: dict[str, Any] = {DENSE: list(indexed.dense)}
    if indexed.sparse.indices:
        vectors[SPARSE] = models.SparseVector(indices=list(indexed.sparse.indices), values=list(indexed.sparse.values))
    return vectors


def vectors_in(vectors: Any) -> ChunkVectors:
    """The vectors a point holds; one without terms has no sparse vector."""
    sparse = vectors.get(SPARSE)
    return ChunkVectors(
        tuple(vectors[DENSE]),
        SparseVector(tuple(sparse.indices), tuple(sparse.values)) if sparse else SparseVector((), ()),
    )
