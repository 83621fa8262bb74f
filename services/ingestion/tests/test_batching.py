import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loremesh_ingestion.engine.batching import Batcher
from loremesh_kit import deadline
from loremesh_kit.errors import DependencyUnavailable, InvalidField

pytestmark = pytest.mark.unit


class Backend:
    """Doubles numbers; holds each call until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.bad: set[int] = set()
        self.down = False

    async def run(self, key: str, items: Sequence[int]) -> list[int]:
        del key
        self.calls.append(list(items))
        await self.gate.wait()
        if self.down:
            raise DependencyUnavailable("backend")
        if self.bad.intersection(items):
            raise InvalidField("bad", field="item")
        return [2 * item for item in items]


def batcher(backend: Backend, *, limit: int = 8, at_once: int = 1) -> Batcher[str, int, int]:
    return Batcher(run=backend.run, size=lambda _: 1, limit=limit, at_once=at_once)


async def submit_all(batches: Batcher[str, int, int], items: Sequence[int]) -> list[asyncio.Task[int]]:
    """The first one's call is under way when the others come."""
    first, *others = items
    tasks = [asyncio.ensure_future(batches.submit("key", first))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks += [asyncio.ensure_future(batches.submit("key", item)) for item in others]
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_at_the_same_instant_goes_together():
    backend = Backend()
    batches = batcher(backend)
    tasks = [asyncio.ensure_future(batches.submit("key", item)) for item in range(4)]
    assert [await task for task in tasks] == [0, 2, 4, 6]
    assert backend.calls == [[0, 1, 2, 3]]


async def test_what_comes_while_a_call_is_under_way_goes_together():
    backend = Backend()
    backend.gate.clear()
    tasks = await submit_all(batcher(backend), range(6))
    backend.gate.set()
    assert [await task for task in tasks] == [0, 2, 4, 6, 8, 10]
    assert backend.calls == [[0], [1, 2, 3, 4, 5]]


async def test_a_batch_is_no_larger_than_the_limit():
    backend = Backend()
    backend.gate.clear()
    tasks = await submit_all(batcher(backend, limit=2), range(5))
    backend.gate.set()
    assert [await task for task in tasks] == [0, 2, 4, 6, 8]
    assert [len(call) for call in backend.calls] == [1, 2, 2]


async def test_items_of_different_keys_never_meet():
    backend = Backend()
    backend.gate.clear()
    batches = batcher(backend)
    async with asyncio.TaskGroup() as group:
        for item in (1, 2, 3, 11, 12, 13):
            group.create_task(batches.submit("large" if item > 9 else "small", item))
        await asyncio.sleep(0)
        backend.gate.set()
    assert sorted(backend.calls) == [[1, 2, 3], [11, 12, 13]]


async def test_one_bad_item_fails_alone():
    backend = Backend()
    backend.gate.clear()
    backend.bad = {3}
    tasks = await submit_all(batcher(backend), range(6))
    backend.gate.set()
    await asyncio.wait(tasks, timeout=5)
    assert [task.exception() or task.result() for task in tasks if task is not tasks[3]] == [0, 2, 4, 8, 10]
    assert isinstance(tasks[3].exception(), InvalidField)


async def test_an_outage_fails_all_of_a_batch():
    backend = Backend()
    backend.gate.clear()
    backend.down = True
    tasks = await submit_all(batcher(backend), range(4))
    backend.gate.set()
    await asyncio.wait(tasks, timeout=5)
    assert {type(task.exception()) for task in tasks} == {DependencyUnavailable}
    assert len(backend.calls) == 2


async def test_when_the_caller_who_calls_for_all_is_cancelled_another_goes_on():
    backend = Backend()
    backend.gate.clear()
    tasks = await submit_all(batcher(backend), range(4))
    backend.gate.set()
    await asyncio.sleep(0)
    backend.gate.clear()
    while len(backend.calls) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert backend.calls[1] == [1, 2, 3]
    tasks[1].cancel()
    backend.gate.set()
    assert await asyncio.wait_for(tasks[2], 5) == 4
    assert await asyncio.wait_for(tasks[3], 5) == 6
    assert tasks[1].cancelled()


async def test_a_caller_out_of_time_fails_alone():
    backend = Backend()
    backend.gate.clear()
    batches = batcher(backend)

    async def hurried() -> int:
        with deadline.scope(0.05):
            return await batches.submit("key", 1)

    tasks = [asyncio.ensure_future(hurried()), asyncio.ensure_future(batches.submit("key", 2))]
    await asyncio.sleep(0.06)
    backend.down = True
    backend.gate.set()
    await asyncio.sleep(0)
    backend.down = False
    await asyncio.wait(tasks, timeout=5)
    assert isinstance(tasks[0].exception(), DependencyUnavailable)
    assert tasks[1].result() == 4


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(st.integers(0, 9), min_size=1, max_size=20),
    cancelled=st.sets(st.integers(0, 19)),
    limit=st.integers(1, 5),
    at_once=st.integers(1, 3),
    bad=st.sets(st.integers(0, 9), max_size=2),
)
def test_every_caller_gets_its_own_answer_whoever_leaves(items, cancelled, limit, at_once, bad):
    async def scenario() -> None:
        backend = Backend()
        backend.bad = bad
        batches = batcher(backend, limit=limit, at_once=at_once)
        tasks = [asyncio.ensure_future(batches.submit("key", item)) for item in items]
        await asyncio.sleep(0)
        for number, task in enumerate(tasks):
            if number in cancelled:
                task.cancel()
            if number % 3 == 0:
                await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await asyncio.wait(tasks)
        for item, task in zip(items, tasks, strict=True):
            if task.cancelled():
                continue
            if item in bad:
                assert isinstance(task.exception(), InvalidField)
            else:
                assert task.result() == 2 * item
        assert batches._queues == {}

    asyncio.run(scenario())
