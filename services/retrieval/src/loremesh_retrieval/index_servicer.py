"""IndexService: what ingestion writes, and reads again."""

from collections.abc import AsyncIterator
from typing import Any

from grpc import aio
from loremesh.retrieval.v1 import index_pb2 as pb
from loremesh.retrieval.v1.index_pb2_grpc import IndexServiceServicer
from loremesh_kit.structs import plain

from loremesh_retrieval.domain.chunks import Chunk, IndexedChunk, SparseVector
from loremesh_retrieval.indexing import IndexingEngine

Context = aio.ServicerContext[Any, Any]


class IndexServicer(IndexServiceServicer):
    """Writes, counts and lists chunks."""

    def __init__(self, *, engine: IndexingEngine) -> None:
        self._engine = engine

    async def UpsertChunks(self, request: pb.UpsertChunksRequest, context: Context) -> pb.UpsertChunksResponse:  # noqa: N802
        """Write chunks."""
        del context
        count = await self._engine.upsert(
            request.vector_store_id,
            request.generation,
            request.embedding_model,
            request.dimension,
            [_indexed_chunk(chunk) for chunk in request.chunks],
        )
        return pb.UpsertChunksResponse(upserted_count=count)

    async def DeleteChunks(self, request: pb.DeleteChunksRequest, context: Context) -> pb.DeleteChunksResponse:  # noqa: N802
        """Delete chunks."""
        del context
        count = await self._engine.delete(
            request.vector_store_id,
            request.generation,
            request.embedding_model,
            document_id=request.document_id,
            before_version=request.before_version,
        )
        return pb.DeleteChunksResponse(deleted_count=count)

    async def UpdateDocumentAttributes(  # noqa: N802
        self, request: pb.UpdateDocumentAttributesRequest, context: Context
    ) -> pb.UpdateDocumentAttributesResponse:
        """Replace title and attributes."""
        del context
        await self._engine.describe(
            request.vector_store_id,
            request.generation,
            request.embedding_model,
            document_id=request.document_id,
            title=request.title,
            attributes=plain(request.attributes),
        )
        return pb.UpdateDocumentAttributesResponse()

    async def CountChunks(self, request: pb.CountChunksRequest, context: Context) -> pb.CountChunksResponse:  # noqa: N802
        """Count chunks."""
        del context
        count = await self._engine.count(
            request.vector_store_id,
            request.generation,
            request.embedding_model,
            document_id=request.document_id,
            version=request.document_version,
        )
        return pb.CountChunksResponse(count=count)

    async def GetChunkVectors(  # noqa: N802
        self, request: pb.GetChunkVectorsRequest, context: Context
    ) -> pb.GetChunkVectorsResponse:
        """Read vectors."""
        del context
        wanted = [chunk_id.lower() for chunk_id in request.chunk_ids]
        found = await self._engine.vectors(request.vector_store_id, request.generation, request.embedding_model, wanted)
        response = pb.GetChunkVectorsResponse()
        for chunk_id, vectors in found.items():
            response.vectors.add(
                chunk_id=chunk_id,
                dense=vectors.dense,
                sparse_indices=vectors.sparse.indices,
                sparse_values=vectors.sparse.values,
            )
        return response

    async def ListIndexedVersions(  # noqa: N802
        self, request: pb.ListIndexedVersionsRequest, context: Context
    ) -> AsyncIterator[pb.ListIndexedVersionsResponse]:
        """Stream what there is."""
        del context
        held = self._engine.versions(request.vector_store_id, request.generation, request.embedding_model)
        async for part in held:
            response = pb.ListIndexedVersionsResponse()
            for (document_id, version), count in part.items():
                response.versions.add(document_id=document_id, document_version=version, chunk_count=count)
            yield response


def _indexed_chunk(message: pb.IndexedChunk) -> IndexedChunk:
    return IndexedChunk(
        chunk=Chunk(
            chunk_id=message.chunk_id.lower(),
            document_id=message.document_id,
            document_version=message.document_version,
            index=message.index,
            title=message.title,
            content=message.content,
            attributes=plain(message.attributes),
            page=message.page if message.HasField("page") else None,
            start_char=message.start_char,
            end_char=message.end_char,
            heading_path=tuple(message.heading_path),
        ),
        dense=tuple(message.dense),
        sparse=SparseVector(tuple(message.sparse_indices), tuple(message.sparse_values)),
    )
