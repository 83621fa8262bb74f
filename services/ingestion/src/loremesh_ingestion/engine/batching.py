"""Merges calls made at the same time into one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from loremesh_kit import deadline
from loremesh_kit.errors import ServiceError

K = TypeVar("K", bound=Hashable)
I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


@dataclass(eq=False, slots=True)
class _Entry(Generic[I, R]):
    """A call that waits for its outcome; `alone` when its company was refused and it may have been its fault."""

    item: I
    size: int
    turn: asyncio.Event
    outcome: tuple[R] | ServiceError | None = None
    alone: bool = False
    given_up: bool = False


@dataclass(eq=False, slots=True)
class _Queue(Generic[I, R]):
    """What waits under one key, and how many merged calls are under way."""

    waiting: deque[_Entry[I, R]]
    running: int = 0


class Batcher(Generic[K, I, R]):
    """Calls `run` for several items at once: while enough calls are under way, those that come wait and go together.

    There is no timer: an item that comes alone goes alone and at once. The first of a batch makes the call for all of
    it; when that caller is cancelled or out of time, the rest goes on with another. When `run` is refused for good,
    each item of the batch is tried by itself, so that one bad item fails alone.
    """

    def __init__(
        self,
        *,
        run: Callable[[K, Sequence[I]], Awaitable[Sequence[R]]],
        size: Callable[[I], int],
        limit: int,
        at_once: int,
    ) -> None:
        """A batch has at most `limit` in sizes (one item may be larger), and each key `at_once` calls under way."""
        self._run = run
        self._size = size
        self._limit = limit
        self._at_once = at_once
        self._queues: dict[K, _Queue[I, R]] = {}

    async def submit(self, key: K, item: I) -> R:
        """The result for one item; raises what `run` raises. Items of different keys never meet."""
        queue = self._queues.setdefault(key, _Queue(deque()))
        entry: _Entry[I, R] = _Entry(item, self._size(item), asyncio.Event())
        queue.waiting.append(entry)
        try:
            while entry.outcome is None:
                if queue.running < self._at_once and queue.waiting:
                    await self._run_next(queue, key, entry)
                else:
                    await entry.turn.wait()
                    entry.turn.clear()
        finally:
            entry.given_up = True
            if entry in queue.waiting:
                queue.waiting.remove(entry)
            self._wake(queue, key)
        if isinstance(entry.outcome, ServiceError):
            raise entry.outcome
        return entry.outcome[0]

    async def _run_next(self, queue: _Queue[I, R], key: K, caller: _Entry[I, R]) -> None:
        batch: list[_Entry[I, R]] = []
        queue.running += 1
        try:
            # Whoever was woken by the same event as this caller gets to come along.
            await asyncio.sleep(0)
            batch = self._take(queue)
            results = await self._run(key, [entry.item for entry in batch]) if batch else ()
            for entry, result in zip(batch, results, strict=True):
                entry.outcome = (result,)
        except ServiceError as error:
            if deadline.remaining() == 0:
                caller.outcome = error
            else:
                _refuse(batch, error)
        finally:
            queue.running -= 1
            queue.waiting.extendleft(entry for entry in reversed(batch) if entry.outcome is None and not entry.given_up)
            for entry in batch:
                entry.turn.set()

    def _take(self, queue: _Queue[I, R]) -> list[_Entry[I, R]]:
        if not queue.waiting:
            return []
        batch = [queue.waiting.popleft()]
        size = batch[0].size
        while queue.waiting and not batch[0].alone and not queue.waiting[0].alone:
            size += queue.waiting[0].size
            if size > self._limit:
                break
            batch.append(queue.waiting.popleft())
        return batch

    def _wake(self, queue: _Queue[I, R], key: K) -> None:
        if queue.waiting:
            queue.waiting[0].turn.set()
        elif not queue.running:
            self._queues.pop(key, None)


def _refuse(batch: Sequence[_Entry[I, R]], error: ServiceError) -> None:
    divide = len(batch) > 1 and not error.retryable
    for entry in batch:
        entry.alone = divide
        entry.outcome = None if divide else error
