"""Writes the index: checks what comes in, and lets go of what is remembered about a removed store."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from loremesh_kit import identity
from loremesh_kit.errors import InvalidField

from loremesh_retrieval.directory import RememberedDirectory
from loremesh_retrieval.domain.attributes import check_finite
from loremesh_retrieval.domain.chunks import IndexedChunk
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.errors import DimensionMismatch
from loremesh_retrieval.ports import ChunkStore


class IndexingEngine:
    """Writes, deletes, describes and counts the caller's chunks."""

    def __init__(self, *, store: ChunkStore, vector_stores: RememberedDirectory) -> None:
        self._store = store
        self._vector_stores = vector_stores

    async def upsert(self, vector_store_id: str, model: str, dimension: int, chunks: Sequence[IndexedChunk]) -> int:
        """Write chunks and say how many; raises DimensionMismatch, InvalidField, AttributesInvalid."""
        for position, indexed in enumerate(chunks):
            _check(indexed, model=model, dimension=dimension, field=f"chunks[{position}]")
        scope = _scope(vector_store_id)
        self._vector_stores.contradict(scope, model)
        await self._store.upsert(model, dimension, scope, chunks)
        return len(chunks)

    async def delete(self, vector_store_id: str, model: str, *, document_id: str = "", before_version: int = 0) -> int:
        """Delete chunks and say how many there were."""
        scope = _scope(vector_store_id)
        deleted = await self._store.delete(model, scope, document_id=document_id, before_version=before_version)
        if not document_id and not before_version:
            self._vector_stores.forget(scope)
        return deleted

    async def describe(
        self, vector_store_id: str, model: str, *, document_id: str, title: str, attributes: Mapping[str, Any]
    ) -> None:
        """Replace a document's title and attributes; raises AttributesInvalid."""
        check_finite(attributes, field="attributes")
        await self._store.describe(
            model, _scope(vector_store_id), document_id=document_id, title=title, attributes=attributes
        )

    async def count(self, vector_store_id: str, model: str, *, document_id: str = "", version: int = 0) -> int:
        """How many chunks there are."""
        return await self._store.count(model, _scope(vector_store_id), document_id=document_id, version=version)


def _scope(vector_store_id: str) -> Scope:
    return Scope(tenant=identity.current().tenant, vector_store_id=vector_store_id)


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
