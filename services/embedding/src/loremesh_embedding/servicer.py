"""The service's rpcs: protobuf to engine and back."""

from collections.abc import Iterator
from typing import Any

from grpc import aio
from loremesh.embedding.v1 import embedding_pb2 as pb
from loremesh.embedding.v1 import embedding_pb2_grpc

from loremesh_embedding.domain.models import Model, Purpose, Task
from loremesh_embedding.engine import Embedded, EmbeddingEngine

_PURPOSES = {pb.INPUT_TYPE_QUERY: Purpose.QUERY}
_TASKS = {Task.DENSE: pb.MODEL_TASK_DENSE, Task.SPARSE: pb.MODEL_TASK_SPARSE, Task.RERANK: pb.MODEL_TASK_RERANK}

Context = aio.ServicerContext[Any, Any]


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """loremesh.embedding.v1.EmbeddingService."""

    def __init__(self, *, engine: EmbeddingEngine) -> None:
        """`engine` does the work."""
        self._engine = engine

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:  # noqa: N802 - gRPC's name
        """Embed a batch of texts."""
        del context
        embedded = await self._engine.embed(
            request.texts,
            model=request.model,
            sparse_model=request.sparse_model,
            purpose=_PURPOSES.get(request.input_type, Purpose.DOCUMENT),
        )
        response = pb.EmbedResponse(embeddings=_embeddings(embedded, count=len(request.texts)))
        if embedded.model and embedded.dense:
            response.model, response.dimension = embedded.model.id, embedded.model.dimension
            response.input_tokens = embedded.dense.input_tokens
        if embedded.sparse_model:
            response.sparse_model = embedded.sparse_model.id
        return response

    async def Rerank(self, request: pb.RerankRequest, context: Context) -> pb.RerankResponse:  # noqa: N802
        """Score documents against a query."""
        del context
        model, ranked = await self._engine.rerank(
            request.query,
            request.documents,
            model=request.model,
            top_k=request.top_k if request.HasField("top_k") else None,
        )
        results = [pb.RerankResult(index=scored.index, score=scored.score) for scored in ranked]
        return pb.RerankResponse(model=model.id, results=results)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """List the usable models."""
        del request, context
        catalogue = self._engine.catalogue
        models = [_model(model, default=catalogue.is_default(model)) for model in catalogue.models()]
        return pb.ListModelsResponse(models=models)


def _embeddings(embedded: Embedded, *, count: int) -> Iterator[pb.Embedding]:
    for index in range(count):
        embedding = pb.Embedding()
        if embedded.dense is not None:
            embedding.dense.extend(embedded.dense.values[index].tolist())
            embedding.truncated = embedded.dense.truncated[index]
        if embedded.sparse is not None:
            vector = embedded.sparse[index]
            embedding.sparse.CopyFrom(pb.SparseVector(indices=vector.indices, values=vector.values))
        yield embedding


def _model(model: Model, *, default: bool) -> pb.Model:
    return pb.Model(
        id=model.id,
        task=_TASKS[model.task],
        dimension=model.dimension,
        max_input_tokens=model.max_input_tokens,
        provider=model.provider,
        default=default,
    )
