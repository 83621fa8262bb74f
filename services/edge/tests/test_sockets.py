"""The bridges by themselves: services that answer what the test says, and sockets without a gateway."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from grpc import aio
from loremesh.agent.v1 import chat_pb2
from loremesh.agent.v1.chat_pb2_grpc import ChatServiceServicer, add_ChatServiceServicer_to_server
from loremesh.crew.v1 import run_pb2
from loremesh.crew.v1.run_pb2_grpc import RunServiceServicer, add_RunServiceServicer_to_server
from loremesh_edge.sockets import Sockets
from loremesh_kit import idempotency, identity
from loremesh_kit.errors import AfterSeqOutOfRange, Overloaded
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


class Runs(RunServiceServicer):
    """Has runs of three events; that named `wait` stays at its second one, and `cut` fails there."""

    def __init__(self) -> None:
        self.callers: list[tuple[str, str, str, int]] = []
        self.left = asyncio.Event()

    async def WatchRun(self, request: Any, context: Any) -> AsyncIterator[run_pb2.RunEvent]:  # noqa: N802
        del context
        who = identity.current()
        self.callers.append((who.tenant, who.principal, request.run_id, request.after_seq))
        if request.after_seq > 3:
            raise AfterSeqOutOfRange(3)
        payloads = ({"run_started": {}}, {"heartbeat": {}}, {"completed": {"output": "hallo 🐘"}})
        for seq in range(request.after_seq + 1, 4):
            if seq == 2 and request.run_id == "cut":
                raise Overloaded
            if seq == 2 and request.run_id == "wait":
                try:
                    await asyncio.Event().wait()
                finally:
                    self.left.set()
            yield run_pb2.RunEvent(run_id=request.run_id, seq=seq, **payloads[seq - 1])


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def bridge(behind: Agent | Runs, port: int, **options: Any) -> AsyncIterator[asyncio.Event]:
    servicer = (
        Servicer(add=add_ChatServiceServicer_to_server, servicer=behind, name="loremesh.agent.v1.ChatService")
        if isinstance(behind, Agent)
        else Servicer(add=add_RunServiceServicer_to_server, servicer=behind, name="loremesh.crew.v1.RunService")
    )
    stop = asyncio.Event()
    async with (
        serving(Wired(servicers=[servicer]), service="behind") as channel,
        asyncio.TaskGroup() as group,
    ):
        options = {"agent": channel, "crew": channel, "connections": 2, "idle_seconds": 30.0, **options}
        group.create_task(Sockets(listen=f"127.0.0.1:{port}", **options).run(stop))
        yield stop
        stop.set()


@asynccontextmanager
async def opened(port: int, path: str = "/api/v1/chat/ws", **headers: str) -> AsyncIterator[ClientConnection]:
    while True:
        try:
            opened_socket = await connect(
                f"ws://127.0.0.1:{port}{path}", additional_headers={**HEADERS, **headers}, proxy=None
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


async def watched(port: int, path: str) -> tuple[list[dict[str, Any]], int]:
    """What a socket is sent, and the code it is closed with."""
    messages = []
    async with opened(port, f"/api/v1/runs/{path}") as client, asyncio.timeout(30):
        with suppress(ConnectionClosed):
            while True:
                messages.append(json.loads(await client.recv()))
    assert client.close_code is not None
    return messages, client.close_code


async def test_a_runs_events_are_told_up_to_the_last_and_the_socket_is_closed(runs: Runs, port: int) -> None:
    async with bridge(runs, port):
        events, code = await watched(port, "a%20run/ws")
    assert code == 1000
    kinds = {"run_started", "heartbeat", "completed"}
    assert [(event["seq"], event.keys() & kinds) for event in events] == [
        ("1", {"run_started"}),
        ("2", {"heartbeat"}),
        ("3", {"completed"}),
    ]
    assert events[2] == {
        "run_id": "a run",
        "seq": "3",
        "path": [],
        "attempt": 0,
        "completed": {"output": "hallo 🐘", "reason": "", "message": ""},
    }


@pytest.mark.parametrize("query", ["after_seq=2", "run_id=another&afterSeq=2&runId=third"])
async def test_a_watch_is_taken_up_behind_a_seq_by_who_asks(runs: Runs, port: int, query: str) -> None:
    async with bridge(runs, port):
        events, _ = await watched(port, f"r/ws?{query}")
    assert [event["seq"] for event in events] == ["3"]
    assert runs.callers == [("acme", "ada", "r", 2)]


async def test_a_watch_behind_the_last_event_is_closed_at_once(runs: Runs, port: int) -> None:
    async with bridge(runs, port):
        assert await watched(port, "r/ws?after_seq=3") == ([], 1000)


@pytest.mark.parametrize(
    ("path", "events", "reason"),
    [
        ("r/ws?after_seq=4", 0, "AFTER_SEQ_OUT_OF_RANGE"),
        ("cut/ws", 1, "OVERLOADED"),
        ("r/ws?after_seq=x", 0, "INVALID_FIELD"),
        ("r/ws?after_seq=", 0, "INVALID_FIELD"),
        ("r/ws?after_seq=99999999999999999999", 0, "INVALID_FIELD"),
        ("r/ws?after", 0, "INVALID_FIELD"),
        ("r/ws?color=red", 0, "INVALID_FIELD"),
    ],
)
async def test_what_ends_a_watch_is_told_before_the_socket_is_closed_as_an_error(
    runs: Runs, port: int, path: str, events: int, reason: str
) -> None:
    async with bridge(runs, port):
        messages, code = await watched(port, path)
    assert (len(messages), messages[-1]["error"]["details"][0]["reason"], code) == (events + 1, reason, 1011)


async def test_a_crew_service_that_cannot_be_reached_is_named(runs: Runs, port: int) -> None:
    async with aio.insecure_channel("127.0.0.1:1") as nowhere, bridge(runs, port, crew=nowhere):
        messages, _ = await watched(port, "r/ws")
    (info, *_) = messages[0]["error"]["details"]
    assert (info["reason"], info["metadata"]["dependency"]) == ("DEPENDENCY_UNAVAILABLE", "crew")


async def test_whoever_closes_leaves_the_watching(runs: Runs, port: int) -> None:
    async with bridge(runs, port):
        async with opened(port, "/api/v1/runs/wait/ws") as client:
            await client.recv()
        async with asyncio.timeout(10):
            await runs.left.wait()


async def test_a_watch_takes_no_messages_and_goes_on(runs: Runs, port: int) -> None:
    async with bridge(runs, port, idle_seconds=0.01), opened(port, "/api/v1/runs/wait/ws") as client:
        assert "run_started" in json.loads(await client.recv())
        # More than the library reads ahead.
        for _ in range(40):
            await client.send("{}")
        async with asyncio.timeout(10):
            answers = [json.loads(await client.recv()) for _ in range(40)]
        assert {answer["error"]["details"][0]["reason"] for answer in answers} == {"MESSAGE_INVALID"}
        assert not runs.left.is_set()
