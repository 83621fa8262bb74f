"""IndexGenerationService."""

from typing import Any

from grpc import aio
from loremesh.ingestion.v1 import generation_pb2 as pb
from loremesh.ingestion.v1.generation_pb2_grpc import IndexGenerationServiceServicer

from loremesh_ingestion.domain.generation import Generation
from loremesh_ingestion.engine.generations import Generations
from loremesh_ingestion.servicers import messages

Context = aio.ServicerContext[Any, Any]


class IndexGenerationServicer(IndexGenerationServiceServicer):
    """One method per rpc."""

    def __init__(self, *, generations: Generations) -> None:
        self._generations = generations

    async def CreateIndexGeneration(  # noqa: N802 - the rpc's name, as all others here
        self, request: pb.CreateIndexGenerationRequest, context: Context
    ) -> pb.IndexGeneration:
        """Begin the next one."""
        del context
        strategy = messages.strategy(request.chunking_strategy) if request.HasField("chunking_strategy") else None
        created = await self._generations.create(
            messages.line(request.vector_store_id), model=messages.line(request.embedding_model), strategy=strategy
        )
        return _message(created)

    async def GetIndexGeneration(  # noqa: N802
        self, request: pb.GetIndexGenerationRequest, context: Context
    ) -> pb.IndexGeneration:
        """Get one."""
        del context
        return _message(await self._generations.get(messages.line(request.vector_store_id), request.generation))

    async def ListIndexGenerations(  # noqa: N802
        self, request: pb.ListIndexGenerationsRequest, context: Context
    ) -> pb.ListIndexGenerationsResponse:
        """List them, newest first."""
        del context
        found = await self._generations.all(messages.line(request.vector_store_id))
        return pb.ListIndexGenerationsResponse(generations=[_message(each) for each in found])

    async def ActivateIndexGeneration(  # noqa: N802
        self, request: pb.ActivateIndexGenerationRequest, context: Context
    ) -> pb.IndexGeneration:
        """Make one live."""
        del context
        return _message(await self._generations.activate(messages.line(request.vector_store_id), request.generation))

    async def DeleteIndexGeneration(  # noqa: N802
        self, request: pb.DeleteIndexGenerationRequest, context: Context
    ) -> pb.DeleteIndexGenerationResponse:
        """Delete one that is not live."""
        del context
        await self._generations.delete(messages.line(request.vector_store_id), request.generation)
        return pb.DeleteIndexGenerationResponse()


def _message(value: Generation) -> pb.IndexGeneration:
    return pb.IndexGeneration(
        vector_store_id=value.vector_store_id,
        generation=value.generation,
        embedding_model=value.embedding_model,
        chunking_strategy=messages.strategy_message(value.chunking_strategy),
        state=pb.IndexGenerationState.Value(f"INDEX_GENERATION_STATE_{value.state}"),
        documents_ready=value.documents_ready,
        documents_failed=value.documents_failed,
        documents_total=value.documents_total,
        create_time=messages.timestamp(value.create_time),
        activate_time=None if value.activate_time is None else messages.timestamp(value.activate_time),
    )
