"""What is live, as ingestion knows it."""

from collections.abc import Iterable

import grpc
from grpc import aio
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1.document_pb2_grpc import DocumentServiceStub
from loremesh_kit.channel import reason_of

from loremesh_retrieval.adapters.peers import calling
from loremesh_retrieval.domain.liveness import Generation, Live
from loremesh_retrieval.errors import GenerationNotFound, VectorStoreNotFound


class LivenessClient:
    """Asks DocumentService."""

    def __init__(self, *, channel: aio.Channel) -> None:
        self._stub = DocumentServiceStub(channel)

    async def resolve(self, vector_store_id: str, *, generation: int = 0, document_ids: Iterable[str] = ()) -> Live:
        """See ports.Liveness; whose store it is, the call's identity says."""
        request = pb.ResolveVersionsRequest(
            vector_store_id=vector_store_id, generation=generation, document_ids=document_ids
        )
        try:
            with calling("ingestion"):
                found = await self._stub.ResolveVersions(request)
        except aio.AioRpcError as error:
            if reason_of(error) == GenerationNotFound.reason:
                raise GenerationNotFound(vector_store_id, generation) from error
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise VectorStoreNotFound(vector_store_id) from error
            raise
        return Live(Generation(found.generation, found.embedding_model), found.versions)
