"""VectorStoreService."""

from typing import Any

from grpc import aio
from loremesh.ingestion.v1 import vector_store_pb2 as pb
from loremesh.ingestion.v1.vector_store_pb2_grpc import VectorStoreServiceServicer
from loremesh_kit.errors import InvalidField
from loremesh_kit.pages import Position, decode_token, encode_token

from loremesh_ingestion.domain.vector_store import VectorStore, VectorStoreChange
from loremesh_ingestion.engine.vector_stores import VectorStores
from loremesh_ingestion.servicers import messages
from loremesh_ingestion.servicers.documents import DEFAULT_PAGE

_ATTRIBUTES = "vector_store.attributes"
_UPDATABLE = ("display_name", "description", "attributes", "chunking_strategy")

Context = aio.ServicerContext[Any, Any]


class VectorStoreServicer(VectorStoreServiceServicer):
    """One method per rpc."""

    def __init__(self, *, vector_stores: VectorStores) -> None:
        self._vector_stores = vector_stores

    async def CreateVectorStore(  # noqa: N802 - the rpc's name, as all others here
        self, request: pb.CreateVectorStoreRequest, context: Context
    ) -> pb.VectorStore:
        """Create one."""
        del context
        given = request.vector_store
        store = VectorStore(
            id=given.id,
            display_name=messages.line(given.display_name),
            description=messages.line(given.description),
            embedding_model=given.embedding_model,
            chunking_strategy=messages.strategy(given.chunking_strategy),
            attributes=messages.attributes(given.attributes, field=_ATTRIBUTES),
        )
        return messages.vector_store(await self._vector_stores.create(store))

    async def GetVectorStore(self, request: pb.GetVectorStoreRequest, context: Context) -> pb.VectorStore:  # noqa: N802
        """Get one."""
        del context
        return messages.vector_store(await self._vector_stores.get(messages.line(request.vector_store_id)))

    async def ListVectorStores(  # noqa: N802
        self, request: pb.ListVectorStoresRequest, context: Context
    ) -> pb.ListVectorStoresResponse:
        """List a page, newest first."""
        del context
        limit = request.page_size or DEFAULT_PAGE
        after = decode_token(request.page_token, query=request)
        found = await self._vector_stores.page(after=after, limit=limit + 1)
        response = pb.ListVectorStoresResponse(vector_stores=[messages.vector_store(each) for each in found[:limit]])
        if len(found) > limit and (last := found[limit - 1]).create_time is not None:
            position = Position(sort_key=last.create_time.isoformat(), id=last.id)
            response.next_page_token = encode_token(position, query=request)
        return response

    async def UpdateVectorStore(  # noqa: N802
        self, request: pb.UpdateVectorStoreRequest, context: Context
    ) -> pb.VectorStore:
        """Update what the mask names, or what is set."""
        del context
        given = request.vector_store
        taken = set(request.update_mask.paths) or {field.name for field, _ in given.ListFields()} & set(_UPDATABLE)
        if unknown := taken.difference(_UPDATABLE):
            raise InvalidField(f"{min(unknown)} cannot be updated.", field="update_mask")
        change = VectorStoreChange(
            display_name=messages.line(given.display_name) if "display_name" in taken else None,
            description=messages.line(given.description) if "description" in taken else None,
            chunking_strategy=messages.strategy(given.chunking_strategy) if "chunking_strategy" in taken else None,
            attributes=messages.attributes(given.attributes, field=_ATTRIBUTES) if "attributes" in taken else None,
        )
        changed = await self._vector_stores.update(messages.line(given.id), change, etag=given.etag)
        return messages.vector_store(changed)

    async def DeleteVectorStore(  # noqa: N802
        self, request: pb.DeleteVectorStoreRequest, context: Context
    ) -> pb.DeleteVectorStoreResponse:
        """Delete one, with its documents when `force` is set."""
        del context
        await self._vector_stores.delete(messages.line(request.vector_store_id), force=request.force)
        return pb.DeleteVectorStoreResponse()
