"""The front door before stand-ins for the services: what it adds, takes away, repeats and refuses."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from google.api import httpbody_pb2
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status
from loremesh.agent.v1 import chat_pb2, chat_pb2_grpc
from loremesh.ingestion.v1 import document_pb2, document_pb2_grpc
from loremesh.retrieval.v1 import index_pb2, index_pb2_grpc, retrieval_pb2, retrieval_pb2_grpc
from loremesh_cli.mesh import envoy
from loremesh_cli.mesh.gateway import effective
from loremesh_cli.mesh.ports import free_ports
from loremesh_cli.mesh.running import running
from loremesh_edge.contracts import descriptor_set
from loremesh_kit.channel import open_channel
from loremesh_kit.errors import DependencyUnavailable, Overloaded, ServiceError
from loremesh_kit.server import Running, Servicer, Wired, serve
from loremesh_kit.settings import ServiceSettings

pytestmark = pytest.mark.system

NAMES = ("ingestion", "embedding", "retrieval", "agent", "crew", "edge", "edge-websocket", "gateway", "gateway-admin")
MEBIBYTE = 1024 * 1024
GIVEN = 128  # calls at once to one service, in gateway/clusters/embedded.yaml
FORGED = {
    "x-loremesh-tenant": "other",
    "x-loremesh-principal": "root",
    "x-loremesh-anything": "1",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-retry-on": "5xx",
    "x-request-id": "mine",
}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Door:
    """Envoy, its process and where its log is."""

    def __init__(self, *, ports: Mapping[str, int], pid: int, log: Path) -> None:
        self.ports = ports
        self.url = f"http://127.0.0.1:{ports['gateway']}"
        self.target = f"127.0.0.1:{ports['gateway']}"
        self._pid = pid
        self._log = log

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * 4096

    def access_log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def door(repository: Path) -> Iterator[Door]:
    ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
    configuration, clusters = (
        yaml.safe_load((repository / "gateway" / name).read_text()) for name in ("envoy.yaml", "clusters/embedded.yaml")
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "descriptor.binpb").write_bytes(descriptor_set().SerializeToString())
        whole = effective(configuration, clusters, ports=ports, descriptor=folder / "descriptor.binpb")
        # Log lines are otherwise held back for ten seconds.
        manager = whole["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        manager["access_log_options"] = {"access_log_flush_interval": "1s"}
        (folder / "envoy.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
        program = envoy.program(folder / "envoy.yaml", admin_port=ports["gateway-admin"])
        with running(program, log=folder / "envoy.log") as process:
            yield Door(ports=ports, pid=process.pid, log=folder / "envoy.log")


class StandIn(
    chat_pb2_grpc.ChatServiceServicer,
    document_pb2_grpc.DocumentServiceServicer,
    retrieval_pb2_grpc.RetrievalServiceServicer,
    index_pb2_grpc.IndexServiceServicer,
):
    """All services at once; keeps what it was called with."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, str]] = []
        self.uploaded: list[document_pb2.UploadDocumentRequest] = []
        self.pieces: list[int] = []
        self.refusals = 0
        self.go_on = asyncio.Event()
        self.crowded = asyncio.Event()
        self.cancelled = asyncio.Event()

    def _keep(self, context: aio.ServicerContext[Any, Any]) -> None:
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata() or ()})

    async def Chat(self, request: Any, context: Any) -> chat_pb2.ChatResponse:  # noqa: N802
        self._keep(context)
        if self.refusals:
            self.refusals -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        if request.message == "hang":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return chat_pb2.ChatResponse(response=request.message)

    async def StreamChat(self, request: Any, context: Any) -> AsyncIterator[chat_pb2.ChatEvent]:  # noqa: N802
        del request
        self._keep(context)
        yield chat_pb2.ChatEvent(seq=1, text_delta=chat_pb2.TextDelta(text="first"))
        async with asyncio.timeout(10):
            await self.go_on.wait()
        yield chat_pb2.ChatEvent(seq=2, completed=chat_pb2.ChatResponse(response="first"))

    async def Search(self, request: Any, context: Any) -> retrieval_pb2.SearchResponse:  # noqa: N802
        self._keep(context)
        if self.refusals:
            self.refusals -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        if len(self.metadata) == GIVEN:
            self.crowded.set()
        if request.query == "hang":
            async with asyncio.timeout(10):
                await self.go_on.wait()
        return retrieval_pb2.SearchResponse(results=[retrieval_pb2.SearchResult(content=request.query)])

    async def UploadDocument(self, request_iterator: Any, context: Any) -> document_pb2.Document:  # noqa: N802
        del context
        async for piece in request_iterator:
            if len(self.uploaded) < 2:
                self.uploaded.append(piece)
            self.pieces.append(len(piece.file.data))
        return document_pb2.Document(id="1", size_bytes=sum(self.pieces))

    async def DownloadDocument(self, request: Any, context: Any) -> AsyncIterator[httpbody_pb2.HttpBody]:  # noqa: N802
        del request, context
        for _ in range(64):
            yield httpbody_pb2.HttpBody(content_type="text/html", data=b"x" * MEBIBYTE)

    async def CountChunks(self, request: Any, context: Any) -> index_pb2.CountChunksResponse:  # noqa: N802
        del request, context
        return index_pb2.CountChunksResponse(count=1)


