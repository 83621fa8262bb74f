"""Passages from the retrieval service."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from loremesh.common.v1 import filter_pb2
from loremesh.retrieval.v1 import retrieval_pb2 as pb
from loremesh.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub
from loremesh_kit import deadline
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import DeadlineExceeded, DependencyUnavailable, FilterInvalid, Overloaded
from loremesh_kit.filters import And, Comparison, Exists, Filter, Membership, Not, Or
from loremesh_kit.structs import plain

from loremesh_agent.domain.passages import Found, Passage
from loremesh_agent.errors import VectorStoreNotFound

_NAME = "retrieval"
_SEARCH_SECONDS = 15.0
# Of a process: a quarter of what retrieval admits, and more than its processor can do at once.
_AT_ONCE = 16
# How many may wait is limited by how many calls the service admits.
_TURN_SECONDS = 30.0


class RetrievalClient:
    """Asks RetrievalService, a few searches at once: a crowd that was let in here is not refused there."""

    def __init__(self, *, channel: aio.Channel, turn_seconds: float = _TURN_SECONDS) -> None:
        """`turn_seconds` is how long a search may wait for its turn."""
        self._channel = channel
        self._stub = RetrievalServiceStub(channel)
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._turn_seconds = turn_seconds

    async def search(self, query: str, *, vector_store_id: str, top_k: int, filter_: Filter | None) -> Found:
        """See ports.PassageIndex; hybrid scores are relative to one another, the nearest passage's cosine is not."""
        request = pb.SearchRequest(
            query=query, vector_store_id=vector_store_id, top_k=top_k, filter=_filter(filter_) if filter_ else None
        )
        async with self._turn():
            with _translated(vector_store_id):
                response = await self._stub.Search(request, timeout=_SEARCH_SECONDS)
        return Found(
            passages=tuple(_passage(result) for result in response.results),
            similarity=response.nearest_similarity if response.HasField("nearest_similarity") else None,
            generations={response.vector_store_id: response.generation},
        )

    async def ping(self) -> None:
        """Raise unless the service says that it serves."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise DependencyUnavailable(_NAME)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One of the places, first come first served; raises Overloaded."""
        try:
            async with asyncio.timeout(self._turn_seconds):
                await self._places.acquire()
        except TimeoutError as error:
            raise Overloaded from error
        try:
            yield
        finally:
            self._places.release()


@contextmanager
def _translated(vector_store_id: str) -> Iterator[None]:
    """Failures as our callers see them; any other is a fault of one of us, and passes as it is."""
    try:
        yield
    except aio.AioRpcError as error:
        match reason_of(error):
            case "VECTOR_STORE_NOT_FOUND":
                raise VectorStoreNotFound(vector_store_id) from error
            case "FILTER_INVALID":
                raise FilterInvalid(error.details() or "The filter is invalid.", field="filter") from error
        match error.code():
            # The channel gives up a little before the caller's time is over; ours is another matter.
            case StatusCode.DEADLINE_EXCEEDED if deadline.within(1.0) < 1.0:
                raise DeadlineExceeded from error
            case StatusCode.RESOURCE_EXHAUSTED:
                raise Overloaded from error
            case StatusCode.UNAVAILABLE | StatusCode.DEADLINE_EXCEEDED:
                raise DependencyUnavailable(_NAME) from error
        raise


def _passage(result: pb.SearchResult) -> Passage:
    return Passage(
        document_id=result.document_id,
        chunk_id=result.chunk_id,
        vector_store_id=result.vector_store_id,
        title=result.title,
        content=result.content,
        score=result.score,
        attributes=plain(result.attributes),
        start_char=result.start_char,
        end_char=result.end_char,
        page=result.page if result.HasField("page") else None,
        heading_path=tuple(result.heading_path),
    )


def _filter(filter_: Filter) -> filter_pb2.Filter:
    proto = filter_pb2.Filter()
    match filter_:
        case And(filters):
            getattr(proto, "and").filters.extend(map(_filter, filters))
        case Or(filters):
            getattr(proto, "or").filters.extend(map(_filter, filters))
        case Not(inner):
            getattr(proto, "not").CopyFrom(_filter(inner))
        case Exists(key):
            proto.exists.key = key
        case Membership(op, key, values):
            node = getattr(proto, op)
            node.key = key
            for value in values:
                _set(node.values.add(), value)
        case Comparison(op, key, value):
            node = getattr(proto, op)
            node.key = key
            _set(node.value, value)
    return proto


def _set(proto: Any, value: str | float | bool) -> None:
    if isinstance(value, bool):
        proto.bool_value = value
    elif isinstance(value, str):
        proto.string_value = value
    else:
        proto.number_value = value
