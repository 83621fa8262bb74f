"""Many callers, one set of threads."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from loremesh_embedding.batcher import Batcher
from loremesh_embedding.domain.backlog import Priority
from loremesh_embedding.domain.vectors import Floats
from loremesh_kit.errors import Overloaded

pytestmark = pytest.mark.unit

SECONDS = 5.0


class Weights:
    """Token vectors that repeat the tokens; each batch with a token 0 waits until it is let go on."""

    def __init__(self) -> None:
        self.batches: list[list[Sequence[int]]] = []
        self.go_on = threading.Event()
        self.fails = False

    def __call__(self, sequences: Sequence[Sequence[int]]) -> list[Floats]:
        self.batches.append(list(sequences))
        if any(0 in sequence for sequence in sequences):
            assert self.go_on.wait(SECONDS)
        if self.fails:
            raise MemoryError
        return [np.asarray(sequence, np.float32)[:, None] for sequence in sequences]

    async def busy(self, batches: int) -> None:
        async with asyncio.timeout(SECONDS):
            while len(self.batches) < batches:  # noqa: ASYNC110 - it is another thread that changes it
                await asyncio.sleep(0.001)


@pytest.fixture
def weights() -> Weights:
    return Weights()


@pytest.fixture
async def batcher(weights: Weights) -> AsyncIterator[Batcher]:
    async with Batcher(forward=weights, workers=1, budget=100, limit=10) as running:
        yield running
        weights.go_on.set()


async def embed(batcher: Batcher, *sequences: list[int], priority: Priority = Priority.DOCUMENT) -> list[float]:
    async with asyncio.timeout(SECONDS):
        return await batcher.compute(sequences, lambda tokens: float(tokens.sum()), priority=priority)


async def test_each_caller_gets_its_own_results_in_its_own_order(batcher: Batcher):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(embed(batcher, [n, n, n], [n])) for n in range(1, 30, 5)]
    assert [task.result() for task in tasks] == [[3.0 * n, n] for n in range(1, 30, 5)]


async def test_a_request_does_not_wait_for_company_when_idle(batcher: Batcher, weights: Weights):
    await embed(batcher, [1])
    assert weights.batches == [[[1]]]


async def test_what_arrives_while_a_batch_runs_is_the_next_batch(batcher: Batcher, weights: Weights):
    async with asyncio.TaskGroup() as group:
        group.create_task(embed(batcher, [0]))
        await weights.busy(1)
        for n in (1, 2, 3):
            group.create_task(embed(batcher, [n]))
        await asyncio.sleep(0)
        weights.go_on.set()
    assert weights.batches == [[[0]], [[1], [2], [3]]]


async def test_a_query_does_not_wait_for_documents(batcher: Batcher, weights: Weights):
    async with asyncio.TaskGroup() as group:
        group.create_task(embed(batcher, [0]))
        await weights.busy(1)
        assert await embed(batcher, [7], priority=Priority.QUERY) == [7]
        assert not weights.go_on.is_set()
        weights.go_on.set()


async def test_texts_of_a_cancelled_caller_are_dropped(batcher: Batcher, weights: Weights):
    async with asyncio.TaskGroup() as group:
        group.create_task(embed(batcher, [0]))
        await weights.busy(1)
        given_up = group.create_task(embed(batcher, [1], [1]))
        kept = group.create_task(embed(batcher, [2]))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        weights.go_on.set()
    assert kept.result() == [2]
    assert weights.batches == [[[0]], [[2]]]


async def test_a_full_queue_refuses_documents_but_not_queries(batcher: Batcher, weights: Weights):
    async with asyncio.TaskGroup() as group:
        group.create_task(embed(batcher, [0]))
        await weights.busy(1)
        group.create_task(embed(batcher, *[[1]] * 10))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await embed(batcher, [2])
        assert await embed(batcher, [3], priority=Priority.QUERY) == [3]
        weights.go_on.set()


async def test_one_large_request_is_not_refused_by_an_empty_queue(batcher: Batcher):
    assert len(await embed(batcher, *[[1]] * 50)) == 50


async def test_a_failing_batch_fails_its_callers_and_nobody_after_them(batcher: Batcher, weights: Weights):
    weights.fails = True
    with pytest.raises(MemoryError):
        await embed(batcher, [1], [2] * 90)
    weights.fails = False
    assert await embed(batcher, [3]) == [3]


async def test_the_event_loop_goes_on_meanwhile(batcher: Batcher, weights: Weights):
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(embed(batcher, [0]))
        await weights.busy(1)
        await asyncio.sleep(0.01)
        assert not waiting.done()
        weights.go_on.set()


async def test_documents_threads_give_way_and_the_query_thread_does_not():
    def niceness(sequences: Sequence[Sequence[int]]) -> list[Floats]:
        own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return [np.asarray([[own]], np.float32) for _ in sequences]

    here = os.getpriority(os.PRIO_PROCESS, 0)
    async with Batcher(forward=niceness, workers=1, budget=100, limit=10, niceness=3) as batcher:
        assert await embed(batcher, [1], priority=Priority.DOCUMENT) == [here + 3]
        assert await embed(batcher, [1], priority=Priority.QUERY) == [here]