@pytest.fixture
async def services(door: Door) -> AsyncIterator[StandIn]:
    stand_in = StandIn()
    server = aio.server(options=[("grpc.so_reuseport", 0)])
    chat_pb2_grpc.add_ChatServiceServicer_to_server(stand_in, server)
    document_pb2_grpc.add_DocumentServiceServicer_to_server(stand_in, server)
    retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(stand_in, server)
    index_pb2_grpc.add_IndexServiceServicer_to_server(stand_in, server)
    for name in ("agent", "ingestion", "retrieval"):
        server.add_insecure_port(f"127.0.0.1:{door.ports[name]}")
    await server.start()
    yield stand_in
    await server.stop(0)


@pytest.fixture
async def http(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=door.url, timeout=30) as client:
        yield client


@pytest.fixture
async def channel(door: Door) -> AsyncIterator[aio.Channel]:
    async with aio.insecure_channel(door.target) as channel:
        yield channel


def reason(response: httpx.Response) -> str:
    return str(response.json()["details"][0]["reason"])


async def test_identity_from_outside_never_arrives_by_rest(services: StandIn, http: httpx.AsyncClient) -> None:
    response = await http.post("/api/v1/chat", json={"message": "hi"}, headers={**FORGED, "traceparent": TRACEPARENT})
    assert response.status_code == 200
    (metadata,) = services.metadata
    assert (metadata["x-loremesh-tenant"], metadata["x-loremesh-principal"]) == ("default", "anonymous")
    assert "x-loremesh-anything" not in metadata
    assert "x-envoy-retry-on" not in metadata
    assert metadata["traceparent"] == TRACEPARENT
    assert metadata["x-request-id"] == response.headers["x-request-id"] != "mine"


async def test_identity_from_outside_never_arrives_by_grpc(services: StandIn, channel: aio.Channel) -> None:
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    await stub.Chat(chat_pb2.ChatRequest(message="hi"), metadata=tuple(FORGED.items()), timeout=10)
    (metadata,) = services.metadata
    assert (metadata["x-loremesh-tenant"], metadata["x-loremesh-principal"]) == ("default", "anonymous")
    assert metadata["x-request-id"] != "mine"


async def test_what_changes_nothing_is_repeated_when_the_service_is_cut_off(
    services: StandIn, http: httpx.AsyncClient
) -> None:
    services.refusals = 2
    response = await http.post("/api/v1/documents/search", json={"query": "hi"})
    assert response.status_code == 200
    assert len(services.metadata) == 3


async def test_repeats_end(services: StandIn, http: httpx.AsyncClient) -> None:
    services.refusals = 1000
    assert (await http.post("/api/v1/documents/search", json={"query": "hi"})).status_code == 503
    assert len(services.metadata) == 7


async def test_what_may_have_changed_something_is_not_repeated(services: StandIn, http: httpx.AsyncClient) -> None:
    services.refusals = 1
    assert (await http.post("/api/v1/chat", json={"message": "hi"})).status_code == 503
    assert len(services.metadata) == 1


