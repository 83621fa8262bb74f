"""The same mesh, the same port, by native gRPC, gRPC-Web and reflection."""

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.api import httpbody_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from loremesh.agent.v1 import chat_pb2, chat_pb2_grpc
from loremesh.ingestion.v1 import document_pb2, document_pb2_grpc
from loremesh.retrieval.v1 import index_pb2, index_pb2_grpc, retrieval_pb2, retrieval_pb2_grpc

pytestmark = pytest.mark.system

SERVICES = {
    "grpc.health.v1.Health",
    "loremesh.agent.v1.AgentService",
    "loremesh.agent.v1.ChatJobService",
    "loremesh.agent.v1.ChatService",
    "loremesh.agent.v1.ConversationService",
    "loremesh.crew.v1.CrewService",
    "loremesh.crew.v1.FlowService",
    "loremesh.crew.v1.RunService",
    "loremesh.agent.v1.MemoryService",
    "loremesh.agent.v1.ToolServerService",
    "loremesh.edge.v1.EdgeService",
    "loremesh.embedding.v1.EmbeddingService",
    "loremesh.ingestion.v1.DocumentService",
    "loremesh.ingestion.v1.JobService",
    "loremesh.ingestion.v1.VectorStoreService",
    "loremesh.retrieval.v1.RetrievalService",
}


def pieces() -> Iterator[document_pb2.UploadDocumentRequest]:
    body = httpbody_pb2.HttpBody(content_type="text/markdown", data="# Düne\n\nSand ".encode())
    yield document_pb2.UploadDocumentRequest(file=body, title="Sand", filename="sand.md")
    yield document_pb2.UploadDocumentRequest(file=httpbody_pb2.HttpBody(data=b"wanders."))


def test_a_document_is_uploaded_in_pieces_watched_and_found(channel: grpc.Channel) -> None:
    documents: Any = document_pb2_grpc.DocumentServiceStub(channel)
    document = documents.UploadDocument(pieces(), timeout=30)
    assert document.size_bytes == len("# Düne\n\nSand wanders.".encode())
    watch = document_pb2.WatchDocumentRequest(document_id=document.id)
    *_, last = documents.WatchDocument(watch, timeout=60)
    assert last.WhichOneof("payload") == "ready"
    search: Any = retrieval_pb2_grpc.RetrievalServiceStub(channel)
    found = search.Search(retrieval_pb2.SearchRequest(query="sand dune wanders", top_k=20), timeout=30)
    assert document.id in {each.document_id for each in found.results}
    download = document_pb2.DownloadDocumentRequest(document_id=document.id)
    assert b"".join(piece.data for piece in documents.DownloadDocument(download, timeout=30)).endswith(b"wanders.")


def test_a_chat_streams(channel: grpc.Channel, library: Any) -> None:
    chat: Any = chat_pb2_grpc.ChatServiceStub(channel)
    request = chat_pb2.ChatRequest(
        message="How many eggs does a bee queen lay?", vector_store_ids=[library.store], max_output_tokens=32
    )
    events = [each for each in chat.StreamChat(request, timeout=120) if each.WhichOneof("payload") != "heartbeat"]
    assert [each.seq for each in events] == list(range(1, len(events) + 1))
    assert events[-1].WhichOneof("payload") in ("completed", "incomplete")


def test_a_refusal_has_its_reason_and_the_field_at_fault(channel: grpc.Channel) -> None:
    search: Any = retrieval_pb2_grpc.RetrievalServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        search.Search(retrieval_pb2.SearchRequest(query="a", top_k=0), timeout=10)
    call: Any = caught.value
    assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    first, second, *_ = rpc_status.from_call(call).details
    assert first.Unpack(info)
    assert second.Unpack(bad)
    assert (info.reason, info.domain) == ("TOP_K_OUT_OF_RANGE", "retrieval.loremesh.dev")
    assert [each.field for each in bad.field_violations] == ["top_k"]


def test_identity_from_outside_makes_no_difference(channel: grpc.Channel) -> None:
    documents: Any = document_pb2_grpc.DocumentServiceStub(channel)
    request = document_pb2.ListDocumentsRequest(page_size=5)
    honest = documents.ListDocuments(request, timeout=10)
    forged = documents.ListDocuments(request, timeout=10, metadata=(("x-loremesh-tenant", "other"),))
    assert honest == forged
    assert honest.documents


def test_what_is_for_the_mesh_alone_is_not_reachable(channel: grpc.Channel) -> None:
    index: Any = index_pb2_grpc.IndexServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        index.CountChunks(index_pb2.CountChunksRequest(vector_store_id="default"), timeout=10)
    call: Any = caught.value
    assert call.code() is grpc.StatusCode.UNIMPLEMENTED
    documents: Any = document_pb2_grpc.DocumentServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        documents.ResolveVersions(document_pb2.ResolveVersionsRequest(), timeout=10)
    call = caught.value
    assert call.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_browser_may_call_by_grpc_web(http: httpx.Client, library: Any) -> None:
    message = retrieval_pb2.SearchRequest(
        query="lighthouse", vector_store_id=library.store, top_k=1
    ).SerializeToString()
    response = http.post(
        "/loremesh.retrieval.v1.RetrievalService/Search",
        content=struct.pack(">BI", 0, len(message)) + message,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1", "origin": "http://localhost:3000"},
    )
    assert response.headers["content-type"].startswith("application/grpc-web")
    assert response.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "grpc-status" in response.headers["access-control-expose-headers"]
    flag, length = struct.unpack(">BI", response.content[:5])
    found = retrieval_pb2.SearchResponse.FromString(response.content[5 : 5 + length])
    assert flag == 0
    assert found.results[0].title == "Lighthouses"
    trailers = response.content[5 + length :]
    assert trailers[0] == 0x80
    assert b"grpc-status:0" in trailers


def test_a_page_of_another_site_may_not(http: httpx.Client) -> None:
    response = http.post("/api/v1/chat", content=b'{"message":"hi"}', headers={"origin": "https://evil.example"})
    assert response.status_code == 403
    assert response.json()["details"][0]["reason"] == "ORIGIN_FORBIDDEN"
    assert "access-control-allow-origin" not in response.headers


def test_a_browser_is_told_beforehand_what_it_may_send(http: httpx.Client) -> None:
    headers = {"origin": "http://127.0.0.1:5173", "access-control-request-method": "PATCH"}
    response = http.options("/api/v1/documents/1", headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "http://127.0.0.1:5173"
    assert "PATCH" in response.headers["access-control-allow-methods"]
    assert "content-type" in response.headers["access-control-allow-headers"]


def buf_curl(*arguments: str) -> str:
    flags = ("--protocol", "grpc", "--http2-prior-knowledge")
    command = [Path(sys.executable).parent / "buf", "curl", *flags, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_buf_curl_lists_every_service(mesh: Any) -> None:
    assert set(buf_curl("--list-services", mesh.url).split()) >= SERVICES
    methods = buf_curl("--list-methods", mesh.url).split()
    assert "loremesh.ingestion.v1.DocumentService/UploadDocument" in methods
    assert not any("IndexService" in method for method in methods)


def test_buf_curl_calls_by_reflection_alone(mesh: Any, library: Any) -> None:
    search = json.dumps({"query": "lighthouse", "vectorStoreId": library.store, "topK": 1})
    answer = buf_curl("--data", search, f"{mesh.url}/loremesh.retrieval.v1.RetrievalService/Search")
    assert json.loads(answer)["results"][0]["title"] == "Lighthouses"
