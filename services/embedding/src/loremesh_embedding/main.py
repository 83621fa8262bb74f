"""Builds the embedding service and runs it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from loremesh.embedding.v1 import embedding_pb2
from loremesh.embedding.v1.embedding_pb2_grpc import add_EmbeddingServiceServicer_to_server
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.server import main as serve

from loremesh_embedding.adapters.bm25 import Bm25Embedder
from loremesh_embedding.adapters.local import LocalEmbedder, LocalReranker
from loremesh_embedding.adapters.minilm import MiniLm
from loremesh_embedding.adapters.providers import Patience
from loremesh_embedding.batcher import Batcher
from loremesh_embedding.domain.bm25 import Bm25
from loremesh_embedding.domain.models import Catalogue, Purpose, Task
from loremesh_embedding.engine import EmbeddingEngine
from loremesh_embedding.ports import DenseEmbedder, Reranker
from loremesh_embedding.servicer import EmbeddingServicer
from loremesh_embedding.settings import EmbeddingSettings


@asynccontextmanager
async def wire(settings: EmbeddingSettings) -> AsyncIterator[Wired]:
    """Everything the service is made of, its local weights warm; closes clients and threads at the end."""
    async with AsyncExitStack() as stack:
        engine = await _engine(settings, stack)
        await engine.embed(["warm up"], sparse_model="bm25", model=LocalEmbedder.model.id, purpose=Purpose.QUERY)
        yield Wired(
            servicers=[
                Servicer(
                    add=add_EmbeddingServiceServicer_to_server,
                    servicer=EmbeddingServicer(engine=engine),
                    name=embedding_pb2.DESCRIPTOR.services_by_name["EmbeddingService"].full_name,
                ),
            ],
        )


async def _engine(settings: EmbeddingSettings, stack: AsyncExitStack) -> EmbeddingEngine:
    minilm = await asyncio.to_thread(MiniLm, intra_op_threads=settings.intra_op_threads)
    batcher = await stack.enter_async_context(
        Batcher(
            forward=minilm.forward,
            workers=settings.workers,
            budget=settings.batch_tokens,
            limit=settings.queue_limit,
            niceness=settings.niceness,
        ),
    )
    bm25 = Bm25(language=settings.bm25_language, average_length=settings.bm25_average_length)
    dense: list[DenseEmbedder] = [LocalEmbedder(minilm=minilm, batcher=batcher)]
    sparse = [Bm25Embedder(bm25=bm25)]
    rerankers: list[Reranker] = [LocalReranker(minilm=minilm, batcher=batcher)]
    dense += await _openai(settings, stack)
    dense += await _cohere(settings, stack, rerankers)
    catalogue = Catalogue(
        [each.model for group in (dense, sparse, rerankers) for each in group],
        defaults={
            Task.DENSE: settings.default_model,
            Task.SPARSE: Bm25Embedder.model.id,
            Task.RERANK: settings.default_rerank_model,
        },
    )
    return EmbeddingEngine(catalogue=catalogue, dense=dense, sparse=sparse, rerankers=rerankers)


async def _openai(settings: EmbeddingSettings, stack: AsyncExitStack) -> list[DenseEmbedder]:
    """One embedder for each model of the OpenAI-compatible endpoint."""
    if not (models := settings.offered_openai_models()):
        return []
    from loremesh_embedding.adapters.openai import OpenAiEmbedder, connect

    patience = _patience(settings)
    client = await stack.enter_async_context(
        connect(
            api_key=settings.openai_api_key.get_secret_value(), base_url=settings.openai_base_url, patience=patience
        ),
    )
    return [
        OpenAiEmbedder(
            client=client, patience=patience, id_=each.id, dimension=each.dimension, max_input_tokens=each.window
        )
        for each in models
    ]


async def _cohere(
    settings: EmbeddingSettings,
    stack: AsyncExitStack,
    rerankers: list[Reranker],
) -> list[DenseEmbedder]:
    """One embedder for each of Cohere's models; its rerankers are added to those there are."""
    models, rerank_models = settings.offered_cohere_models(), settings.offered_cohere_rerank_models()
    if not models and not rerank_models:
        return []
    from loremesh_embedding.adapters.cohere import CohereEmbedder, CohereReranker, connect

    patience = _patience(settings)
    client = await stack.enter_async_context(
        connect(
            api_key=settings.cohere_api_key.get_secret_value(), base_url=settings.cohere_base_url, patience=patience
        ),
    )
    rerankers += [CohereReranker(client=client, patience=patience, id_=id_) for id_ in rerank_models]
    return [
        CohereEmbedder(
            client=client, patience=patience, id_=each.id, dimension=each.dimension, max_input_tokens=each.window
        )
        for each in models
    ]


def _patience(settings: EmbeddingSettings) -> Patience:
    return Patience(
        attempts=settings.provider_attempts,
        connect=settings.provider_connect_seconds,
        attempt=settings.provider_attempt_seconds,
        total=settings.provider_total_seconds,
    )


def main() -> None:
    """`loremesh-embedding`."""
    serve(service="embedding", settings=EmbeddingSettings, wire=wire)