class Refusing(retrieval_pb2_grpc.RetrievalServiceServicer):
    """A search service on the kit which has something to say against every search, or does when its sister fails."""

    def __init__(self, complaint: ServiceError | None = None, *, sister: aio.Channel | None = None) -> None:
        self.calls = 0
        self._complaint = complaint
        self._sister = sister

    async def Search(self, request: Any, context: Any) -> retrieval_pb2.SearchResponse:  # noqa: N802
        del context
        self.calls += 1
        if self._complaint is not None:
            raise self._complaint
        stub: Any = retrieval_pb2_grpc.RetrievalServiceStub(self._sister)
        return await stub.Search(request)

    def serving(self, door: Door) -> AbstractAsyncContextManager[Running]:
        add = retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server
        served = Servicer(add=add, servicer=self, name="loremesh.retrieval.v1.RetrievalService")
        settings = ServiceSettings(listen=f"127.0.0.1:{door.ports['retrieval']}", drain_seconds=0, grace_seconds=0)
        return serve(Wired(servicers=[served]), service="retrieval", settings=settings)


@pytest.mark.parametrize(
    ("complaint", "status", "told"),
    [
        (Overloaded(retry_after=1.5), 429, "OVERLOADED"),
        (DependencyUnavailable("embedding", retry_after=1.5), 503, "DEPENDENCY_UNAVAILABLE"),
    ],
)
async def test_what_a_service_itself_refuses_is_not_repeated_and_says_when_to_come_back(
    door: Door, http: httpx.AsyncClient, complaint: ServiceError, status: int, told: str
) -> None:
    refusing = Refusing(complaint)
    async with refusing.serving(door):
        response = await http.post("/api/v1/documents/search", json={"query": "hi"})
    assert (response.status_code, reason(response)) == (status, told)
    assert response.headers["retry-after"] == "2"
    retry = response.json()["details"][1]
    assert (retry["@type"].rpartition(".")[2], retry["retry_delay"]) == ("RetryInfo", "1.500s")
    assert refusing.calls == 1


async def test_retries_do_not_multiply_from_hop_to_hop(door: Door, http: httpx.AsyncClient) -> None:
    # Cut off by the network, as it seems to the service in the middle: its channel tries four times, and nobody else.
    broken = StandIn()
    broken.refusals = 1000
    server = aio.server()
    retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(broken, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as sister:
        middle = Refusing(sister=sister)
        async with middle.serving(door):
            response = await http.post("/api/v1/documents/search", json={"query": "hi"})
    await server.stop(0)
    assert (response.status_code, reason(response)) == (503, "DEPENDENCY_UNAVAILABLE")
    assert (middle.calls, len(broken.metadata)) == (1, 4)


async def test_a_crowd_is_refused_at_the_door_and_told_when_to_come_back(
    services: StandIn, http: httpx.AsyncClient, channel: aio.Channel
) -> None:
    stub: Any = retrieval_pb2_grpc.RetrievalServiceStub(channel)

    async def search(query: str) -> retrieval_pb2.SearchResponse:
        found: retrieval_pb2.SearchResponse = await stub.Search(retrieval_pb2.SearchRequest(query=query), timeout=20)
        return found

    async with asyncio.TaskGroup() as group:
        crowd = [group.create_task(search("hang")) for _ in range(GIVEN)]
        async with asyncio.timeout(10):
            await services.crowded.wait()
        with pytest.raises(aio.AioRpcError) as caught:
            await search("one more")
        response = await http.post("/api/v1/documents/search", json={"query": "one more"})
        elsewhere = await http.post("/api/v1/chat", json={"message": "hi"})
        services.go_on.set()
    assert [task.result().results[0].content for task in crowd] == ["hang"] * GIVEN

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain) == ("OVERLOADED", "gateway.loremesh.dev")
    assert retry.retry_delay.seconds == 1
    assert (response.status_code, reason(response), response.headers["retry-after"]) == (429, "OVERLOADED", "1")
    assert elsewhere.status_code == 200
    assert (await search("after")).results[0].content == "after"


