"""Search latency: through REST and gRPC, against embedding the query and asking the engine directly."""

import asyncio
from collections.abc import Callable

import grpc
import httpx
from loremesh.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc

from tests.bench import cranfield, measure, raw
from tests.bench.mesh import Mesh


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
    raise NotImplementedError
