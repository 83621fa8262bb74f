"""Callers of this process who wait for the end of tasks they asked for."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from loremesh_kit import identity
from loremesh_kit.postgres import Row, afterwards
from psycopg import AsyncConnection

from loremesh_agent.domain.chat_jobs import ChatJob


class _Caller:
    """One of them; it does not go while a transaction under way counts on telling it."""

    def __init__(self) -> None:
        self._ended: ChatJob | None = None
        self._counted_on = 0
        self._told = asyncio.Event()

    def count_on(self) -> None:
        self._counted_on += 1

    def tell(self, ended: ChatJob | None) -> None:
        self._ended = self._ended or ended
        self._counted_on -= 1
        self._told.set()

    async def wait(self, seconds: float) -> ChatJob | None:
        """See ports.TaskCall."""
        try:
            async with asyncio.timeout(seconds):
                await self._until(lambda: self._ended is not None)
        except TimeoutError:
            await self._until(lambda: not self._counted_on)
        return self._ended

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._told.clear()
            await self._told.wait()


def _tell(caller: _Caller, ended: ChatJob, committed: bool) -> None:
    caller.tell(ended if committed else None)


class WaitingCallers:
    """Those who wait, by tenant and task; see ports.TaskCallers."""

    def __init__(self) -> None:
        self._callers: dict[tuple[str, str], list[_Caller]] = defaultdict(list)

    @contextmanager
    def waiting(self, task_id: str) -> Iterator[_Caller]:
        """See ports.TaskCallers."""
        key, caller = (identity.current().tenant, task_id), _Caller()
        self._callers[key].append(caller)
        try:
            yield caller
        finally:
            self._callers[key].remove(caller)
            if not self._callers[key]:
                del self._callers[key]

    def tells(self, connection: AsyncConnection[Row], task_id: str, ended: ChatJob) -> bool:
        """Whether somebody waits, who is told as soon as this transaction, in which the task ends so, is committed."""
        callers = tuple(self._callers.get((identity.current().tenant, task_id), ()))
        for caller in callers:
            caller.count_on()
            afterwards(connection, partial(_tell, caller, ended))
        return bool(callers)
