"""Search latency: through REST and gRPC, against embedding the query and asking the engine directly."""

import asyncio
import time

import grpc
import httpx
from loremesh.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from loremesh_embedding.domain.bm25 import Bm25
from loremesh_retrieval.adapters.edge import EdgeIndex
from loremesh_retrieval.domain.chunks import SparseVector
from loremesh_retrieval.domain.ranking import Fusion, fuse
from loremesh_retrieval.domain.scope import Scope
from loremesh_retrieval.domain.search import CANDIDATES, QueryVectors

from tests.bench import cranfield, measure, raw
from tests.bench.mesh import Mesh

MODEL = "minilm-l6-int8"


def through(mesh: Mesh) -> dict[str, float]:
    """Median milliseconds of a default search through `rest` and `grpc`."""
    questions = [question.text for question in cranfield.questions()]
    with httpx.Client(base_url=mesh.url, timeout=30) as client:

        def rest(query: str) -> None:
            client.post("/api/v1/documents/search", json={"query": query, "top_k": 10}).raise_for_status()

        measure.milliseconds(rest, questions[:50])
        over_rest = measure.p50(measure.milliseconds(rest, questions))
    with grpc.insecure_channel(f"127.0.0.1:{mesh.port}") as channel:
        stub = retrieval_pb2_grpc.RetrievalServiceStub(channel)

        def call(query: str) -> None:
            stub.Search(retrieval_pb2.SearchRequest(query=query, top_k=10), timeout=30)

        measure.milliseconds(call, questions[:50])
        over_grpc = measure.p50(measure.milliseconds(call, questions))
    return {"rest": over_rest, "grpc": over_grpc}


def against_engine(mesh: Mesh, through_mesh: dict[str, float]) -> None:
    """Ask the engine directly over the stopped mesh's own files, and print what the mesh added."""
    questions = [question.text for question in cranfield.questions()]
    direct = measure.p50(asyncio.run(_directly(mesh, questions)))
    measure.row("embed the query and ask the engine, ms p50", f"{direct:.1f}", "-", met=True)
    for name, limit in (("rest", 6.0), ("grpc", 4.0)):
        added = through_mesh[name] - direct
        measure.row(f"search through {name} adds, ms p50", f"{added:.1f}", f"<= {limit:.0f}", met=added <= limit)


async def _directly(mesh: Mesh, questions: list[str]) -> list[float]:
    """Milliseconds per question: dense and sparse vectors in this process, then the engine, then the ten passages."""
    embedder, bm25 = raw.RawEmbedder(threads=1), Bm25()
    scope = Scope(tenant="default", vector_store_id="default")
    times = []
    async with EdgeIndex.open(mesh.data / "retrieval") as index:
        for question in (*questions[:50], *questions):
            started = time.perf_counter()
            dense = embedder.embed([question])[0].tolist()
            sparse = bm25.query(question)
            vectors = QueryVectors(dense=dense, sparse=SparseVector(sparse.indices, sparse.values))
            rankings = await index.rank(MODEL, scope, vectors, limit=CANDIDATES)
            best = fuse(list(rankings.values()), Fusion.DBSF)[:10]
            await index.fetch(MODEL, scope, [hit.point_id for hit in best])
            times.append((time.perf_counter() - started) * 1000)
    return times[50:]