async def test_calls_which_wait_are_not_counted_at_the_door(services: StandIn, door: Door) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    request = chat_pb2.ChatRequest(message="hi")
    async with AsyncExitStack() as stack:
        opened = [aio.insecure_channel(door.target, options=options) for _ in range(2)]
        stubs = [chat_pb2_grpc.ChatServiceStub(await stack.enter_async_context(each)) for each in opened]
        streams = [stub.StreamChat(request, timeout=20) for stub in stubs for _ in range(GIVEN)]
        for stream in streams:
            assert (await anext(aiter(stream))).text_delta.text == "first"
        services.go_on.set()
        for stream in streams:
            assert (await anext(aiter(stream))).completed.response == "first"


async def test_a_service_that_is_not_there_is_said_to_be_so(http: httpx.AsyncClient, channel: aio.Channel) -> None:
    response = await http.post("/api/v1/chat", json={"message": "hi"})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    info, retry = response.json()["details"]
    assert (info["reason"], info["domain"]) == ("UPSTREAM_UNAVAILABLE", "gateway.loremesh.dev")
    assert info["metadata"] == {"service": "agent", "request_id": response.headers["x-request-id"]}
    assert retry == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1s"}
    with pytest.raises(aio.AioRpcError) as caught:
        await chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(message="hi"), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "{" not in str(caught.value.details())


async def test_a_service_that_comes_back_within_a_second_is_waited_for(door: Door, http: httpx.AsyncClient) -> None:
    async def later() -> None:
        await asyncio.sleep(0.2)
        server.add_insecure_port(f"127.0.0.1:{door.ports['agent']}")
        await server.start()

    server = aio.server()
    chat_pb2_grpc.add_ChatServiceServicer_to_server(StandIn(), server)
    async with asyncio.TaskGroup() as group:
        group.create_task(later())
        asked = group.create_task(http.post("/api/v1/chat", json={"message": "hi"}))
    await server.stop(0)
    assert asked.result().status_code == 200


async def test_events_arrive_when_they_happen(services: StandIn, http: httpx.AsyncClient) -> None:
    async with http.stream("POST", "/api/v1/chat/stream", json={"message": "hi"}) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert "content-encoding" not in response.headers
        assert response.headers["x-accel-buffering"] == "no"
        lines = (line async for line in response.aiter_lines() if line.startswith("data: "))
        async with asyncio.timeout(5):  # the second event waits for us to have seen the first
            first = await anext(lines)
        services.go_on.set()
        rest = [line async for line in lines]
    assert json.loads(first.removeprefix("data: "))["text_delta"]["text"] == "first"
    assert [json.loads(line.removeprefix("data: "))["seq"] for line in rest] == ["2"]


