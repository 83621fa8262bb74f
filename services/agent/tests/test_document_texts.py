"""IngestionClient against an ingestion service played in this process."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1.document_pb2_grpc import DocumentServiceServicer, add_DocumentServiceServicer_to_server
from loremesh_agent.adapters.ingestion import IngestionClient
from loremesh_agent.ports import DocumentFacts, Extract
from loremesh_kit import deadline
from loremesh_kit.channel import open_channel
from loremesh_kit.errors import Code, DeadlineExceeded, DependencyUnavailable, ServiceError
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.testing import serving

pytestmark = [pytest.mark.steelthread, pytest.mark.usefixtures("who")]


class Refusal(ServiceError):
    def __init__(self, code: Code) -> None:
        self.code = code  # type: ignore[misc]
        self.reason = "INVALID_FIELD"
        super().__init__("Refused.", retry_after=0.1)


class Documents(DocumentServiceServicer):
    """Has one document; fails as it is told."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.failure: Exception | None = None

    async def GetDocument(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._told(request)
        return pb.Document(id="d", vector_store_id="s", title="Wings", text_chars=900, page_count=3)

    async def GetDocumentText(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._told(request)
        return pb.GetDocumentTextResponse(text="abc", start_char=4, end_char=7, text_chars=900)

    def _told(self, request: Any) -> None:
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def documents() -> Documents:
    return Documents()


@pytest.fixture
async def client(documents: Documents) -> AsyncIterator[IngestionClient]:
    add, name = add_DocumentServiceServicer_to_server, "loremesh.ingestion.v1.DocumentService"
    wired = Wired(servicers=[Servicer(add=add, servicer=documents, name=name)])
    async with serving(wired, service="ingestion") as channel:
        yield IngestionClient(channel=channel)


async def test_facts_and_texts_are_read(client, documents):
    facts = DocumentFacts(document_id="d", vector_store_id="s", title="Wings", text_chars=900, pages=3)
    assert await client.facts("d") == facts
    assert await client.span("d", start_char=4, end_char=7) == Extract(text="abc", start_char=4, end_char=7)
    assert await client.pages("d", first=2, last=3) == Extract(text="abc", start_char=4, end_char=7)
    assert documents.requests[1:] == [
        pb.GetDocumentTextRequest(document_id="d", start_char=4, end_char=7),
        pb.GetDocumentTextRequest(document_id="d", first_page=2, last_page=3),
    ]


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.OUT_OF_RANGE, Code.INVALID_ARGUMENT])
async def test_what_is_not_there_is_nothing(client, documents, code):
    documents.failure = Refusal(code)
    assert await client.facts("d") is None
    assert await client.span("d", start_char=0, end_char=1) is None
    assert await client.pages("d", first=1, last=1) is None


async def test_a_service_that_fails_is_a_dependency(client, documents):
    documents.failure = Refusal(Code.INTERNAL)
    with pytest.raises(DependencyUnavailable):
        await client.facts("d")
    async with open_channel("127.0.0.1:9") as nowhere:
        with deadline.scope(0.3), pytest.raises((DependencyUnavailable, DeadlineExceeded)):
            await IngestionClient(channel=nowhere).span("d", start_char=0, end_char=1)
