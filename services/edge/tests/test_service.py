import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.api import httpbody_pb2  # noqa: F401 - known to the pool by being imported
from grpc import aio
from grpc_reflection.v1alpha import reflection_pb2
from loremesh.edge.v1 import edge_pb2, edge_pb2_grpc
from loremesh_edge.main import wire
from loremesh_edge.settings import EdgeSettings
from loremesh_kit.channel import reason_of
from loremesh_kit.identity import PRINCIPAL_HEADER, TENANT_HEADER
from loremesh_kit.server import Wired, serve

pytestmark = pytest.mark.steelthread

METADATA = ((TENANT_HEADER, "default"), (PRINCIPAL_HEADER, "anonymous"))


@pytest.fixture
async def sister() -> AsyncIterator[str]:
    """The address of a service which has nothing but what the kit gives every service."""

    async def fine() -> None:
        pass

    settings = EdgeSettings(listen="127.0.0.1:0", drain_seconds=0, grace_seconds=0)
    async with serve(Wired(servicers=(), probes={"postgres": fine}), service="edge", settings=settings) as running:
        yield running.target


@pytest.fixture
async def channel(sister: str) -> AsyncIterator[aio.Channel]:
    """A channel to an edge service whose sisters all are that one, but the agent, which is not there."""
    settings = EdgeSettings(
        listen="127.0.0.1:0", drain_seconds=0, grace_seconds=0, ingestion_target=sister, embedding_target=sister,
        retrieval_target=sister, crew_target=sister, agent_target="127.0.0.1:1", readiness_seconds=1.0,
    )  # fmt: skip
    async with (
        wire(settings) as wired,
        serve(wired, service="edge", settings=settings) as running,
        aio.insecure_channel(running.target) as channel,
    ):
        yield channel


async def test_the_part_that_is_missing_is_named(channel: aio.Channel) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await edge_pb2_grpc.EdgeServiceStub(channel).GetReadiness(
            edge_pb2.GetReadinessRequest(), metadata=METADATA, timeout=10
        )
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(caught.value) == "MESH_NOT_READY"
    assert "agent is unreachable" in str(caught.value.details())
    assert "ingestion" not in str(caught.value.details())


async def test_the_document_is_served(channel: aio.Channel) -> None:
    answer = await edge_pb2_grpc.EdgeServiceStub(channel).GetOpenApi(
        edge_pb2.GetOpenApiRequest(), metadata=METADATA, timeout=10
    )
    assert answer.content_type == "application/json"
    assert json.loads(answer.data)["openapi"] == "3.1.0"


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_speaks_for_the_whole_mesh_but_not_for_what_is_internal(
    channel: aio.Channel, version: str
) -> None:
    method: Any = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    names = {
        service.name
        async for answer in method(iter([request]), timeout=10)
        for service in answer.list_services_response.service
    }
    assert names >= {
        "loremesh.agent.v1.ChatService", "loremesh.edge.v1.EdgeService", "loremesh.embedding.v1.EmbeddingService",
        "loremesh.ingestion.v1.DocumentService", "loremesh.retrieval.v1.RetrievalService", "grpc.health.v1.Health",
    }  # fmt: skip
    assert "loremesh.retrieval.v1.IndexService" not in names
