"""Writes the index, and reads what it holds: checks what comes in."""

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from loremesh_kit import identity
from loremesh_kit.errors import InvalidField

from loremesh_retrieval.domain.attributes import check_finite
from loremesh_retrieval.domain.chunks import ChunkVectors, DocumentVersion, IndexedChunk
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.errors import DimensionMismatch
from loremesh_retrieval.ports import ChunkStore


class IndexingEngine:
    """Writes, deletes, describes, counts and lists the caller's chunks; a generation of 0 is the first."""

    def __init__(self, *, store: ChunkStore) -> None:
        self._store = store

    async def upsert(
        self, vector_store_id: str, generation: int, model: str, dimension: int, chunks: Sequence[IndexedChunk]
    ) -> int:
        """Write chunks and say how many; raises DimensionMismatch, InvalidField, AttributesInvalid."""
        for position, indexed in enumerate(chunks):
            _check(indexed, model=model, dimension=dimension, field=f"chunks[{position}]")
        await self._store.upsert(model, dimension, _scope(vector_store_id, generation), chunks)
        return len(chunks)

    async def delete(
        self, vector_store_id: str, generation: int, model: str, *, document_id: str = "", before_version: int = 0
    ) -> int:
        """Delete chunks and say how many there were."""
        scope = _scope(vector_store_id, generation)
        return await self._store.delete(model, scope, document_id=document_id, before_version=before_version)

    async def describe(
        self,
        vector_store_id: str,
        generation: int,
        model: str,
        *,
        document_id: str,
        title: str,
        attributes: Mapping[str, Any],
    ) -> None:
        """Replace a document's title and attributes; raises AttributesInvalid."""
        check_finite(attributes, field="attributes")
        scope = _scope(vector_store_id, generation)
        await self._store.describe(model, scope, document_id=document_id, title=title, attributes=attributes)

    async def count(
        self, vector_store_id: str, generation: int, model: str, *, document_id: str = "", version: int = 0
    ) -> int:
        """How many chunks there are."""
        scope = _scope(vector_store_id, generation)
        return await self._store.count(model, scope, document_id=document_id, version=version)

    async def vectors(
        self, vector_store_id: str, generation: int, model: str, chunk_ids: Sequence[str]
    ) -> Mapping[str, ChunkVectors]:
        """The vectors of those chunks that are there."""
        return await self._store.vectors(model, _scope(vector_store_id, generation), chunk_ids)

    def versions(
        self, vector_store_id: str, generation: int, model: str
    ) -> AsyncIterator[Mapping[DocumentVersion, int]]:
        """How many chunks of which version there are, in parts to be added up."""
        return self._store.versions(model, _scope(vector_store_id, generation))


def _scope(vector_store_id: str, generation: int) -> Scope:
    return Scope(identity.current().tenant, vector_store_id, max(1, generation))


def _check(indexed: IndexedChunk, *, model: str, dimension: int, field: str) -> None:
    if len(indexed.dense) != dimension:
        raise DimensionMismatch(model=model, expected=dimension, actual=len(indexed.dense))
    indices, values = indexed.sparse.indices, indexed.sparse.values
    if len(indices) != len(values):
        raise InvalidField("There must be as many values as indices.", field=f"{field}.sparse_values")
    if any(first >= second for first, second in pairwise(indices)):
        raise InvalidField("Indices must be strictly increasing.", field=f"{field}.sparse_indices")
    # One sum in place of a look at each number: it is finite only if all of them are.
    if not math.isfinite(sum(indexed.dense)) or not math.isfinite(sum(values)):
        raise InvalidField("Vectors must be finite numbers.", field=f"{field}.dense")
    check_finite(indexed.chunk.attributes, field=f"{field}.attributes")
