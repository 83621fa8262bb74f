"""The assembled ingestion service on a real Postgres and a real NATS, as processes that die and are started again."""

import asyncio
import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grpc import aio
from loremesh_ingestion.adapters.memory import MemoryBlobStore, MemoryEmbedder, MemoryParser, MemorySearchIndex
from loremesh_ingestion.settings import Settings
from loremesh_ingestion.wiring import SERVICE, Outside, assemble
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.events import Bus, Outgoing
from loremesh_kit.loops import background
from loremesh_kit.postgres import Connection, Database, open_database
from loremesh_kit.server import Wired
from loremesh_kit.testing import serving
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeoutError

from tests.ordeal.life import Killed, Life, MortalPort, place

LEASE = 0.8
_LONGEST_LOOP_SECONDS = 8.0
_CONNECT_SECONDS = 20.0
_ACK, _NEXT = "$JS.ACK.", "$JS.API.CONSUMER.MSG.NEXT."


@dataclass(frozen=True, kw_only=True)
class Twin:
    """The service without one of its mechanisms. Each of `rewrites`, a pattern and what stands in its place, must fit.

    `ports` wraps what it is connected to, `wired` what it is made of, `database` takes the place of its database.
    """

    rewrites: Sequence[tuple[str, str]] = ()
    ports: Callable[[str, Any], Any] = lambda _, port: port
    wired: Callable[[Wired], Wired] = lambda wired: wired
    database: "type[MortalDatabase] | None" = None


WHOLE = Twin()


