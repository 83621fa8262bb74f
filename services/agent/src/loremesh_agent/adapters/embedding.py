"""Vectors from the embedding service."""

from collections.abc import Sequence

from grpc import StatusCode, aio
from loremesh.embedding.v1 import embedding_pb2 as pb
from loremesh.embedding.v1.embedding_pb2_grpc import EmbeddingServiceStub
from loremesh_kit import deadline
from loremesh_kit.errors import DeadlineExceeded, DependencyUnavailable

from loremesh_agent.ports import Embedded

_NAME = "embedding"
# Somebody waits for what is known about a question; nobody waits for what is kept.
_QUERY_SECONDS = 3.0
_SECONDS = 30.0


class EmbeddingClient:
    """Asks EmbeddingService for vectors of its default model."""

    def __init__(self, *, channel: aio.Channel) -> None:
        self._stub = EmbeddingServiceStub(channel)

    async def embed(self, texts: Sequence[str], *, are_queries: bool) -> Embedded:
        """See ports.TextEmbedder. A model that cannot be used is as good as none: its operator can change that."""
        kind = pb.INPUT_TYPE_QUERY if are_queries else pb.INPUT_TYPE_DOCUMENT
        request = pb.EmbedRequest(texts=texts, input_type=kind)
        try:
            response = await self._stub.Embed(request, timeout=_QUERY_SECONDS if are_queries else _SECONDS)
        except aio.AioRpcError as error:
            if error.code() is StatusCode.DEADLINE_EXCEEDED and deadline.within(1.0) < 1.0:
                raise DeadlineExceeded from error
            raise DependencyUnavailable(_NAME) from error
        return Embedded(model=response.model, vectors=[tuple(each.dense) for each in response.embeddings])
