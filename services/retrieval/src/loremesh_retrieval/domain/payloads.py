"""A chunk as the payload of a point, and back."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from loremesh_retrieval.domain.attributes import comparable, numbers, terms, times
from loremesh_retrieval.domain.chunks import Chunk, DocumentVersion
from loremesh_retrieval.domain.scope import Scope


def payload_of(scope: Scope, chunk: Chunk) -> dict[str, Any]:
    """What the index stores beside the vectors."""
    return {
        "scope": scope.key,
        "tenant": scope.tenant,
        "vector_store_id": scope.vector_store_id,
        "chunk_id": chunk.chunk_id,
        "document_id": chunk.document_id,
        "document_version": chunk.document_version,
        "index": chunk.index,
        "content": chunk.content,
        "page": chunk.page,
        "start_char": chunk.start_char,
        "end_char": chunk.end_char,
        "heading_path": list(chunk.heading_path),
        **described(chunk.title, chunk.attributes),
    }


def described(title: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a payload that changes when a document is described anew."""
    seen = comparable(attributes)
    return {
        "title": title,
        "attributes": dict(attributes),
        "terms": terms(seen),
        "numbers": numbers(seen),
        "times": times(seen),
    }


def range_fields(attributes: Iterable[Mapping[str, Any]]) -> list[str]:
    """The numeric fields by which these attributes are ordered."""
    fields: dict[str, None] = {}
    for each in attributes:
        seen = comparable(each)
        fields.update((f'numbers."{key}"', None) for key in numbers(seen))
        fields.update((f'times."{key}"', None) for key in times(seen))
    return list(fields)


VERSION = ("document_id", "document_version")


def versions_in(payloads: Iterable[Mapping[str, Any] | None]) -> Counter[DocumentVersion]:
    """How many of the payloads, which have at least the fields VERSION, are of which version."""
    return Counter(version_in(each) for each in payloads if each)


def version_in(payload: Mapping[str, Any]) -> DocumentVersion:
    """What a payload, which has at least the fields VERSION, is a chunk of."""
    return DocumentVersion(*(payload[name] for name in VERSION))


def chunk_in(payload: Mapping[str, Any]) -> Chunk:
    """The chunk a payload holds."""
    return Chunk(
        chunk_id=payload["chunk_id"],
        document_id=payload["document_id"],
        document_version=payload["document_version"],
        index=payload["index"],
        title=payload["title"],
        content=payload["content"],
        attributes=payload["attributes"],
        page=payload["page"],
        start_char=payload["start_char"],
        end_char=payload["end_char"],
        heading_path=payload["heading_path"],
    )