class MortalDatabase(Database):
    """A process's database: a transaction that is open when it dies is never committed."""

    def __init__(self, *, of: Database, life: Life, rewrites: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(pool=of._pool)
        self.life = life
        self.unused = {pattern for pattern, _ in rewrites}
        self._rewrites = [(re.compile(pattern), instead) for pattern, instead in rewrites]

    @asynccontextmanager
    async def _transaction(self, tenant: str, **how: Any) -> AsyncIterator[Connection]:
        name = f"database.commit@{place()}"
        await self.life.alive()
        async with super()._transaction(tenant, **how) as connection:
            yield connection
            mode = await self.life.before(name)
        await self.life.after(mode, DependencyUnavailable("postgres"))

    async def _fetch(self, tenant: str, query: Any, parameters: Any, **how: Any) -> Any:
        mode = await self.life.before(f"database.fetch@{place(query)}")
        rows = await super()._fetch(tenant, query, parameters, **how)
        await self.life.after(mode, DependencyUnavailable("postgres"))
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


class MortalBus(Bus):
    """A process's connection to the broker."""

    def __init__(self, *, life: Life) -> None:
        super().__init__(client=MortalClient(life), service=SERVICE, on_closed=lambda: None)
        self._life = life

    async def publish_all(self, messages: Sequence[Outgoing]) -> list[str]:
        """A timeout is an empty list of acknowledged ids."""
        try:
            kinds = sorted({message.subject.split(".")[2] for message in messages})
            mode = await self._life.before(f"bus.publish_{'_and_'.join(kinds)}@{place()}")
            sent = await super().publish_all(messages)
            await self._life.after(mode, NatsTimeoutError())
        except NatsTimeoutError:
            return []
        return sent


class MortalClient(Client):
    """The wire: acknowledgements go over it."""

    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life

    async def publish(self, subject: str, *args: Any, **kwargs: Any) -> None:
        """What a dead process would say is not said."""
        named = {_ACK: "bus.ack", _NEXT: "bus.next"}
        name = next((name for prefix, name in named.items() if subject.startswith(prefix)), None)
        if name is None:
            await self._life.alive()
            await super().publish(subject, *args, **kwargs)
            return
        mode = await self._life.before(f"{name}@{place()}")
        await super().publish(subject, *args, **kwargs)
        await self._life.after(mode, NatsTimeoutError())


class Disk(MemoryBlobStore):
    """Objects on a disk that may be full."""

    full = False

    async def write(self, key: str, pieces: AsyncIterable[bytes]) -> None:
        """Refused as by a store without room."""
        if self.full:
            raise DependencyUnavailable("s3")
        await super().write(key, pieces)


@dataclass(kw_only=True)
class Ground:
    """What outlives processes: a database, a broker, objects and an index."""

    database_url: str
    nats_url: str
    blobs: Any = field(default_factory=Disk)
    embedder: Any = field(default_factory=MemoryEmbedder)
    index: Any = field(default_factory=MemorySearchIndex)

    def settings(self) -> Settings:
        """Short leases, and no time for good-byes."""
        return Settings(
            database_url=self.database_url,
            nats_url=self.nats_url,
            drain_seconds=0,
            grace_seconds=0,
            job_lease_seconds=LEASE,
            probe_seconds=3600,
            database_pool_size=6,
        )

    def ports(self) -> Mapping[str, Any]:
        """By the name of their point."""
        return {"blobs": self.blobs, "parser": MemoryParser(), "embedder": self.embedder, "index": self.index}


class Process:
    """A process on some ground. It ends when it is told to, or by being killed."""

    def __init__(self, ground: Ground, *, twin: Twin = WHOLE) -> None:
        self.life = Life()
        self.channel: aio.Channel
        self.database: MortalDatabase
        self._ground = ground
        self._twin = twin
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> "Process":
        """Return when it serves."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        ready = asyncio.ensure_future(self._ready.wait())
        await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def end(self) -> None:
        """Have it end, if it has not."""
        self._stop.set()
        self.life.thaw()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=30)

    async def kill(self) -> None:
        """Kill it wherever it is."""
        self.life.died.set()
        await self.end()

    async def _run(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                await self._serve(stack)
                await self._until_over()
        except BaseException:
            if not self.life.died.is_set():
                raise

    async def _until_over(self) -> None:
        over = [asyncio.ensure_future(each.wait()) for each in (self._stop, self.life.died)]
        try:
            await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in over:
                each.cancel()
        if self.life.died.is_set():
            # Some loop of its own will come to a port and end all of it; leaving before would be cut short by that.
            await asyncio.sleep(_LONGEST_LOOP_SECONDS)

    async def _serve(self, stack: AsyncExitStack) -> None:
        settings, twin = self._ground.settings(), self._twin
        pool = await stack.enter_async_context(open_database(settings))
        made = twin.database or MortalDatabase
        self.database = made(of=pool, life=self.life, rewrites=twin.rewrites)
        bus = await stack.enter_async_context(_connected(self._ground.nats_url, self.life))
        ports = {
            name: MortalPort(twin.ports(name, port), name=name, life=self.life)
            for name, port in self._ground.ports().items()
        }
        wired = twin.wired(assemble(Outside(database=self.database, bus=bus, **ports), settings=settings))
        self.channel = await stack.enter_async_context(serving(wired, service=SERVICE, settings=settings))
        self._ready.set()


@asynccontextmanager
async def _connected(url: str, life: Life) -> AsyncIterator[Bus]:
    bus = MortalBus(life=life)
    async with background() as group:
        running = group.create_task(bus.run(url))
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                while not bus.is_connected:  # noqa: ASYNC110 - it connects in its own time
                    await asyncio.sleep(0.01)
            await bus.ensure_service_stream()
            yield bus
        finally:
            running.cancel()
            with suppress(Killed):
                await bus.close()


def broker_with_accounts(configuration: Path, *, count: int, password: str) -> list[str]:
    """Rewrite a nats-server's configuration so that it holds so many brokers that know nothing of one another.

    Their users are named like the accounts; returns the names.
    """
    written = json.loads(configuration.read_text())
    names = [f"lot{number}" for number in range(count)]
    written.pop("authorization")
    written["accounts"] = {
        name: {"jetstream": "enabled", "users": [{"user": name, "password": password}]} for name in names
    }
    written["jetstream"] |= {"sync_interval": "10s"}
    configuration.write_text(json.dumps(written))
    return names
