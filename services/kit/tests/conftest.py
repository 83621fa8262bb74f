"""An echo service of every arity, and databases and buses on the real servers."""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from grpc import aio
from hypothesis import settings
from loremesh.agent.v1.chat_pb2 import ChatRequest
from loremesh_cli.mesh import nats
from loremesh_cli.mesh.ports import free_ports
from loremesh_cli.mesh.running import running
from loremesh_kit.errors import ServiceError
from loremesh_kit.events import Bus, connect, stream_of
from loremesh_kit.health import HealthServicer
from loremesh_kit.jobs import Handler, Job, complete, enqueue
from loremesh_kit.loops import background
from loremesh_kit.outbox import Relay
from loremesh_kit.postgres import Database, open_database
from loremesh_kit.server import Role, Servicer, Wired, serve
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import DatabaseUrls, caller, fresh_database
from loremesh_kit.worker import JobWorker
from nats.js.errors import NotFoundError

# A shared machine is slow now and then, and no example is timed here.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ARITIES = {
    "Unary": "unary_unary",
    "ClientStream": "stream_unary",
    "ServerStream": "unary_stream",
    "Bidi": "stream_stream",
}
# The agent's package, so that the agent's reasons are catalogued.
SERVICE = "loremesh.agent.v1.EchoService"

Act = Callable[[ChatRequest], Awaitable[ChatRequest]]


async def echo(request: ChatRequest) -> ChatRequest:
    return request


class EchoServicer:
    """Answers with whatever `act` makes of each request; a server stream says it twice."""

    def __init__(self, act: Act) -> None:
        self._act = act

    async def unary(self, request: ChatRequest, _: Any) -> ChatRequest:
        return await self._act(request)

    async def client_stream(self, requests: AsyncIterator[ChatRequest], _: Any) -> ChatRequest:
        answer = ChatRequest()
        async for request in requests:
            answer = await self._act(request)
        return answer

    async def server_stream(self, request: ChatRequest, _: Any) -> AsyncIterator[ChatRequest]:
        yield await self._act(request)
        yield await self._act(request)

    async def bidi(self, requests: AsyncIterator[ChatRequest], _: Any) -> AsyncIterator[ChatRequest]:
        async for request in requests:
            yield await self._act(request)


def add_echo(servicer: EchoServicer, server: aio.Server) -> None:
    codecs = {
        "request_deserializer": ChatRequest.FromString,
        "response_serializer": ChatRequest.SerializeToString,
    }
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(servicer.unary, **codecs),
        "ClientStream": grpc.stream_unary_rpc_method_handler(servicer.client_stream, **codecs),
        "ServerStream": grpc.unary_stream_rpc_method_handler(servicer.server_stream, **codecs),
        "Bidi": grpc.stream_stream_rpc_method_handler(servicer.bidi, **codecs),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])


@dataclass
class Echo:
    """A running echo service and a channel to it."""

    channel: aio.Channel
    target: str
    health: HealthServicer
    as_caller: tuple[tuple[str, str], ...] = field(
        default=(("x-loremesh-tenant", "acme"), ("x-loremesh-principal", "ada"), ("x-request-id", "request-1")),
    )

    @staticmethod
    def method(arity: str) -> str:
        return f"/{SERVICE}/{arity}"

    async def call(
        self, arity: str, *messages: ChatRequest, metadata: Any = None, seconds: float | None = 10
    ) -> list[ChatRequest]:
        """Send the messages (one of them, where the request is no stream), and collect the answers."""
        kind = {
            "Unary": "unary_unary",
            "ClientStream": "stream_unary",
            "ServerStream": "unary_stream",
            "Bidi": "stream_stream",
        }
        method = getattr(self.channel, kind[arity])(
            f"/{SERVICE}/{arity}",
            request_serializer=ChatRequest.SerializeToString,
            response_deserializer=ChatRequest.FromString,
        )
        request = iter(messages) if arity in ("ClientStream", "Bidi") else messages[0]
        rpc = method(request, timeout=seconds, metadata=self.as_caller if metadata is None else metadata)
        if arity in ("ServerStream", "Bidi"):
            return [answer async for answer in rpc]
        return [await rpc]


@pytest.fixture(params=ARITIES)
def arity(request: pytest.FixtureRequest) -> str:
    """Every arity in turn."""
    return str(request.param)


StartEcho = Callable[..., AbstractAsyncContextManager[Echo]]


@pytest.fixture
def start_echo() -> StartEcho:
    """Start an echo service; keyword arguments are settings, `wired` adds to what is wired."""

    @asynccontextmanager
    async def start(
        act: Act | None = None,
        *,
        servicer: Any = None,
        role: Role = "all",
        wired: dict[str, Any] | None = None,
        **settings: Any,
    ) -> AsyncIterator[Echo]:
        served = Servicer(add=add_echo, servicer=servicer or EchoServicer(act or echo), name=SERVICE)
        configured = ServiceSettings(**{"drain_seconds": 0, "grace_seconds": 0.5, **settings})
        async with (
            serve(
                Wired(servicers=[served], **(wired or {})), service="agent", settings=configured, role=role
            ) as running,
            aio.insecure_channel(running.target) as channel,
        ):
            yield Echo(channel=channel, target=running.target, health=running.health)

    return start


