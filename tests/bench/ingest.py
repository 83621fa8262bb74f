"""Ingest throughput: upload to searchable, against the raw embedder and against LlamaIndex with the same weights."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
from google.api.httpbody_pb2 import HttpBody
from loremesh.ingestion.v1 import document_pb2, document_pb2_grpc

from tests.bench import cranfield, measure, raw
from tests.bench.mesh import Mesh

UPLOADS = 16
UNDERWAY = (
    document_pb2.DOCUMENT_STATE_UPLOADED,
    document_pb2.DOCUMENT_STATE_PARSING,
    document_pb2.DOCUMENT_STATE_CHUNKING,
    document_pb2.DOCUMENT_STATE_EMBEDDING,
    document_pb2.DOCUMENT_STATE_INDEXING,
)
PEER_PYTHON = "PEER_PYTHON"


def throughput(mesh: Mesh) -> dict[str, str]:
    """Print both ratios; returns document id to Cranfield id."""
    documents = cranfield.documents()
    found, ours = asyncio.run(_upload_all(mesh, documents))
    texts = asyncio.run(_embedded_texts(mesh, list(found)))
    limit = len(documents) / _raw_seconds(texts)
    measure.row("ingest, documents/s", f"{ours:.1f}", "-", met=True)
    measure.row("raw embedder on the same chunks, documents/s", f"{limit:.1f}", "-", met=True)
    measure.row("ingest / raw embedder", f"{ours / limit:.2f}", ">= 0.80", met=ours / limit >= 0.8)
    if peer := _peer(documents):
        measure.row("LlamaIndex's pipeline, documents/s", f"{peer:.1f}", "-", met=True)
        measure.row("ingest / LlamaIndex", f"{ours / peer:.2f}", ">= 1.50", met=ours / peer >= 1.5)
    return found


async def _upload_all(mesh: Mesh, documents: list[cranfield.Record]) -> tuple[dict[str, str], float]:
    """Upload with `UPLOADS` at once and wait until all are READY."""
    found: dict[str, str] = {}
    waiting = iter(documents)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{mesh.port}") as channel:
        stub = document_pb2_grpc.DocumentServiceStub(channel)

        async def upload() -> None:
            for document in waiting:
                body = HttpBody(content_type="text/plain", data=document.text.encode())
                request = document_pb2.UploadDocumentRequest(file=body, title=document.title or document.id)
                if not document.text.strip():
                    continue
                answer = await stub.UploadDocument(iter([request]), timeout=60)
                found[answer.id] = document.id

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(UPLOADS):
                group.create_task(upload())
        await _all_ready(stub)
        return found, len(found) / (time.perf_counter() - started)


async def _all_ready(stub: document_pb2_grpc.DocumentServiceStub) -> None:
    """Ask for one document of each state that is not the last: listing them all would take a share of the cores."""
    async with asyncio.timeout(600):
        for state in UNDERWAY:
            while await _any_in(stub, state):  # noqa: ASYNC110 - asked as any client has to
                await asyncio.sleep(0.2)
    if await _any_in(stub, document_pb2.DOCUMENT_STATE_FAILED):
        raise SystemExit("a document failed")


async def _any_in(stub: document_pb2_grpc.DocumentServiceStub, state: document_pb2.DocumentState) -> bool:
    request = document_pb2.ListDocumentsRequest(page_size=1, state=state)
    return bool((await stub.ListDocuments(request, timeout=30)).documents)


async def _embedded_texts(mesh: Mesh, ids: list[str]) -> list[str]:
    """What was embedded, as exactly as a reader can know it: title and chunk text."""
    texts: list[str] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{mesh.port}") as channel:
        stub = document_pb2_grpc.DocumentServiceStub(channel)
        for document_id in ids:
            document = await stub.GetDocument(document_pb2.GetDocumentRequest(document_id=document_id), timeout=30)
            page = await stub.ListChunks(document_pb2.ListChunksRequest(document_id=document_id), timeout=30)
            texts += [f"{document.title}\n{chunk.content}" for chunk in page.chunks]
    return texts


def _raw_seconds(texts: list[str]) -> float:
    embedder = raw.RawEmbedder(threads=os.cpu_count() or 1)
    embedder.embed(texts[:8])
    started = time.perf_counter()
    embedder.embed(texts)
    return time.perf_counter() - started


def _peer(documents: list[cranfield.Record]) -> float | None:
    """Documents per second of LlamaIndex, in the environment that scripts/bench made; None without one."""
    python = os.environ.get(PEER_PYTHON)
    if not python:
        print("-   LlamaIndex is not measured: scripts/bench makes its environment", file=sys.stderr)
        return None
    with tempfile.TemporaryDirectory() as place:
        corpus = Path(place) / "corpus.json"
        corpus.write_text(json.dumps([{"id": d.id, "title": d.title, "text": d.text} for d in documents]))
        script = Path(__file__).parent / "peer_llamaindex.py"
        command = [python, str(script), str(raw.model_path()), str(raw.tokenizer_path()), str(corpus)]
        run = subprocess.run([*command, str(os.cpu_count() or 1)], check=True, stdout=subprocess.PIPE, timeout=900)
    return float(json.loads(run.stdout)["documents_per_second"])
