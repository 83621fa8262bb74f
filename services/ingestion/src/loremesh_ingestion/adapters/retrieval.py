"""The retrieval service's index."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from google.protobuf.struct_pb2 import Struct
from grpc.aio import Channel
from loremesh.retrieval.v1 import index_pb2 as pb
from loremesh.retrieval.v1 import index_pb2_grpc
from loremesh_kit import deadline, identity

from loremesh_ingestion.adapters.sibling import translated
from loremesh_ingestion.engine.batching import Batcher
from loremesh_ingestion.errors import IndexIncomplete
from loremesh_ingestion.ports import IndexedDocument, IndexedVersion, IndexEntry, Vector

_CHUNKS_AT_ONCE = 256  # of the 500 the service takes
_CALLS_AT_ONCE = 2
_WRITE_SECONDS = 60.0
_ASK_SECONDS = 15.0
_LIST_SECONDS = 900.0

_Key = tuple[str, str, int, str, int]  # tenant, vector store, generation, model, dimension
_Item = tuple[IndexedDocument, Sequence[IndexEntry]]


class GrpcSearchIndex:
    """Writes chunks of several documents in one call."""

    def __init__(self, *, channel: Channel) -> None:
        self._stub = index_pb2_grpc.IndexServiceStub(channel)
        self._batcher: Batcher[_Key, _Item, None] = Batcher(
            run=self._upsert, size=lambda item: len(item[1]), limit=_CHUNKS_AT_ONCE, at_once=_CALLS_AT_ONCE
        )

    async def upsert(self, document: IndexedDocument, entries: Sequence[IndexEntry]) -> None:
        """Write the chunks; raises IndexIncomplete when not all of them were."""
        if not entries:
            return
        dimension = len(entries[0].vector.dense)
        place = (document.vector_store_id, document.generation, document.embedding_model)
        await self._batcher.submit((identity.current().tenant, *place, dimension), (document, entries))

    async def _upsert(self, key: _Key, items: Sequence[_Item]) -> Sequence[None]:
        _, vector_store_id, generation, embedding_model, dimension = key
        request = pb.UpsertChunksRequest(
            vector_store_id=vector_store_id,
            generation=generation,
            embedding_model=embedding_model,
            dimension=dimension,
        )
        for document, entries in items:
            _add(request, document, entries)
        with translated("retrieval"):
            response = await self._stub.UpsertChunks(request, timeout=_WRITE_SECONDS)
        if response.upserted_count != len(request.chunks):
            raise IndexIncomplete
        return [None] * len(items)

    async def delete(
        self,
        *,
        vector_store_id: str,
        generation: int,
        embedding_model: str,
        document_id: str = "",
        before_version: int = 0,
    ) -> int:
        """Delete, and return how many there were."""
        request = pb.DeleteChunksRequest(
            vector_store_id=vector_store_id,
            generation=generation,
            embedding_model=embedding_model,
            document_id=document_id,
            before_version=before_version,
        )
        with translated("retrieval"):
            response = await self._stub.DeleteChunks(request, timeout=deadline.within(_ASK_SECONDS))
        return response.deleted_count

    async def vectors(self, document: IndexedDocument, chunk_ids: Sequence[str]) -> Mapping[str, Vector]:
        """Read what the index holds of these chunks."""
        if not chunk_ids:
            return {}
        request = pb.GetChunkVectorsRequest(
            vector_store_id=document.vector_store_id,
            generation=document.generation,
            embedding_model=document.embedding_model,
            chunk_ids=chunk_ids,
        )
        with translated("retrieval"):
            response = await self._stub.GetChunkVectors(request, timeout=_ASK_SECONDS)
        return {each.chunk_id: Vector(each.dense, each.sparse_indices, each.sparse_values) for each in response.vectors}

    async def update(self, document: IndexedDocument) -> None:
        """Replace title and attributes."""
        request = pb.UpdateDocumentAttributesRequest(
            vector_store_id=document.vector_store_id,
            generation=document.generation,
            embedding_model=document.embedding_model,
            document_id=document.document_id,
            title=document.title,
            attributes=_struct(document.attributes),
        )
        with translated("retrieval"):
            await self._stub.UpdateDocumentAttributes(request, timeout=_ASK_SECONDS)

    async def count(self, document: IndexedDocument) -> int:
        """Count what the index holds of this version."""
        request = pb.CountChunksRequest(
            vector_store_id=document.vector_store_id,
            generation=document.generation,
            embedding_model=document.embedding_model,
            document_id=document.document_id,
            document_version=document.version,
        )
        with translated("retrieval"):
            response = await self._stub.CountChunks(request, timeout=_ASK_SECONDS)
        return response.count

    async def versions(
        self, *, vector_store_id: str, embedding_model: str, generation: int = 1
    ) -> AsyncIterator[Sequence[IndexedVersion]]:
        """As they come."""
        request = pb.ListIndexedVersionsRequest(
            vector_store_id=vector_store_id, generation=generation, embedding_model=embedding_model
        )
        with translated("retrieval"):
            async for part in self._stub.ListIndexedVersions(request, timeout=deadline.within(_LIST_SECONDS)):
                yield [
                    IndexedVersion(each.document_id, each.document_version, each.chunk_count) for each in part.versions
                ]


def _add(request: pb.UpsertChunksRequest, document: IndexedDocument, entries: Sequence[IndexEntry]) -> None:
    attributes = _struct(document.attributes)
    for entry in entries:
        chunk = entry.chunk
        request.chunks.add(
            chunk_id=entry.id,
            document_id=document.document_id,
            document_version=document.version,
            index=chunk.index,
            title=document.title,
            content=chunk.text,
            attributes=attributes,
            page=chunk.page,
            start_char=chunk.start,
            end_char=chunk.end,
            heading_path=chunk.heading_path,
            dense=entry.vector.dense,
            sparse_indices=entry.vector.sparse_indices,
            sparse_values=entry.vector.sparse_values,
        )


def _struct(attributes: Any) -> Struct:
    struct = Struct()
    struct.update(attributes)
    return struct
