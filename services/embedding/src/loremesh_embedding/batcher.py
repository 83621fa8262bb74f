"""Computes the texts of many callers together, on threads, while the event loop goes on."""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from loremesh_kit.errors import Overloaded

from loremesh_embedding.domain.backlog import Backlog, Priority
from loremesh_embedding.domain.vectors import Floats

Result = TypeVar("Result")
Tokens = Sequence[int]
Forward = Callable[[Sequence[Tokens]], Sequence[Floats]]


class _Ticket:
    """One caller's texts and what has come of them so far."""

    def __init__(self, sequences: Sequence[Tokens], reduce: Callable[[Floats], Any]) -> None:
        self.sequences = sequences
        self.reduce = reduce
        self.results: dict[int, Any] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def receive(self, index: int, result: object) -> None:
        self.results[index] = result
        if len(self.results) == len(self.sequences) and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


_Batch = list[tuple[_Ticket, int]]


class _Threads:
    """Threads that are free, or not, for texts up to some priority."""

    def __init__(self, count: int, *, up_to: Priority, niceness: int = 0) -> None:
        name = f"embedding-{up_to.name.lower()}"
        self.pool = ThreadPoolExecutor(count, name, initializer=partial(_give_way, niceness))
        self.free = count
        self.up_to = up_to


def _give_way(niceness: int) -> None:
    """Linux schedules each thread by its own niceness, so that only the calling one gives way."""
    thread = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, thread)
    os.setpriority(os.PRIO_PROCESS, thread, before + niceness)


class Batcher:
    """A request that finds a free thread starts at once; those that come while all are busy form the next batches.

    One thread more than `workers` is kept for queries, so that a search need not wait for an ingest's batch to end.
    """

    def __init__(self, *, forward: Forward, workers: int, budget: int, limit: int, niceness: int = 0) -> None:
        """`forward` gives token vectors, (tokens, dimension) each, and runs on up to `workers` + 1 threads at once.

        `budget` is in tokens per batch, padding included; `limit` is how many texts may wait at each priority;
        `niceness` is how far the workers give way to the query thread and to other processes.
        """
        self._forward = forward
        self._backlog: Backlog[_Ticket] = Backlog(budget=budget)
        self._limit = limit
        self._threads = (
            _Threads(1, up_to=Priority.QUERY),
            _Threads(workers, up_to=Priority.DOCUMENT, niceness=niceness),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for threads in self._threads:
            await asyncio.to_thread(threads.pool.shutdown, cancel_futures=True)

    async def compute(
        self,
        sequences: Sequence[Tokens],
        reduce: Callable[[Floats], Result],
        *,
        priority: Priority,
    ) -> list[Result]:
        """`reduce` of each sequence's token vectors, in order, computed on a thread too; raises Overloaded.

        When the caller is cancelled, its texts that still wait are dropped.
        """
        if not sequences:
            return []
        waiting = self._backlog.waiting(priority)
        # One request alone is never too much: its size is limited where it is received.
        if waiting and waiting + len(sequences) > self._limit:
            raise Overloaded
        ticket = _Ticket(sequences, reduce)
        self._backlog.add(ticket, [len(sequence) for sequence in sequences], priority=priority)
        try:
            self._dispatch()
            await ticket.done
        finally:
            self._backlog.discard(ticket)
        return [ticket.results[index] for index in range(len(sequences))]

    def _dispatch(self) -> None:
        for threads in self._threads:
            while threads.free and (batch := self._backlog.take(up_to=threads.up_to)):
                threads.free -= 1
                running = asyncio.get_running_loop().run_in_executor(threads.pool, self._run, batch)
                running.add_done_callback(partial(self._finish, batch, threads))

    def _run(self, batch: _Batch) -> list[Any]:
        vectors = self._forward([ticket.sequences[index] for ticket, index in batch])
        return [ticket.reduce(each) for (ticket, _), each in zip(batch, vectors, strict=True)]

    def _finish(self, batch: _Batch, threads: _Threads, running: asyncio.Future[list[Any]]) -> None:
        threads.free += 1
        if running.cancelled():
            return  # closing: nobody waits any more
        if (error := running.exception()) is not None:
            for ticket, _ in batch:
                ticket.fail(error)
                self._backlog.discard(ticket)
        else:
            for (ticket, index), result in zip(batch, running.result(), strict=True):
                ticket.receive(index, result)
        self._dispatch()
