"""RetrievalClient against a retrieval service played in this process."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import aio
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
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import serving

pytestmark = [pytest.mark.steelthread, pytest.mark.usefixtures("who")]

# At once by the service, from whoever calls.
ADMITTED = 64
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
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def Search(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        await self.go_on.wait()
        if self.failure is not None:
            raise self.failure
        result = retrieval_pb2.SearchResult(document_id="d", content="x", score=0.9, end_char=1)
        result.attributes.update({"n": 1.5, "list": ["a", True], "none": None})
        nearest = None if request.query == "words" else 0.4
        return retrieval_pb2.SearchResponse(
            results=[result], nearest_similarity=nearest, vector_store_id=request.vector_store_id, generation=7
        )

    async def ExplainSearch(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


@pytest.fixture
def retrieval() -> Retrieval:
    return Retrieval()


@pytest.fixture
async def channel(retrieval: Retrieval) -> AsyncIterator[aio.Channel]:
    add = retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server
    servicer = Servicer(add=add, servicer=retrieval, name="loremesh.retrieval.v1.RetrievalService")
    settings = ServiceSettings(drain_seconds=0, admission_limit=ADMITTED)
    async with serving(Wired(servicers=[servicer]), service="retrieval", settings=settings) as channel:
        yield channel


@pytest.fixture
def client(channel: aio.Channel) -> RetrievalClient:
    return RetrievalClient(channel=channel)


async def search(client: RetrievalClient) -> Any:
    return await client.search("q", vector_store_id="s", top_k=3, filter_=FILTER)


async def test_passages_come_with_the_cosine_of_the_nearest(client: RetrievalClient, retrieval: Retrieval) -> None:
    found = await search(client)
    (passage,) = found.passages
    assert (passage.score, found.similarity) == (0.9, pytest.approx(0.4))
    assert found.generations == {"s": 7}
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


async def test_a_crowd_larger_than_retrieval_admits_is_served(client: RetrievalClient, retrieval: Retrieval) -> None:
    retrieval.go_on.clear()
    async with asyncio.TaskGroup() as group:
        crowd = [group.create_task(search(client)) for _ in range(4 * ADMITTED)]
        # Long enough for the first refusal, if there were one.
        await asyncio.wait(crowd, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
        retrieval.go_on.set()
    assert all(task.result().passages for task in crowd)
    assert len(retrieval.requests) == len(crowd)


async def test_a_search_whose_turn_does_not_come_is_refused_and_so_is_no_later_one(
    channel: aio.Channel, retrieval: Retrieval
) -> None:
    client = RetrievalClient(channel=channel, turn_seconds=0.2)
    retrieval.go_on.clear()
    async with asyncio.TaskGroup() as group:
        crowd = [group.create_task(told(client)) for _ in range(ADMITTED)]
        await asyncio.wait(crowd, return_when=asyncio.FIRST_COMPLETED)
        retrieval.go_on.set()
    assert {task.result() for task in crowd} == {"found", "refused"}
    assert await told(client) == "found"


async def told(client: RetrievalClient) -> str:
    try:
        await search(client)
    except Overloaded:
        return "refused"
    return "found"
