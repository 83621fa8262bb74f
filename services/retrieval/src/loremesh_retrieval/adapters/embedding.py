"""Query vectors and reranking from the embedding service."""

from collections.abc import Sequence

from grpc import aio
from loremesh.embedding.v1 import embedding_pb2 as pb
from loremesh.embedding.v1.embedding_pb2_grpc import EmbeddingServiceStub
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import InvalidField

from loremesh_retrieval.adapters.peers import calling
from loremesh_retrieval.domain.chunks import SparseVector
from loremesh_retrieval.domain.search import Branch, QueryVectors
from loremesh_retrieval.errors import EmbeddingModelUnavailable, QueryEmpty

_NAME = "embedding"
_NO_MODEL, _SPARSE_MODEL = "none", "bm25"
_UNUSABLE = frozenset({"MODEL_NOT_FOUND", "MODEL_TASK_UNSUPPORTED", "PROVIDER_FAILED", "DIMENSION_MISMATCH"})
_LONGEST_PASSAGE = 100_000


class EmbeddingClient:
    """Asks EmbeddingService, for all of a query's vectors at once."""

    def __init__(self, *, channel: aio.Channel) -> None:
        self._stub = EmbeddingServiceStub(channel)

    async def embed(self, model: str, query: str, *, branches: Sequence[Branch]) -> QueryVectors:
        """See ports.Embedder."""
        request = pb.EmbedRequest(
            model=model if Branch.DENSE in branches else _NO_MODEL,
            texts=[query],
            input_type=pb.INPUT_TYPE_QUERY,
            sparse_model=_SPARSE_MODEL if Branch.SPARSE in branches else "",
        )
        try:
            with calling(_NAME):
                response = await self._stub.Embed(request)
        except aio.AioRpcError as error:
            reason = reason_of(error)
            if reason == "TEXT_EMPTY":
                raise QueryEmpty from error
            if reason in _UNUSABLE:
                raise EmbeddingModelUnavailable(model) from error
            raise
        (embedding,) = response.embeddings
        sparse = embedding.sparse
        return QueryVectors(
            dense=tuple(embedding.dense) or None,
            sparse=SparseVector(tuple(sparse.indices), tuple(sparse.values)) if sparse.indices else None,
        )

    async def rerank(self, model: str, query: str, passages: Sequence[str]) -> Sequence[float]:
        """See ports.Reranker."""
        documents = [passage[:_LONGEST_PASSAGE] for passage in passages]
        try:
            with calling(_NAME):
                response = await self._stub.Rerank(pb.RerankRequest(model=model, query=query, documents=documents))
        except aio.AioRpcError as error:
            if reason_of(error) not in _UNUSABLE:
                raise
            message = f"There is no usable reranking model {model!r}." if model else "There is no reranking model."
            raise InvalidField(message, field="ranking_options.rerank_model") from error
        scores = {result.index: result.score for result in response.results}
        return [scores[position] for position in range(len(documents))]
