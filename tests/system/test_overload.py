"""Ten times the load that can be carried: what is too much is refused with a reason, and the rest is done."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from google.api import httpbody_pb2
from google.rpc import error_details_pb2
from grpc import StatusCode, aio
from grpc_status import rpc_status
from loremesh.ingestion.v1 import document_pb2, document_pb2_grpc
from loremesh.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc

# Saturates the machine it runs on, so it is run by itself: `pytest -m bench tests/system/test_overload.py`.
pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]

TIMES = 10
PEAK_SECONDS = 2.0
LOAD_SECONDS = 3.0
CALLERS = 32
CONNECTIONS = 16  # the door takes 256 calls at once on each
DEADLINE_SECONDS = 60.0
RECOVERY_SECONDS = 30.0
# The least that must be done under such a load; refusing takes its part, and making the load on the same machine does.
GOODPUT = 0.1
QUESTIONS = {
    "How many metres high is the lighthouse of Genoa?": "Lighthouses",
    "How many eggs does the queen of a honey bee colony lay?": "Bees",
}

Call = Callable[[int], Awaitable[str]]


@dataclass(frozen=True)
class Answer:
    """What one call was told, seconds after the first was made."""

    at: float
    value: str = ""
    refused: aio.AioRpcError | None = None


@dataclass(frozen=True, kw_only=True)
class Load:
    """What came of an overload; `recovery` is how many seconds after its end a call was answered as usual."""

    peak: float
    answers: list[Answer]
    seconds: float
    recovery: float

    @property
    def values(self) -> list[str]:
        return [each.value for each in self.answers if each.refused is None]

    @property
    def goodput(self) -> float:
        """What was done while the load lasted, as a share of what can be done without it."""
        done = sum(each.refused is None and each.at <= self.seconds for each in self.answers)
        return done / self.seconds / self.peak

    @property
    def reasons(self) -> Counter[str]:
        return Counter(reason_of(each.refused) for each in self.answers if each.refused is not None)


def reason_of(error: aio.AioRpcError) -> str:
    """Of a refusal as it should be, which says when to come back."""
    assert error.code() in (StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE), error
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status = rpc_status.from_call(error)
    assert status is not None, error
    for message in (info, retry):
        assert any(detail.Unpack(message) for detail in status.details), error
    assert retry.retry_delay.ToMilliseconds() > 0
    return str(info.reason)


async def answered(call: Call, number: int, started: float) -> Answer:
    try:
        value = await call(number)
    except aio.AioRpcError as error:
        return Answer(time.monotonic() - started, refused=error)
    return Answer(time.monotonic() - started, value)


async def carried(call: Call, numbers: Iterator[int]) -> float:
    """Calls a second when no caller asks again before it was answered."""
    started = time.monotonic()

    async def caller() -> int:
        for count in itertools.count():
            if time.monotonic() - started > PEAK_SECONDS:
                return count
            await call(next(numbers))
        raise AssertionError

    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(caller()) for _ in range(CALLERS)]
    return sum(each.result() for each in callers) / (time.monotonic() - started)


async def overload(call: Call) -> Load:
    """Make calls at ten times the rate that can be carried, whether or not earlier ones have been answered."""
    numbers = itertools.count()
    peak = await carried(call, numbers)
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        calls: list[asyncio.Task[Answer]] = []
        while (elapsed := time.monotonic() - started) < LOAD_SECONDS:
            due = int(TIMES * peak * elapsed) - len(calls)
            calls.extend(group.create_task(answered(call, next(numbers), started)) for _ in range(due))
            await asyncio.sleep(0.005)
        last = await recovered(call, numbers, started)
    answers = [*(each.result() for each in calls), last]
    return Load(peak=peak, answers=answers, seconds=elapsed, recovery=last.at - elapsed)


async def recovered(call: Call, numbers: Iterator[int], started: float) -> Answer:
    async with asyncio.timeout(RECOVERY_SECONDS):
        while True:
            answer = await answered(call, next(numbers), started)
            if answer.refused is None:
                return answer
            await asyncio.sleep(0.1)


@pytest.fixture
async def channels(mesh: Any) -> AsyncIterator[list[aio.Channel]]:
    """As many connections."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        opened = [aio.insecure_channel(mesh.target, options=options) for _ in range(CONNECTIONS)]
        for channel in opened:
            await stack.enter_async_context(channel)
        yield opened


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[Load], None]:
    """Keep the figures with the test's result."""

    def keep(load: Load) -> None:
        record_property("carried_per_second", round(load.peak, 1))
        record_property("offered_per_second", round(len(load.answers) / load.seconds, 1))
        record_property("goodput", round(load.goodput, 2))
        record_property("recovery_seconds", round(load.recovery, 2))
        record_property("slowest_answer_seconds", round(max(each.at for each in load.answers), 2))

    return keep


async def test_too_many_searches_are_refused_and_the_rest_is_answered_right(
    channels: list[aio.Channel], library: Any, note: Callable[[Load], None]
) -> None:
    stubs: Iterator[Any] = itertools.cycle([retrieval_pb2_grpc.RetrievalServiceStub(each) for each in channels])
    questions = list(QUESTIONS)

    async def search(number: int) -> str:
        """`right`, or what was found in its place."""
        question = questions[number % len(questions)]
        request = retrieval_pb2.SearchRequest(query=question, vector_store_id=library.store, top_k=2)
        found = await next(stubs).Search(request, timeout=DEADLINE_SECONDS)
        best = [each.document_id for each in found.results][:1]
        return "right" if best == [library[QUESTIONS[question]]] else str(best)

    load = await overload(search)
    note(load)
    assert set(load.values) == {"right"}
    assert set(load.reasons) == {"OVERLOADED"}
    assert load.goodput > GOODPUT


async def test_too_many_uploads_are_refused_and_the_rest_is_indexed(
    channels: list[aio.Channel], library: Any, note: Callable[[Load], None]
) -> None:
    stubs: Iterator[Any] = itertools.cycle([document_pb2_grpc.DocumentServiceStub(each) for each in channels])

    async def upload(number: int) -> str:
        """Id of the document."""
        body = httpbody_pb2.HttpBody(content_type="text/plain", data=f"Note {number} of the harbour master.".encode())
        piece = document_pb2.UploadDocumentRequest(file=body, filename=f"{number}.txt", vector_store_id=library.store)
        return str((await next(stubs).UploadDocument(iter([piece]), timeout=DEADLINE_SECONDS)).id)

    load = await overload(upload)
    note(load)
    assert set(load.reasons) <= {"OVERLOADED", "QUEUE_FULL"}
    assert load.goodput > GOODPUT
    stub: Any = document_pb2_grpc.DocumentServiceStub(channels[0])
    for id_ in load.values[:: max(1, len(load.values) // 20)]:
        async for event in stub.WatchDocument(document_pb2.WatchDocumentRequest(document_id=id_), timeout=180):
            last = event.WhichOneof("payload")
        assert last == "ready"
