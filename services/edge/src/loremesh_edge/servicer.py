# ruff: noqa: N802 - rpcs are named by the contract
"""EdgeService in protobuf's terms."""

from collections.abc import Iterable
from typing import Any

from google.api import httpbody_pb2  # type: ignore[import-untyped]
from grpc import aio
from loremesh.edge.v1 import edge_pb2, edge_pb2_grpc

from loremesh_edge.readiness import Component, Readiness


class EdgeServicer(edge_pb2_grpc.EdgeServiceServicer):
    """Answers for the door: is the mesh ready, and what can it be asked over REST."""

    def __init__(self, *, readiness: Readiness, openapi: bytes) -> None:
        """`openapi` is the document as JSON."""
        self._readiness = readiness
        self._openapi = openapi

    async def GetReadiness(
        self, request: edge_pb2.GetReadinessRequest, context: aio.ServicerContext[Any, Any]
    ) -> edge_pb2.GetReadinessResponse:
        """Names every service; raises MeshNotReady."""
        del request, context
        return edge_pb2.GetReadinessResponse(status="ready", components=_components(await self._readiness.check()))

    async def GetOpenApi(
        self, request: edge_pb2.GetOpenApiRequest, context: aio.ServicerContext[Any, Any]
    ) -> httpbody_pb2.HttpBody:
        """The document, the same for everyone."""
        del request, context
        return httpbody_pb2.HttpBody(content_type="application/json", data=self._openapi)


def _components(components: Iterable[Component]) -> list[edge_pb2.Component]:
    return [
        edge_pb2.Component(
            name=each.name,
            state=edge_pb2.ComponentState.Value(f"COMPONENT_STATE_{each.state}"),
            dependencies=_components(each.dependencies),
        )
        for each in components
    ]
