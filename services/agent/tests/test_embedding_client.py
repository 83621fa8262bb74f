"""Vectors from an embedding service that answers, or does not."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from loremesh.embedding.v1 import embedding_pb2 as pb
from loremesh.embedding.v1 import embedding_pb2_grpc as rpc
from loremesh_agent.adapters.embedding import EmbeddingClient
from loremesh_kit import deadline
from loremesh_kit.channel import open_channel
from loremesh_kit.errors import DeadlineExceeded, DependencyUnavailable
from loremesh_kit.testing import caller

pytestmark = pytest.mark.unit


class Double(rpc.EmbeddingServiceServicer):
    """Answers every text with its length; refuses with what it was told to."""

    def __init__(self) -> None:
        self.requests: list[pb.EmbedRequest] = []
        self.code: grpc.StatusCode | None = None

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:  # noqa: N802
        self.requests.append(request)
        if self.code:
            await context.abort(self.code, "in a provider's own words")
        vectors = [pb.Embedding(dense=[float(len(text)), 0.0]) for text in request.texts]
        return pb.EmbedResponse(model="m", dimension=2, embeddings=vectors)


@pytest.fixture
def double() -> Double:
    return Double()


@pytest.fixture
async def client(double: Double) -> AsyncIterator[EmbeddingClient]:
    server = grpc.aio.server()
    rpc.add_EmbeddingServiceServicer_to_server(double, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        with caller():
            yield EmbeddingClient(channel=channel)
    await server.stop(None)


async def test_questions_and_facts_are_embedded_as_what_they_are(client: EmbeddingClient, double: Double) -> None:
    embedded = await client.embed(["ab", "abc"], are_queries=False)
    assert (embedded.model, embedded.vectors) == ("m", [(2.0, 0.0), (3.0, 0.0)])
    await client.embed(["ab"], are_queries=True)
    assert [each.input_type for each in double.requests] == [pb.INPUT_TYPE_DOCUMENT, pb.INPUT_TYPE_QUERY]
    assert {each.model for each in double.requests} == {""}


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
)
async def test_whatever_it_fails_with_is_that_it_cannot_be_had(
    client: EmbeddingClient, double: Double, code: grpc.StatusCode
) -> None:
    double.code = code
    with pytest.raises(DependencyUnavailable) as failed:
        await client.embed(["ab"], are_queries=True)
    assert "words" not in failed.value.message


async def test_a_caller_whose_time_is_over_is_told_so(client: EmbeddingClient, double: Double) -> None:
    double.code = grpc.StatusCode.DEADLINE_EXCEEDED
    with deadline.scope(0.5), pytest.raises(DeadlineExceeded):
        await client.embed(["ab"], are_queries=True)
