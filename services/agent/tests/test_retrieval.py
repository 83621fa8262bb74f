"""RetrievalClient against a retrieval service played in this process."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from loremesh.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from loremesh_agent.adapters.retrieval import RetrievalClient
from loremesh_agent.errors import VectorStoreNotFound
from loremesh_kit import deadline, filters
from loremesh_kit.channel import open_channel
from loremesh_kit.errors import (
    Code,
    DeadlineExceeded,
    DependencyUnavailable,
    FilterInvalid,
    Overloaded,
    ServiceError,
)
from loremesh_kit.filters import And, Comparison, Exists, Membership, Not, Or
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.testing import serving

pytestmark = [pytest.mark.steelthread, pytest.mark.usefixtures("who")]

FILTER = And(
    (
        Comparison("eq", "lang", "th"),
        Or((Comparison("gte", "year", 1998.0), Not(Comparison("ne", "draft", True)))),
        Membership("in", "tag", ("a", 1.0, False)),
        Not(Membership("nin", "tag", ("b",))),
        Exists("source"),
    )
)


class Refusal(ServiceError):
    def __init__(self, code: Code, reason: str) -> None:
        self.code = code  # type: ignore[misc]
        self.reason = reason
        super().__init__("Refused.", retry_after=0.1)


class Retrieval(retrieval_pb2_grpc.RetrievalServiceServicer):
    """Finds one passage; fails as it is told."""

    def __init__(self) -> None:
        self.requests: list[retrieval_pb2.SearchRequest] = []
        self.failure: Exception | None = None

    async def Search(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        if self.failure is not None:
            raise self.failure
        result = retrieval_pb2.SearchResult(document_id="d", content="x", score=0.9, end_char=1)
        result.attributes.update({"n": 1.5, "list": ["a", True], "none": None})
        nearest = None if request.query == "words" else 0.4
        return retrieval_pb2.SearchResponse(results=[result], nearest_similarity=nearest)

    async def ExplainSearch(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


@pytest.fixture
def retrieval() -> Retrieval:
    return Retrieval()


@pytest.fixture
async def client(retrieval: Retrieval) -> AsyncIterator[RetrievalClient]:
    add = retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server
    servicer = Servicer(add=add, servicer=retrieval, name="loremesh.retrieval.v1.RetrievalService")
    async with serving(Wired(servicers=[servicer]), service="retrieval") as channel:
        yield RetrievalClient(channel=channel)


async def search(client: RetrievalClient) -> Any:
    return await client.search("q", vector_store_id="s", top_k=3, filter_=FILTER)


async def test_passages_come_with_the_cosine_of_the_nearest(client: RetrievalClient, retrieval: Retrieval) -> None:
    found = await search(client)
    (passage,) = found.passages
    assert (passage.score, found.similarity) == (0.9, pytest.approx(0.4))
    assert passage.attributes == {"n": 1.5, "list": ["a", True], "none": None}
    assert passage.page is None
    (request,) = retrieval.requests
    assert (request.query, request.vector_store_id, request.top_k) == ("q", "s", 3)
    assert filters.from_proto(request.filter) == FILTER


async def test_where_nothing_was_compared_no_cosine_is_known(client: RetrievalClient) -> None:
    found = await client.search("words", vector_store_id="s", top_k=3, filter_=None)
    assert found.similarity is None


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (Refusal(Code.NOT_FOUND, "VECTOR_STORE_NOT_FOUND"), VectorStoreNotFound),
        (FilterInvalid("Too deep.", field="filter"), FilterInvalid),
        (DependencyUnavailable("embedding"), DependencyUnavailable),
        (DeadlineExceeded(), DependencyUnavailable),
        (Overloaded(), Overloaded),
    ],
)
async def test_a_failure_is_told_in_our_own_words(
    client: RetrievalClient, retrieval: Retrieval, failure: ServiceError, error: type[ServiceError]
) -> None:
    retrieval.failure = failure
    with pytest.raises(error) as failed:
        await search(client)
    if isinstance(failed.value, DependencyUnavailable):
        assert failed.value.metadata == {"dependency": "retrieval"}


async def test_nobody_there_is_unavailable_and_the_callers_time_is_the_callers() -> None:
    async with open_channel("127.0.0.1:1") as channel:
        with pytest.raises(DependencyUnavailable):
            await search(RetrievalClient(channel=channel))
        with deadline.scope(0.1), pytest.raises((DeadlineExceeded, DependencyUnavailable)):
            await search(RetrievalClient(channel=channel))
