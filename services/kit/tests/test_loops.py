# ruff: noqa: PT012 - what raises is the end of the block
import asyncio
import time

import pytest
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.loops import background, repeat, unless

pytestmark = pytest.mark.unit


async def test_a_step_is_repeated_until_told_to_stop():
    stop, steps = asyncio.Event(), []

    async def step():
        steps.append(1)
        await asyncio.sleep(0)
        if len(steps) == 5:
            stop.set()

    await repeat(step, stop=stop, name="test")
    assert len(steps) == 5


@pytest.mark.parametrize("error", [DependencyUnavailable("nats"), RuntimeError("bug")])
async def test_a_failing_step_is_tried_again_after_a_pause(error, monkeypatch):
    monkeypatch.setattr("loremesh_kit.loops._SHORTEST_PAUSE", 0.05)
    stop, at = asyncio.Event(), []

    async def step():
        at.append(time.monotonic())
        if len(at) < 3:
            raise error
        stop.set()

    await repeat(step, stop=stop, name="test")
    assert at[1] - at[0] >= 0.05
    assert at[2] - at[1] >= 0.1, "pauses grow"


async def test_a_pause_does_not_delay_the_stop():
    stop = asyncio.Event()

    async def step():
        raise DependencyUnavailable("nats")

    repeating = asyncio.create_task(repeat(step, stop=stop, name="test"))
    await asyncio.sleep(0.25)
    stop.set()
    await asyncio.wait_for(repeating, 0.1)


async def test_unless_gives_the_result_or_gives_up():
    stop, cancelled = asyncio.Event(), asyncio.Event()

    async def work():
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()

    async def answer():
        return 42

    assert await unless(stop, answer()) == 42
    waiting = asyncio.create_task(unless(stop, work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    stop.set()
    assert await waiting is None
    await asyncio.wait_for(cancelled.wait(), 1)


async def test_unless_passes_failures_on():
    async def fail():
        raise DependencyUnavailable("nats")

    with pytest.raises(DependencyUnavailable):
        await unless(asyncio.Event(), fail())


async def test_a_background_failure_passes_as_itself():
    async def fail():
        raise DependencyUnavailable("nats")

    with pytest.raises(DependencyUnavailable):
        async with background() as group:
            group.create_task(fail())
            await asyncio.sleep(30)
    with pytest.raises(KeyError):
        async with background():
            raise KeyError
