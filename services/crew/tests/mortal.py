"""Processes of the service, on a real Postgres and NATS, that die before or after a durable step of theirs."""

import asyncio
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from loremesh_crew.adapters.memory_tasks import MemoryTasks
from loremesh_crew.settings import CrewSettings
from loremesh_crew.wiring import Outside, assemble
from loremesh_kit import jobs
from loremesh_kit.events import connect
from loremesh_kit.outbox import OUTBOX
from loremesh_kit.postgres import Connection, Database, open_database
from loremesh_kit.server import Wired, Worker

from .replicas import Mesh

_EVERY_TENANT = "*"
_CALLS = frozenset({"create", "get", "cancel", "answer", "forget"})
_WRITES = re.compile(r"\s*(UPDATE|INSERT|DELETE)")
CLAIM = "claim"


@dataclass(frozen=True, slots=True)
class Aim:
    """The step at which a process dies, and whether it is done by then."""

    point: str
    when: Literal["before", "after"]


class Life:
    """Counts the steps of a process, and ends it at the one it was aimed at: whatever came to a step never goes on."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.died = asyncio.Event()
        self.buried = asyncio.Event()
        self._aim: Aim | None = None
        self._calls: Counter[str] = Counter()

    def aim(self, aim: Aim | None) -> None:
        """Count from here on, and die there."""
        self._aim = aim
        self._calls.clear()
        self.passed = []

    async def alive(self) -> None:
        """Return when it is, which may be never; what a dead one would still tidy up comes to nothing."""
        if self.died.is_set():
            await self.buried.wait()
            raise asyncio.CancelledError

    async def before(self, name: str) -> str:
        """Come to a step; its name with its number."""
        await self.alive()
        self._calls[name] += 1
        point = f"{name}#{self._calls[name]}"
        self.passed.append(point)
        await self._strike(Aim(point, "before"))
        return point

    async def after(self, point: str) -> None:
        """Come back from a step."""
        await self.alive()
        await self._strike(Aim(point, "after"))

    async def _strike(self, here: Aim) -> None:
        if here == self._aim:
            self.died.set()
            await self.alive()


def place() -> str:
    """Who is at it: the kind of its job, its module and its function."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("loremesh_") and module != "loremesh_kit.postgres":
            kind = structlog.contextvars.get_contextvars().get("kind", "")
            return f"{kind}:{module.rpartition('.')[2]}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "outside"


class MortalDatabase(Database):
    """A process's database: each commit of a tenant's is a step, and so is each claim of jobs."""

    def __init__(self, *, of: Database, life: Life, rewrites: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(pool=of._pool)
        self.life = life
        self.unused = {pattern for pattern, _ in rewrites}
        self._rewrites = [(re.compile(pattern), instead) for pattern, instead in rewrites]

    @asynccontextmanager
    async def _transaction(self, tenant: str, **how: Any) -> AsyncIterator[Connection]:
        name, point = f"commit@{place()}", ""
        await self.life.alive()
        async with super()._transaction(tenant, **how) as connection:
            yield connection
            if tenant == _EVERY_TENANT:
                await self.life.alive()
            else:
                point = await self.life.before(name)
        if point:
            await self.life.after(point)

    async def _fetch(self, tenant: str, query: Any, parameters: Any, **how: Any) -> Any:
        await self.life.alive()
        if tenant != _EVERY_TENANT and _WRITES.match(query):
            point = await self.life.before(f"write@{place()}")
            rows = await super()._fetch(tenant, query, parameters, **how)
            await self.life.after(point)
            return rows
        rows = await super()._fetch(tenant, query, parameters, **how)
        if "claim_jobs" in query and rows:
            await self.life.after(await self.life.before(CLAIM))
        await self.life.alive()
        return rows

    async def _begin_once(self, first: Any) -> Any:
        async def rewriting(connection: Connection) -> Any:
            if self._rewrites:
                connection.execute = lambda query, *args, **kwargs: type(connection).execute(  # type: ignore[method-assign]
                    connection, self._rewritten(query), *args, **kwargs
                )
            return await first(connection)

        return await super()._begin_once(rewriting)

    def _rewritten(self, query: Any) -> Any:
        if isinstance(query, str):
            for pattern, instead in self._rewrites:
                query, count = pattern.subn(instead, query)
                if count:
                    self.unused.discard(pattern.pattern)
        return query


class JobsAfterwards(MortalDatabase):
    """Commits what a transaction writes but for its jobs, and those in a transaction of their own."""

    @asynccontextmanager
    async def _transaction(self, tenant: str, **how: Any) -> AsyncIterator[Connection]:
        owed: list[Any] = []
        async with super()._transaction(tenant, **how) as connection:

            async def sort(query: Any, *args: Any, **kwargs: Any) -> Any:
                if query is jobs._ENQUEUE:
                    owed.append(args)
                    return None
                return await type(connection).execute(connection, query, *args, **kwargs)

            connection.execute = sort  # type: ignore[method-assign]
            # Who begins jobs at once would look for them too early: they are announced instead.
            connection.taker = None
            try:
                yield connection
            finally:
                del connection.execute
        if owed:
            async with super()._transaction(tenant) as connection:
                for args in owed:
                    await connection.execute(jobs._ENQUEUE, *args)
            self.tell(OUTBOX)


class MortalTasks:
    """The way to the agent service, of which every call is a step."""

    def __init__(self, tasks: Any, life: Life) -> None:
        self._tasks = tasks
        self._life = life

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._tasks, method)
        if method not in _CALLS:
            return call

        async def step(*args: Any, **kwargs: Any) -> Any:
            point = await self._life.before(f"tasks.{method}@{place()}")
            result = await call(*args, **kwargs)
            await self._life.after(point)
            return result

        return step


