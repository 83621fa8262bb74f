"""What the ingestion service knows of documents and vector stores."""

import asyncio
from collections.abc import Awaitable, Collection
from typing import Any, TypeVar

from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1 import vector_store_pb2 as stores
from loremesh.ingestion.v1.document_pb2_grpc import DocumentServiceStub
from loremesh.ingestion.v1.vector_store_pb2_grpc import VectorStoreServiceStub
from loremesh_kit import deadline
from loremesh_kit.errors import DeadlineExceeded, DependencyUnavailable

from loremesh_agent.ports import DocumentFacts, Extract

_NAME = "ingestion"
# Somebody waits for an answer that is ready but for this.
_SECONDS = 3.0
_READ_SECONDS = 10.0
_AT_ONCE = 1000
# What is not there to be read: deleted, not yet parsed, or shorter than thought.
_NOTHING = frozenset(
    {StatusCode.NOT_FOUND, StatusCode.FAILED_PRECONDITION, StatusCode.OUT_OF_RANGE, StatusCode.INVALID_ARGUMENT}
)

_Response = TypeVar("_Response")


class IngestionClient:
    """Asks DocumentService and VectorStoreService."""

    def __init__(self, *, channel: aio.Channel) -> None:
        self._channel = channel
        self._stub = DocumentServiceStub(channel)
        self._stores = VectorStoreServiceStub(channel)

    async def live(self, document_ids: Collection[str]) -> frozenset[str]:
        """See ports.DocumentRegistry."""
        ids = sorted(document_ids)
        found: set[str] = set()
        for start in range(0, len(ids), _AT_ONCE):
            found |= await self._live(ids[start : start + _AT_ONCE])
        return frozenset(found)

    async def _live(self, document_ids: list[str]) -> set[str]:
        request = pb.ResolveVersionsRequest(document_ids=document_ids)
        try:
            response = await self._stub.ResolveVersions(request, timeout=_SECONDS)
        except aio.AioRpcError as error:
            raise _failure(error) from error
        return set(response.versions)

    async def missing(self, vector_store_ids: Collection[str]) -> frozenset[str]:
        """See ports.VectorStoreRegistry."""
        try:
            async with asyncio.TaskGroup() as group:
                asked = {id_: group.create_task(self._is_missing(id_)) for id_ in vector_store_ids}
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return frozenset(id_ for id_, task in asked.items() if task.result())

    async def _is_missing(self, vector_store_id: str) -> bool:
        request = stores.GetVectorStoreRequest(vector_store_id=vector_store_id)
        try:
            await self._stores.GetVectorStore(request, timeout=_SECONDS)
        except aio.AioRpcError as error:
            # An id that could be none is none either.
            if error.code() in (StatusCode.NOT_FOUND, StatusCode.INVALID_ARGUMENT):
                return True
            raise _failure(error) from error
        return False

    async def facts(self, document_id: str) -> DocumentFacts | None:
        """See ports.DocumentTexts."""
        request = pb.GetDocumentRequest(document_id=document_id)
        found: pb.Document | None = await _if_any(self._stub.GetDocument(request, timeout=_READ_SECONDS))
        return found and DocumentFacts(
            document_id=found.id,
            vector_store_id=found.vector_store_id,
            title=found.title,
            text_chars=found.text_chars,
            pages=found.page_count,
        )

    async def span(self, document_id: str, *, start_char: int, end_char: int) -> Extract | None:
        """See ports.DocumentTexts."""
        return await self._extract(
            pb.GetDocumentTextRequest(document_id=document_id, start_char=start_char, end_char=end_char)
        )

    async def pages(self, document_id: str, *, first: int, last: int) -> Extract | None:
        """See ports.DocumentTexts."""
        return await self._extract(pb.GetDocumentTextRequest(document_id=document_id, first_page=first, last_page=last))

    async def _extract(self, request: pb.GetDocumentTextRequest) -> Extract | None:
        found: pb.GetDocumentTextResponse | None = await _if_any(
            self._stub.GetDocumentText(request, timeout=_READ_SECONDS)
        )
        return found and Extract(text=found.text, start_char=found.start_char, end_char=found.end_char)

    async def ping(self) -> None:
        """Raise unless the service says that it serves."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise DependencyUnavailable(_NAME)


async def _if_any(call: Awaitable[_Response]) -> _Response | None:
    try:
        return await call
    except aio.AioRpcError as error:
        if error.code() in _NOTHING:
            return None
        raise _failure(error) from error


def _failure(error: aio.AioRpcError) -> DeadlineExceeded | DependencyUnavailable:
    if error.code() is StatusCode.DEADLINE_EXCEEDED and deadline.within(1.0) < 1.0:
        return DeadlineExceeded()
    return DependencyUnavailable(_NAME)
