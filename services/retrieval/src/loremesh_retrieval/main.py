"""Builds the retrieval service and runs it."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from loremesh.retrieval.v1 import index_pb2, retrieval_pb2
from loremesh.retrieval.v1.index_pb2_grpc import add_IndexServiceServicer_to_server
from loremesh.retrieval.v1.retrieval_pb2_grpc import add_RetrievalServiceServicer_to_server
from loremesh_kit.channel import open_channel
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.server import main as serve

from loremesh_retrieval.adapters import peers
from loremesh_retrieval.adapters.embedding import EmbeddingClient
from loremesh_retrieval.adapters.liveness import LivenessClient
from loremesh_retrieval.directory import RememberedGenerations
from loremesh_retrieval.engine import SearchEngine
from loremesh_retrieval.index_servicer import IndexServicer
from loremesh_retrieval.indexing import IndexingEngine
from loremesh_retrieval.ports import Index
from loremesh_retrieval.servicer import RetrievalServicer
from loremesh_retrieval.settings import RetrievalSettings


@asynccontextmanager
async def wire(settings: RetrievalSettings) -> AsyncIterator[Wired]:
    """Everything the service is made of; flushes and closes the index at the end."""
    async with (
        open_channel(settings.embedding_target) as embedding,
        open_channel(settings.ingestion_target) as ingestion,
        _open_index(settings) as index,
    ):
        client = EmbeddingClient(channel=embedding)
        liveness = RememberedGenerations(behind=LivenessClient(channel=ingestion))
        search = SearchEngine(index=index, embedder=client, reranker=client, liveness=liveness)
        indexing = IndexingEngine(store=index)
        yield Wired(
            servicers=[
                Servicer(
                    add=add_RetrievalServiceServicer_to_server,
                    servicer=RetrievalServicer(engine=search),
                    name=retrieval_pb2.DESCRIPTOR.services_by_name["RetrievalService"].full_name,
                ),
                Servicer(
                    add=add_IndexServiceServicer_to_server,
                    servicer=IndexServicer(engine=indexing),
                    name=index_pb2.DESCRIPTOR.services_by_name["IndexService"].full_name,
                ),
            ],
            long_lived=frozenset({"/loremesh.retrieval.v1.IndexService/ListIndexedVersions"}),
            probes={"engine": index.ping, "embedding": partial(peers.ping, embedding)},
        )


def _open_index(settings: RetrievalSettings) -> AbstractAsyncContextManager[Index]:
    """The engine: its server where one is named, else the same engine in this process."""
    if settings.qdrant_url:
        from loremesh_retrieval.adapters.qdrant import QdrantIndex

        return QdrantIndex.open(
            settings.qdrant_url,
            grpc_port=settings.qdrant_grpc_port,
            api_key=settings.qdrant_api_key.get_secret_value(),
        )
    from loremesh_retrieval.adapters.edge import EdgeIndex

    return EdgeIndex.open(settings.data_dir)


def main() -> None:
    """`loremesh-retrieval`."""
    serve(service="retrieval", settings=RetrievalSettings, wire=wire)
