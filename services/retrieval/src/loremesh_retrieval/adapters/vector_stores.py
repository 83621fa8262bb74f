"""The vector stores, as ingestion keeps them."""

import grpc
from grpc import aio
from loremesh.ingestion.v1 import vector_store_pb2 as pb
from loremesh.ingestion.v1.vector_store_pb2_grpc import VectorStoreServiceStub

from loremesh_retrieval.adapters.peers import calling
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.errors import VectorStoreNotFound


class VectorStoreClient:
    """Asks VectorStoreService."""

    def __init__(self, *, channel: aio.Channel) -> None:
        self._stub = VectorStoreServiceStub(channel)

    async def embedding_model(self, scope: Scope) -> str:
        """See ports.VectorStoreDirectory; whose store it is, the call's identity says."""
        request = pb.GetVectorStoreRequest(vector_store_id=scope.vector_store_id)
        try:
            with calling("ingestion"):
                store = await self._stub.GetVectorStore(request)
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise VectorStoreNotFound(scope.vector_store_id) from error
            raise
        return store.embedding_model
