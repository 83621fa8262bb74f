"""An echo service of every arity, and databases and buses on the real servers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import structlog
from grpc import aio
from loremesh.agent.v1.chat_pb2 import ChatRequest
from loremesh_kit.events import Bus, connect
from loremesh_kit.health import HealthServicer
from loremesh_kit.postgres import Database, open_database
from loremesh_kit.server import Role, Servicer, Wired, serve
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import DatabaseUrls, fresh_database

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
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    """A connected bus of the service `agent`."""
    async with connect(nats_url, service="agent", on_closed=_never) as opened:
        await connected(opened)
        yield opened


def _never() -> None:
    message = "the bus was closed"
    raise AssertionError(message)


async def connected(bus: Bus) -> None:
    """Wait for the bus's first connection."""
    async with asyncio.timeout(10):
        while not bus.is_connected:  # noqa: ASYNC110 - nothing in the client tells
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _plain_logs() -> None:
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, plain])
