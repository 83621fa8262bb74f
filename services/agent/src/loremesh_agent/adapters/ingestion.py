"""What the ingestion service knows of documents."""

from collections.abc import Collection
from typing import Any

from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1.document_pb2_grpc import DocumentServiceStub
from loremesh_kit import deadline
from loremesh_kit.errors import DeadlineExceeded, DependencyUnavailable

_NAME = "ingestion"
# Somebody waits for an answer that is ready but for this.
_SECONDS = 3.0
_AT_ONCE = 1000


class IngestionClient:
    """Asks DocumentService."""

    def __init__(self, *, channel: aio.Channel) -> None:
        self._channel = channel
        self._stub = DocumentServiceStub(channel)

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
            if error.code() is StatusCode.DEADLINE_EXCEEDED and deadline.within(1.0) < 1.0:
                raise DeadlineExceeded from error
            raise DependencyUnavailable(_NAME) from error
        return set(response.versions)

    async def ping(self) -> None:
        """Raise unless the service says that it serves."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise DependencyUnavailable(_NAME)
