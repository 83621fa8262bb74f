"""The bridge by itself: an agent that answers what the test says, and sockets without a gateway."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from loremesh.agent.v1 import chat_pb2
from loremesh.agent.v1.chat_pb2_grpc import ChatServiceServicer, add_ChatServiceServicer_to_server
from loremesh_edge.chat_socket import ChatSocket
from loremesh_kit import idempotency, identity
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.testing import serving
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

pytestmark = pytest.mark.steelthread

HEADERS = {"x-loremesh-tenant": "acme", "x-loremesh-principal": "ada"}


class Agent(ChatServiceServicer):
    """Says hello and, asked to wait, goes on until it is left."""

    def __init__(self) -> None:
        self.callers: list[tuple[str, str, str | None]] = []
        self.left = asyncio.Event()

    async def StreamChat(self, request: Any, context: Any) -> AsyncIterator[chat_pb2.ChatEvent]:  # noqa: N802
        del context
        who = identity.current()
        self.callers.append((who.tenant, who.principal, idempotency.key()))
        yield chat_pb2.ChatEvent(run_id="r", seq=1, text_delta=chat_pb2.TextDelta(text="hallo 🐘"))
        if request.message == "wait":
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def bridge(agent: Agent, port: int, **limits: Any) -> AsyncIterator[asyncio.Event]:
    servicer = Servicer(add=add_ChatServiceServicer_to_server, servicer=agent, name="loremesh.agent.v1.ChatService")
    stop = asyncio.Event()
    async with (
        serving(Wired(servicers=[servicer]), service="agent") as channel,
        asyncio.TaskGroup() as group,
    ):
        options = {"connections": 2, "idle_seconds": 30.0, **limits}
        group.create_task(ChatSocket(agent=channel, listen=f"127.0.0.1:{port}", **options).run(stop))
        yield stop
        stop.set()


@asynccontextmanager
async def opened(port: int, **headers: str) -> AsyncIterator[ClientConnection]:
    while True:
        try:
            opened_socket = await connect(
                f"ws://127.0.0.1:{port}/", additional_headers={**HEADERS, **headers}, proxy=None
            )
            break
        except ConnectionRefusedError:  # it starts beside us
            await asyncio.sleep(0.01)
    async with opened_socket:
        yield opened_socket


async def ask(through: ClientConnection, message: str, **beside: str) -> dict[str, Any]:
    await through.send(json.dumps({"chat": {"message": message}, **beside}))
    found: dict[str, Any] = json.loads(await through.recv())
    return found


async def test_an_event_is_printed_with_its_zeros_and_the_protos_names(agent: Agent, port: int) -> None:
    async with bridge(agent, port), opened(port) as client:
        event = await ask(client, "hello")
    assert event == {
        "run_id": "r",
        "seq": "1",
        "path": [],
        "attempt": 0,
        "text_delta": {"text": "hallo 🐘", "block": 0},
    }


async def test_the_agent_is_told_who_asks_and_under_which_key(agent: Agent, port: int) -> None:
    async with bridge(agent, port):
        async with opened(port) as client:
            await ask(client, "hello")
            await ask(client, "hello", idempotency_key="a")
        async with opened(port, **{"idempotency-key": "b"}) as client:
            await ask(client, "hello")
            await ask(client, "hello", idempotency_key="c")
    assert agent.callers == [("acme", "ada", key) for key in (None, "a", "b", "c")]


async def test_a_key_no_header_can_hold_is_refused(agent: Agent, port: int) -> None:
    async with bridge(agent, port), opened(port) as client:
        answer = await ask(client, "hello", idempotency_key="ключ")
    assert answer["error"]["details"][0]["reason"] == "IDEMPOTENCY_KEY_INVALID"


async def test_whoever_closes_leaves_the_chat(agent: Agent, port: int) -> None:
    async with bridge(agent, port):
        async with opened(port) as client:
            await ask(client, "wait")
        async with asyncio.timeout(10):
            await agent.left.wait()


async def test_a_stop_closes_sockets_as_going_away(agent: Agent, port: int) -> None:
    async with bridge(agent, port) as stop, opened(port) as client:
        await ask(client, "wait")
        stop.set()
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001


async def test_only_a_socket_without_a_run_is_closed_after_a_while(agent: Agent, port: int) -> None:
    async with bridge(agent, port, idle_seconds=1.0), opened(port) as busy:
        await ask(busy, "wait")
        async with opened(port) as idle:
            with pytest.raises(ConnectionClosed) as caught:
                await idle.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1000, "idle")
        assert not agent.left.is_set()


async def test_one_socket_too_many_is_refused(agent: Agent, port: int) -> None:
    async with bridge(agent, port, connections=1):
        async with opened(port):
            with pytest.raises(InvalidStatus) as caught:
                async with opened(port):
                    pass
            assert caught.value.response.status_code == 503
            assert b"OVERLOADED" in (caught.value.response.body or b"")
        async with asyncio.timeout(10):
            while True:
                try:
                    async with opened(port) as client:
                        await ask(client, "hello")
                    break
                except InvalidStatus:
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [("GET", {}, 426), ("GET", {"connection": "upgrade", "upgrade": "websocket"}, 400), ("POST", {}, 405)],
)
async def test_a_request_that_opens_no_socket_is_refused_in_json(
    agent: Agent, port: int, method: str, headers: dict[str, str], status: int
) -> None:
    async with bridge(agent, port), httpx.AsyncClient() as client, opened(port):
        answer = await client.request(method, f"http://127.0.0.1:{port}/", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json()["details"][0]["reason"] == "WEBSOCKET_REQUIRED"
    assert answer.headers.get("upgrade") == ("websocket" if status == 426 else None)


async def test_a_message_of_more_than_a_mebibyte_closes_the_socket(agent: Agent, port: int) -> None:
    async with bridge(agent, port), opened(port) as client:
        await client.send("x" * (1024 * 1024 + 1))
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


async def test_a_binary_message_is_refused(agent: Agent, port: int) -> None:
    async with bridge(agent, port), opened(port) as client:
        await client.send(b"{}")
        assert json.loads(await client.recv())["error"]["details"][0]["reason"] == "MESSAGE_INVALID"