async def test_a_caller_who_leaves_ends_the_work(services: StandIn, http: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/api/v1/chat", json={"message": "hang"}, timeout=0.3)
    async with asyncio.timeout(5):
        await services.cancelled.wait()


async def body(pieces: int) -> AsyncIterator[bytes]:
    for _ in range(pieces):
        yield b"x" * MEBIBYTE


def long_message() -> Iterator[bytes]:
    yield b'{"message": "'
    for _ in range(17):
        yield b"x" * MEBIBYTE
    yield b'"}'


async def test_an_upload_streams_in_pieces_and_leaves_the_door_as_small_as_it_was(
    services: StandIn, door: Door, http: httpx.AsyncClient
) -> None:
    before = door.resident_bytes()
    headers = {"content-type": "text/markdown"}
    parameters = {"title": "a+b c", "vector_store_id": "other", "chunking_strategy.max_tokens": "64"}
    response = await http.post("/api/v1/documents", content=body(100), headers=headers, params=parameters)
    assert response.json()["size_bytes"] == str(100 * MEBIBYTE)
    assert max(services.pieces) <= MEBIBYTE
    assert door.resident_bytes() - before < 48 * MEBIBYTE
    first, second = services.uploaded
    assert first.file.content_type == "text/markdown"
    assert (first.title, first.vector_store_id, first.chunking_strategy.max_tokens) == ("a+b c", "other", 64)
    assert (second.file.content_type, second.title, second.vector_store_id) == ("", "", "")


async def test_a_form_arrives_as_it_was_sent(services: StandIn, http: httpx.AsyncClient) -> None:
    await http.post("/api/v1/documents", files={"file": ("a.txt", b"text")}, data={"title": "t"})
    assert services.uploaded[0].file.content_type.startswith("multipart/form-data; boundary=")
    assert b'name="title"' in b"".join(piece.file.data for piece in services.uploaded)


@pytest.mark.usefixtures("services")
async def test_a_download_streams_and_is_no_page_of_ours(door: Door, http: httpx.AsyncClient) -> None:
    before = door.resident_bytes()
    async with http.stream("GET", "/api/v1/documents/1/content", headers={"accept-encoding": "gzip"}) as response:
        assert sum([len(piece) async for piece in response.aiter_raw()]) == 64 * MEBIBYTE
    assert door.resident_bytes() - before < 48 * MEBIBYTE
    assert response.headers["content-type"] == "text/html"
    assert response.headers["content-disposition"] == "attachment"
    assert "sandbox" in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_any_other_body_has_a_limit_whether_or_not_it_says_its_length(services: StandIn, door: Door) -> None:
    for content in (b"".join(long_message()), long_message()):
        # Not by the asynchronous client: it stops reading once it cannot write on.
        response = await asyncio.to_thread(httpx.post, f"{door.url}/api/v1/chat", content=content, timeout=30)
        assert (response.status_code, reason(response)) == (413, "REQUEST_TOO_LARGE")
    assert services.metadata == []


@pytest.mark.usefixtures("services")
async def test_json_is_compressed_where_it_is_worth_it(http: httpx.AsyncClient) -> None:
    sizes = {20: None, 20_000: "gzip"}
    for length, encoding in sizes.items():
        response = await http.post("/api/v1/chat", json={"message": "x" * length})
        assert response.headers.get("content-encoding") == encoding
        assert response.json()["response"] == "x" * length


@pytest.mark.usefixtures("services")
async def test_zeros_are_printed_and_what_is_unset_is_not(http: httpx.AsyncClient) -> None:
    (result,) = (await http.post("/api/v1/documents/search", json={"query": "hi"})).json()["results"]
    assert (result["score"], result["start_char"], result["title"]) == (0, "0", "")
    assert "page" not in result
    assert "attributes" not in result


@pytest.mark.usefixtures("services")
async def test_an_id_in_the_body_must_agree_with_the_path(http: httpx.AsyncClient) -> None:
    response = await http.patch("/api/v1/documents/1", json={"id": "2", "title": "t"})
    assert (response.status_code, reason(response)) == (400, "BODY_INVALID")


@pytest.mark.usefixtures("services")
async def test_a_service_for_the_mesh_alone_is_not_reachable(channel: aio.Channel) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await index_pb2_grpc.IndexServiceStub(channel).CountChunks(index_pb2.CountChunksRequest(), timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert caught.value.details() == "No such service is reachable from outside the mesh."


async def test_a_deadline_reaches_the_service(services: StandIn, channel: aio.Channel) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await chat_pb2_grpc.ChatServiceStub(channel).Chat(chat_pb2.ChatRequest(message="hang"), timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(5):
        await services.cancelled.wait()


async def logged(door: Door, request_id: str) -> list[dict[str, Any]]:
    """What is logged of a request, once it is."""
    for _ in range(100):
        if lines := [line for line in door.access_log() if line["request_id"] == request_id]:
            return lines
        await asyncio.sleep(0.1)
    return []


@pytest.mark.usefixtures("services")
async def test_the_access_log_says_what_happened_and_not_what_was_asked(door: Door, http: httpx.AsyncClient) -> None:
    response = await http.get("/api/v1/documents/search", params={"query": "a secret question"})
    (line,) = await logged(door, response.headers["x-request-id"])
    assert "secret" not in json.dumps(line)
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/v1/documents/search", 200)
    assert line["rpc"] == "/loremesh.retrieval.v1.RetrievalService/Search"
    assert (line["service_called"], line["tenant"]) == ("retrieval", "default")
