"""The ingestion service in this process: real Postgres and NATS, everything else in memory unless a test says so."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1.deletion_pb2_grpc import DeletionServiceStub
from loremesh.ingestion.v1.document_pb2_grpc import DocumentServiceStub
from loremesh.ingestion.v1.generation_pb2_grpc import IndexGenerationServiceStub
from loremesh.ingestion.v1.job_pb2_grpc import JobServiceStub
from loremesh.ingestion.v1.vector_store_pb2_grpc import VectorStoreServiceStub
from loremesh_ingestion.adapters.memory import MemoryBlobStore, MemoryEmbedder, MemoryParser, MemorySearchIndex
from loremesh_ingestion.main import MIGRATIONS
from loremesh_ingestion.settings import Settings
from loremesh_ingestion.wiring import SERVICE, Outside, assemble
from loremesh_kit import events
from loremesh_kit.postgres import Database, open_database
from loremesh_kit.server import Role
from loremesh_kit.testing import DatabaseUrls, caller, fresh_database, serving

TRANSCODED = (("x-envoy-original-path", "/api/v1/documents"),)
AT_REST = (pb.DOCUMENT_STATE_READY, pb.DOCUMENT_STATE_FAILED)


@dataclass(kw_only=True)
class Service:
    """A running service, what it is connected to, and shorthands for its calls."""

    channel: aio.Channel
    database: Database
    blobs: Any
    embedder: Any
    index: Any
    documents: Any = field(init=False)
    stores: Any = field(init=False)
    jobs: Any = field(init=False)
    generations: Any = field(init=False)
    deletions: Any = field(init=False)

    def __post_init__(self) -> None:
        self.documents = DocumentServiceStub(self.channel)
        self.stores = VectorStoreServiceStub(self.channel)
        self.jobs = JobServiceStub(self.channel)
        self.generations = IndexGenerationServiceStub(self.channel)
        self.deletions = DeletionServiceStub(self.channel)

    async def upload(self, content: bytes | Iterable[bytes], **given: Any) -> pb.Document:
        content_type = given.pop("content_type", "text/plain")
        key = given.pop("key", None)
        if isinstance(given.get("attributes"), Mapping):
            given["attributes"] = struct(given["attributes"])
        pieces = [content] if isinstance(content, bytes) else list(content)

        async def messages() -> AsyncIterator[pb.UploadDocumentRequest]:
            yield pb.UploadDocumentRequest(file=HttpBody(content_type=content_type, data=pieces[0]), **given)
            for piece in pieces[1:]:
                yield pb.UploadDocumentRequest(file=HttpBody(data=piece))

        return await self.documents.UploadDocument(messages(), metadata=(("idempotency-key", key),) if key else None)

    async def post(self, body: bytes, content_type: str, *, pieces: int = 1, **query: Any) -> pb.Document:
        """As Envoy sends it."""
        size = max(1, -(-len(body) // pieces))

        async def messages() -> AsyncIterator[pb.UploadDocumentRequest]:
            yield pb.UploadDocumentRequest(file=HttpBody(content_type=content_type, data=body[:size]), **query)
            for start in range(size, len(body), size):
                yield pb.UploadDocumentRequest(file=HttpBody(data=body[start : start + size]))

        return await self.documents.UploadDocument(messages(), metadata=TRANSCODED)

    async def get(self, document_id: str) -> pb.Document:
        return await self.documents.GetDocument(pb.GetDocumentRequest(document_id=document_id))

    async def eventually(self, check: Callable[[], Awaitable[Any]], *, impatient: bool = False) -> Any:
        """The first true answer; the impatient spare themselves the backoff of jobs that failed."""
        async with asyncio.timeout(60):
            while not (answer := await check()):
                if impatient:
                    await self.rows("UPDATE jobs SET due_at = now() WHERE state = 'QUEUED' AND announced_at IS NULL")
                await asyncio.sleep(0.02)
        return answer

    async def settled(self, document: pb.Document | str, *, impatient: bool = False) -> pb.Document:
        """The document once it is READY or FAILED."""
        document_id = document if isinstance(document, str) else document.id

        async def at_rest() -> pb.Document | None:
            found = await self.get(document_id)
            return found if found.state in AT_REST else None

        return await self.eventually(at_rest, impatient=impatient)

    async def watch(self, document_id: str, after_seq: int = 0) -> list[pb.DocumentEvent]:
        async with asyncio.timeout(30):
            call = self.documents.WatchDocument(pb.WatchDocumentRequest(document_id=document_id, after_seq=after_seq))
            return [event async for event in call if event.WhichOneof("payload") != "heartbeat"]

    async def idle(self) -> None:
        """Return when no job is left to do but those which wait for their hour."""
        left = (
            "SELECT 1 FROM jobs WHERE state IN ('QUEUED', 'RUNNING') AND due_at < now() + interval '10 minutes' LIMIT 1"
        )

        async def done() -> bool:
            return not await self.rows(left)

        await self.eventually(done)

    async def rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        return await self.database.fetch(query, parameters)


def struct(values: Mapping[str, Any]) -> Struct:
    message = Struct()
    message.update(values)
    return message


@pytest.fixture(autouse=True)
def _caller():
    with caller():
        yield


@pytest.fixture
async def database_urls(postgres_url: str) -> AsyncIterator[DatabaseUrls]:
    async with fresh_database(postgres_url, schema=SERVICE, migrations=MIGRATIONS) as urls:
        yield urls


@pytest.fixture
def start_service(database_urls: DatabaseUrls, nats_url: str) -> Callable[..., AbstractAsyncContextManager[Service]]:
    """Starts the service with some of its parts replaced; several at once are replicas of one."""

    @asynccontextmanager
    async def start(*, role: Role = "all", settings: Mapping[str, Any] | None = None, **parts: Any):
        configured = Settings(
            database_url=database_urls.plain,
            nats_url=nats_url,
            drain_seconds=0,
            grace_seconds=5,
            **settings or {},
        )
        async with open_database(configured) as database, events.connect(nats_url, service=SERVICE) as bus:
            held = {
                "blobs": MemoryBlobStore(),
                "parser": MemoryParser(),
                "embedder": MemoryEmbedder(),
                "index": MemorySearchIndex(),
                **parts,
            }
            wired = assemble(Outside(database=database, bus=bus, **held), settings=configured)
            held.pop("parser")
            async with serving(wired, service=SERVICE, settings=configured, role=role) as channel:
                yield Service(channel=channel, database=database, **held)

    return start


@pytest.fixture
async def service(start_service) -> AsyncIterator[Service]:
    async with start_service() as running:
        yield running


@asynccontextmanager
async def _refusal(reason: str, code: str, field: str | None):
    with pytest.raises(aio.AioRpcError) as raised:
        yield
    error = raised.value
    details: dict[str, Any] = {}
    for detail in rpc_status.from_call(error).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest):
            message = kind()
            if detail.Unpack(message):
                details[kind.__name__] = message
    assert (error.code().name, details["ErrorInfo"].reason) == (code, reason), error.details()
    assert details["ErrorInfo"].domain == "ingestion.loremesh.dev"
    if field is not None:
        assert field in [violation.field for violation in details["BadRequest"].field_violations]


@pytest.fixture
def refused():
    """`async with refused(reason, code, field):` a call is refused for that reason."""

    def expect(reason: str, code: str = "INVALID_ARGUMENT", field: str | None = None):
        return _refusal(reason, code, field)

    return expect
