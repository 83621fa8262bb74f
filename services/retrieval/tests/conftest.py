"""The index of every engine, and chunks to fill it with."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from loremesh_kit import testing
from loremesh_kit.identity import Identity
from loremesh_retrieval.domain.chunks import Chunk, IndexedChunk, SparseVector

MakeChunk = Callable[..., IndexedChunk]


@pytest.fixture
def make_chunk() -> MakeChunk:
    return _make_chunk


def _make_chunk(
    name: str = "a",
    *,
    dense: Sequence[float] = (1.0, 0.0, 0.0, 0.0),
    terms: Mapping[int, float] | None = None,
    document_id: str = "d",
    version: int = 1,
    attributes: Mapping[str, Any] | None = None,
    **fields: Any,
) -> IndexedChunk:
    weights = {1: 1.0} if terms is None else terms
    chunk = {
        "chunk_id": str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
        "document_id": document_id,
        "document_version": version,
        "index": 0,
        "title": "a title",
        "content": f"the content of {name}",
        "attributes": attributes or {},
        "page": None,
        "start_char": 0,
        "end_char": 10,
        "heading_path": [],
    }
    return IndexedChunk(
        chunk=Chunk(**{**chunk, **fields}),
        dense=dense,
        sparse=SparseVector(sorted(weights), [weights[term] for term in sorted(weights)]),
    )


@pytest.fixture
def caller() -> Iterator[Identity]:
    with testing.caller() as identity:
        yield identity
