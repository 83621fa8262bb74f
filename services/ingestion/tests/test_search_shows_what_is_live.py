"""Ingestion and retrieval together: what searches show follows the rows here, whatever the index still holds."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.retrieval.v1 import index_pb2_grpc, retrieval_pb2, retrieval_pb2_grpc
from loremesh_ingestion.adapters.memory import MemoryEmbedder
from loremesh_ingestion.adapters.retrieval import GrpcSearchIndex
from loremesh_ingestion.ports import Vector
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.testing import serving
from loremesh_retrieval.adapters.liveness import LivenessClient
from loremesh_retrieval.adapters.memory import MemoryIndex
from loremesh_retrieval.adapters.memory_peers import HashingEmbedder
from loremesh_retrieval.directory import RememberedGenerations
from loremesh_retrieval.engine import SearchEngine
from loremesh_retrieval.index_servicer import IndexServicer
from loremesh_retrieval.indexing import IndexingEngine
from loremesh_retrieval.servicer import RetrievalServicer

pytestmark = pytest.mark.steelthread


class WordEmbedder(MemoryEmbedder):
    """The vectors by which the search's own embedder finds."""

    words = HashingEmbedder(dimension=8)

    async def embed(self, texts, *, model):
        sparse = [self.words.sparse(text) for text in texts]
        return [
            Vector(self.words.dense(text), each.indices, each.values) for text, each in zip(texts, sparse, strict=True)
        ]


class Liveness:
    """Known once ingestion runs."""

    behind = None

    async def resolve(self, *args, **what):
        return await self.behind.resolve(*args, **what)


class HoardingIndex(GrpcSearchIndex):
    """Nothing leaves it."""

    async def delete(self, **what):
        raise DependencyUnavailable("retrieval", retry_after=0.1)


@asynccontextmanager
async def retrieval(liveness):
    index, embedder = MemoryIndex(), WordEmbedder.words
    engine = SearchEngine(
        index=index, embedder=embedder, reranker=embedder, liveness=RememberedGenerations(behind=liveness)
    )
    wired = Wired(
        servicers=[
            Servicer(
                add=retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server,
                servicer=RetrievalServicer(engine=engine),
                name="loremesh.retrieval.v1.RetrievalService",
            ),
            Servicer(
                add=index_pb2_grpc.add_IndexServiceServicer_to_server,
                servicer=IndexServicer(engine=IndexingEngine(store=index)),
                name="loremesh.retrieval.v1.IndexService",
            ),
        ]
    )
    async with serving(wired, service="retrieval") as channel:
        yield channel


async def test_searches_without_pause_show_one_live_version_and_nothing_deleted(start_service):
    liveness = Liveness()
    async with (
        retrieval(liveness) as channel,
        start_service(index=HoardingIndex(channel=channel), embedder=WordEmbedder()) as service,
    ):
        liveness.behind = LivenessClient(channel=service.channel)
        searches = retrieval_pb2_grpc.RetrievalServiceStub(channel)
        gone, seen, stop = set(), [], asyncio.Event()

        async def found():
            request = retrieval_pb2.SearchRequest(query="whale song", top_k=20)
            return {(each.document_id, each.document_version) for each in (await searches.Search(request)).results}

        async def search_without_pause():
            while not stop.is_set():
                gone_before = set(gone)
                results = await found()
                seen.append(len(results))
                assert gone_before.isdisjoint(document_id for document_id, _ in results)
                assert len({document_id for document_id, _ in results}) == len(results)

        kept, *doomed = [
            await service.settled(await service.upload(b"The whale song %d." % number)) for number in range(4)
        ]
        async with asyncio.TaskGroup() as group:
            group.create_task(search_without_pause())
            for document in doomed:
                await service.documents.IndexDocument(pb.IndexDocumentRequest(document_id=kept.id))
                await service.documents.DeleteDocument(pb.DeleteDocumentRequest(document_id=document.id))
                gone.add(document.id)
                await service.settled(kept.id)
            stop.set()
        assert await found() == {(kept.id, 4)}
        assert len(seen) > 3
