"""The embedding service."""

import time
from collections.abc import Sequence

from grpc.aio import Channel
from loremesh.embedding.v1 import embedding_pb2 as pb
from loremesh.embedding.v1 import embedding_pb2_grpc
from loremesh_kit import identity

from loremesh_ingestion.adapters.sibling import translated
from loremesh_ingestion.engine.batching import Batcher
from loremesh_ingestion.ports import EmbeddingModel, Vector

SPARSE_MODEL = "bm25"
_TEXTS_AT_ONCE = 64
_CALLS_AT_ONCE = 2
_LONGEST_TEXT = 100_000  # characters the service takes; no model reads as many
_EMBED_SECONDS = 120.0
_LIST_SECONDS = 5.0
_MODELS_KEPT_SECONDS = 60.0

_Key = tuple[str, str]  # tenant and model


class GrpcEmbedder:
    """Embeds texts of several documents in one call, dense and sparse together; remembers the models for a minute."""

    def __init__(self, *, channel: Channel) -> None:
        self._stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
        self._batcher: Batcher[_Key, Sequence[str], Sequence[Vector]] = Batcher(
            run=self._embed, size=len, limit=_TEXTS_AT_ONCE, at_once=_CALLS_AT_ONCE
        )
        self._models: Sequence[EmbeddingModel] = ()
        self._models_until = 0.0

    async def embed(self, texts: Sequence[str], *, model: str) -> Sequence[Vector]:
        """One vector per text; a text beyond 100,000 characters is cut there."""
        who = identity.current()
        return await self._batcher.submit((who.tenant, model), [text[:_LONGEST_TEXT] for text in texts])

    async def _embed(self, key: _Key, batches: Sequence[Sequence[str]]) -> Sequence[Sequence[Vector]]:
        texts = [text for batch in batches for text in batch]
        request = pb.EmbedRequest(
            model=key[1], texts=texts, input_type=pb.INPUT_TYPE_DOCUMENT, sparse_model=SPARSE_MODEL
        )
        with translated("embedding"):
            response = await self._stub.Embed(request, timeout=_EMBED_SECONDS)
        vectors = iter(response.embeddings)
        return [[_vector(next(vectors)) for _ in batch] for batch in batches]

    async def models(self) -> Sequence[EmbeddingModel]:
        """The dense models; those which are new are known a minute later."""
        if time.monotonic() >= self._models_until:
            with translated("embedding"):
                response = await self._stub.ListModels(pb.ListModelsRequest(), timeout=_LIST_SECONDS)
            self._models = [_model(model) for model in response.models if model.task == pb.MODEL_TASK_DENSE]
            self._models_until = time.monotonic() + _MODELS_KEPT_SECONDS
        return self._models


def _vector(embedding: pb.Embedding) -> Vector:
    # The message's own lists: copying 384 numbers for each chunk would be for nothing.
    return Vector(embedding.dense, embedding.sparse.indices, embedding.sparse.values)


def _model(model: pb.Model) -> EmbeddingModel:
    return EmbeddingModel(
        id=model.id, dimension=model.dimension, max_input_tokens=model.max_input_tokens, default=model.default
    )