@dataclass(frozen=True, kw_only=True)
class Twin:
    """The service without one of its mechanisms; each of `rewrites` of its SQL must fit."""

    database: type[MortalDatabase] = MortalDatabase
    rewrites: Sequence[tuple[str, str]] = ()
    tasks: Callable[[MemoryTasks], Any] = lambda tasks: tasks
    works: Callable[[Worker], bool] = lambda _: True


WHOLE = Twin()


class Mortal:
    """A process: it lives until it is ended, or dies by itself."""

    def __init__(self, mesh: Mesh, twin: Twin = WHOLE, *, silence: float = 60.0) -> None:
        self.life = Life()
        self.wired: Wired
        self.database: MortalDatabase
        self._mesh = mesh
        self._twin = twin
        self._silence = silence
        self._ready = asyncio.Event()
        self._over = asyncio.Event()

    async def start(self) -> "Mortal":
        """Return when it works."""
        self._task = asyncio.get_running_loop().create_task(self._live())
        ready = asyncio.ensure_future(self._ready.wait())
        await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def end(self) -> None:
        """End it without a word, wherever it is."""
        self.life.died.set()
        self._over.set()
        await asyncio.shield(self._task)

    async def ask(self, call: Awaitable[Any]) -> Any:
        """Its answer to a call; None where it died over it."""
        asking, dying = asyncio.ensure_future(call), asyncio.ensure_future(self.life.died.wait())
        await asyncio.wait({asking, dying}, return_when=asyncio.FIRST_COMPLETED)
        for each in (asking, dying):
            each.cancel()
        with suppress(asyncio.CancelledError):
            return await asking
        return None

    async def _live(self) -> None:
        settings = CrewSettings(
            database_url=self._mesh.urls.plain,
            nats_url=self._mesh.nats_url,
            agent_target="127.0.0.1:1",
            silence_seconds=self._silence,
        )
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(open_database(settings))
            self.database = self._twin.database(of=pool, life=self.life, rewrites=self._twin.rewrites)
            bus = await stack.enter_async_context(connect(self._mesh.nats_url, service="crew"))
            while not bus.is_connected:  # noqa: ASYNC110 - it is seen by asking
                await asyncio.sleep(0.005)
            outside = Outside(
                database=self.database,
                bus=bus,
                agents=self._mesh.agents,
                tasks=MortalTasks(self._twin.tasks(self._mesh.tasks), self.life),
                crews=self._mesh.crews,
                flows=self._mesh.flows,
            )
            self.wired = assemble(outside, settings=settings)
            workers = [each for each in (*self.wired.workers, *self.wired.background) if self._twin.works(each)]
            working = [asyncio.ensure_future(each.run(asyncio.Event())) for each in workers]
            self._ready.set()
            await self._over.wait()
            self.life.buried.set()
            for each in working:
                each.cancel()
            await asyncio.wait(working)