@pytest.fixture
async def database_urls(postgres_url: str) -> AsyncIterator[DatabaseUrls]:
    """A database of this test's own, with the kit's tables in the schema `agent`."""
    async with fresh_database(postgres_url, schema="agent") as urls:
        yield urls


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    async with open_database(ServiceSettings(database_url=database_urls.plain)) as opened:
        yield opened


@pytest.fixture
def service() -> str:
    """A service name of this test's own, so that its stream holds its messages only."""
    return f"test{secrets.token_hex(4)}"


@pytest.fixture
async def bus(nats_url: str, service: str) -> AsyncIterator[Bus]:
    async with connect(nats_url, service=service, on_closed=_never) as opened:
        await connected(opened)
        yield opened
        with suppress(NotFoundError):
            await opened.require_connection().jetstream().delete_stream(stream_of(service))


def _never() -> None:
    message = "the bus was closed"
    raise AssertionError(message)


async def connected(bus: Bus) -> None:
    """Wait for the bus's first connection."""
    async with asyncio.timeout(10):
        while not bus.is_connected:  # noqa: ASYNC110 - nothing in the client tells
            await asyncio.sleep(0.01)


@dataclass
class Workshop:
    """Everything that makes jobs happen; `handlers` can be changed at any time."""

    database: Database
    bus: Bus
    service: str
    handlers: dict[str, Handler] = field(default_factory=dict)
    dead: list[tuple[Job, ServiceError]] = field(default_factory=list)

    async def on_dead(self, _: Any, job: Job, error: ServiceError) -> None:
        self.dead.append((job, error))

    def worker(self, **options: Any) -> JobWorker:
        chosen = {"concurrency": 8, "lease": 1.5, "grace": 2.0, "on_dead": self.on_dead, **options}
        return JobWorker(database=self.database, bus=self.bus, service=self.service, handlers=self.handlers, **chosen)

    @asynccontextmanager
    async def open(self, *workers: JobWorker, relay: bool = True) -> AsyncIterator[asyncio.Event]:
        """Run workers and a relay while the block runs."""
        stop = asyncio.Event()
        running: list[Any] = [*workers, *([Relay(database=self.database, bus=self.bus, service=self.service)] * relay)]
        async with background() as group:
            for worker in running:
                group.create_task(worker.run(stop))
            try:
                yield stop
            finally:
                stop.set()

    async def idle(self, worker: JobWorker) -> None:
        """Have the worker know that nobody waits, as it does once it has looked."""
        async with asyncio.timeout(5):
            while self.database._taker is not worker:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        worker._idle = True

    async def enqueue(self, kind: str = "noop", tenant: str = "acme", **options: Any) -> str:
        with caller(tenant=tenant):
            async with self.database.transaction() as connection:
                job = {"kind": kind, "payload": {}, "subject_id": "document-1", **options}
                return (await enqueue(connection, **job)).job_id

    async def complete(self, job: Job) -> None:
        """The simplest handler; its effect is an inbox row for each attempt that counted."""
        async with self.database.transaction() as connection:
            await self.effect(connection, job)
            await complete(connection, job)

    async def effect(self, connection: Any, job: Job) -> None:
        await connection.execute(
            "INSERT INTO inbox (tenant, consumer, message_id) VALUES (%s, %s, %s)",
            [job.tenant, f"attempt {job.attempt}", job.id],
        )

    async def rows(self, query: str) -> list[dict[str, Any]]:
        return await self.database.fetch_across_tenants(query)  # type: ignore[arg-type]

    async def job(self, job_id: str) -> dict[str, Any]:
        (row,) = await self.database.fetch_across_tenants("SELECT * FROM jobs WHERE id = %s", [job_id])
        return row

    async def until(self, state: str, jobs: int = 1, seconds: float = 20) -> None:
        """Wait until that many jobs, and no other, are in that state."""
        async with asyncio.timeout(seconds):
            while await self.states() != {state: jobs}:  # noqa: ASYNC110 - asked of Postgres
                await asyncio.sleep(0.02)

    async def states(self) -> dict[str, int]:
        return {row["state"]: row["n"] for row in await self.rows("SELECT state, count(*) AS n FROM jobs GROUP BY 1")}

    async def effects(self) -> list[dict[str, Any]]:
        return await self.rows("SELECT tenant, consumer, message_id FROM inbox ORDER BY message_id, consumer")


@pytest.fixture
def workshop(database: Database, bus: Bus, service: str) -> Workshop:
    made = Workshop(database=database, bus=bus, service=service)
    made.handlers["noop"] = made.complete
    return made


class Broker:
    """A nats-server that a test may stop, wipe and start again on the same port."""

    def __init__(self, directory: Path) -> None:
        (self._port,) = free_ports(1)
        self._directory = directory
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        return nats.url(self._port, password="throw-away")

    def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        program = nats.program(self._directory / "nats", port=self._port, password="throw-away")
        self._stack.enter_context(running(program, log=self._directory / "nats.log"))

    def stop(self) -> None:
        self._stack.close()

    def wipe(self) -> None:
        shutil.rmtree(self._directory)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path / "broker")
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _plain_logs() -> None:
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, plain])
