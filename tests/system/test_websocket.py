"""Chats and runs through a WebSocket: Envoy, the bridge in the edge service, and the services behind it."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToDict
from loremesh.crew.v1 import run_pb2
from loremesh.crew.v1.run_pb2_grpc import RunServiceStub
from loremesh_agent.testing.dialects import Counts, OpenAI, Text
from loremesh_agent.testing.http import ProviderDouble
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.system.conftest import Mesh

pytestmark = pytest.mark.system

TERMINAL = frozenset({"completed", "incomplete", "failed", "cancelled"})


@pytest.fixture
def long(library: Any) -> dict[str, Any]:
    """What the small model takes seconds to answer."""
    message = "Tell everything there is to know about the lighthouse of Genoa, at length."
    return {"message": message, "vector_store_ids": [library.store], "max_output_tokens": 400}


@pytest.fixture
async def socket(mesh: Mesh) -> AsyncIterator[ClientConnection]:
    async with opened(mesh) as connection:
        yield connection


def opened(mesh: Mesh, path: str = "chat/ws", **options: Any) -> connect:
    return connect(f"ws://{mesh.target}/api/v1/{path}", compression=None, **options)


async def say(socket: ClientConnection, message: object) -> None:
    await socket.send(message if isinstance(message, str) else json.dumps(message))


async def receive(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(60):
        found: dict[str, Any] = json.loads(await socket.recv())
        return found


async def rest_of_run(socket: ClientConnection) -> list[dict[str, Any]]:
    events = []
    while not events or not any(name in events[-1] for name in (*TERMINAL, "error")):
        events.append(await receive(socket))
    return [event for event in events if "heartbeat" not in event]


async def job(mesh: Mesh, body: dict[str, Any]) -> str:
    async with httpx.AsyncClient(base_url=mesh.url, timeout=30) as client:
        answer = await client.post("/api/v1/chat/async", json=body)
    return str(answer.raise_for_status().json()["job_id"])


async def server_sent(mesh: Mesh, stream: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=mesh.url, timeout=60) as client:
        answer = await client.get(f"/api/v1/{stream}/events")
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [event for event in map(json.loads, lines) if "heartbeat" not in event]


def reason(answer: dict[str, Any]) -> str:
    return str(answer["error"]["details"][0]["reason"])


async def test_a_chat_is_answered_event_by_event(socket: ClientConnection) -> None:
    await say(socket, {"chat": {"message": "What is Loremesh?"}})
    events = await rest_of_run(socket)
    assert [int(event["seq"]) for event in events] == list(range(1, len(events) + 1))
    assert "run_started" in events[0]
    assert "completed" in events[-1]
    assert len({event["run_id"] for event in events}) == 1


async def test_one_socket_carries_one_chat_after_another(socket: ClientConnection) -> None:
    for _ in range(3):
        await say(socket, {"chat": {"message": "What is Loremesh?"}})
        assert "completed" in (await rest_of_run(socket))[-1]


async def test_a_job_is_watched_as_server_sent_events_tell_it(mesh: Mesh, socket: ClientConnection) -> None:
    job_id = await job(mesh, {"message": "What is Loremesh?"})
    await say(socket, {"watch": {"job_id": job_id}})
    assert await rest_of_run(socket) == await server_sent(mesh, f"chat/jobs/{job_id}")


async def test_after_a_cut_the_events_go_on_where_they_ended(mesh: Mesh) -> None:
    job_id = await job(mesh, {"message": "What is Loremesh?"})
    async with opened(mesh) as first:
        await say(first, {"watch": {"job_id": job_id}})
        seen = [await receive(first)]
    async with opened(mesh) as second:
        await say(second, {"watch": {"job_id": job_id, "after_seq": seen[-1]["seq"]}})
        seen += await rest_of_run(second)
    assert seen == await server_sent(mesh, f"chat/jobs/{job_id}")


async def test_closing_the_socket_cancels_its_chat(mesh: Mesh, long: dict[str, Any]) -> None:
    async with opened(mesh) as connection:
        await say(connection, {"chat": long})
        started = await receive(connection)
    conversation = started["run_started"]["conversation_id"]
    async with httpx.AsyncClient(base_url=mesh.url, timeout=30) as client, asyncio.timeout(30):
        states = [""]
        while states[-1] in ("", "MESSAGE_STATE_IN_PROGRESS"):
            answer = await client.get(f"/api/v1/conversations/{conversation}/messages")
            states = [message["state"] for message in answer.json()["messages"]] or [""]
            await asyncio.sleep(0.1)
    assert states[-1] == "MESSAGE_STATE_CANCELLED"


async def test_a_job_is_cancelled_and_the_watch_tells_it(
    mesh: Mesh, socket: ClientConnection, long: dict[str, Any]
) -> None:
    job_id = await job(mesh, long)
    await say(socket, {"watch": {"job_id": job_id}})
    await say(socket, {"cancel": {"job_id": job_id}})
    messages: list[dict[str, Any]] = []
    # The answer to the one and the end of the other come in any order.
    while not any("job" in message for message in messages) or not any(
        TERMINAL & message.keys() for message in messages
    ):
        messages.append(await receive(socket))
    (told,) = (message["job"] for message in messages if "job" in message)
    (last,) = (message for message in messages if TERMINAL & message.keys())
    assert (told["job_id"], "cancelled" in last) == (job_id, True)


async def test_a_repeated_key_is_the_same_chat(socket: ClientConnection) -> None:
    asked = {"chat": {"message": "What is Loremesh?"}, "idempotency_key": str(uuid.uuid4())}
    ends = []
    for _ in range(2):
        await say(socket, asked)
        ends.append((await rest_of_run(socket))[-1])
    assert ends[0]["completed"]["message_id"] == ends[1]["completed"]["message_id"]


@pytest.mark.parametrize(
    "message",
    ["{", "[]", "{}", '{"chat": {}, "watch": {}}', '{"chat": {"message": 1}}', '{"chat": []}', '{"sing": {}}'],
)
async def test_what_is_no_message_is_refused_and_the_socket_stays_open(socket: ClientConnection, message: str) -> None:
    await say(socket, message)
    assert reason(await receive(socket)) == "MESSAGE_INVALID"
    await say(socket, {"watch": {"job_id": "nothing"}})
    assert reason(await receive(socket)) == "CHAT_JOB_NOT_FOUND"


async def test_what_the_agent_refuses_is_told_as_it_says_it(mesh: Mesh, socket: ClientConnection) -> None:
    body = {"message": "", "top_k": 5}
    await say(socket, {"chat": body})
    async with httpx.AsyncClient(base_url=mesh.url, timeout=30) as client:
        answer = await client.post("/api/v1/chat", json=body)
    assert await receive(socket) == {"error": answer.json()}


async def test_a_socket_carries_one_run_at_a_time(socket: ClientConnection, long: dict[str, Any]) -> None:
    await say(socket, {"chat": long})
    await receive(socket)
    await say(socket, {"chat": long})
    messages = []
    while not messages or "error" not in messages[-1]:
        messages.append(await receive(socket))
        assert not any(name in messages[-1] for name in TERMINAL)
    assert reason(messages[-1]) == "RUN_UNDERWAY"


async def test_a_page_of_another_site_may_not_open_one(mesh: Mesh) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with opened(mesh, origin="https://elsewhere.example"):
            pass
    assert caught.value.response.status_code == 403
    async with opened(mesh, origin="http://localhost:3000"):
        pass


async def test_who_the_client_says_it_is_does_not_count(mesh: Mesh) -> None:
    job_id = await job(mesh, {"message": "What is Loremesh?"})
    async with opened(mesh, additional_headers={"x-loremesh-tenant": "somebody"}) as connection:
        await say(connection, {"watch": {"job_id": job_id}})
        assert "run_started" in await receive(connection)


@pytest.fixture
def double(doubles: dict[str, ProviderDouble]) -> Iterator[ProviderDouble]:
    yield doubles["openai"]
    doubles["openai"].script_of = None


async def test_a_run_is_watched_across_a_cut_as_the_other_ways_tell_it(
    mesh: Mesh, channel: grpc.Channel, double: ProviderDouble
) -> None:
    wire, counts = OpenAI(), Counts(read=20, written=10, cached=0, reasoned=0)
    double.script_of = lambda _: [*wire.begin(Text("It answers.")), *wire.end(counts=counts)]
    crew = {
        "id": f"c-{uuid.uuid4().hex}",
        "agents": [{"name": "guide", "role": "A guide", "model": "openai/m"}],
        "tasks": [{"name": "tell", "agent": "guide", "description": "Tell what Loremesh is."}],
    }
    async with httpx.AsyncClient(base_url=mesh.url, timeout=30) as client:
        (await client.post("/api/v1/crews", json=crew)).raise_for_status()
        kickoff = await client.post(f"/api/v1/crews/{crew['id']}/kickoff", json={})
    run_id = str(kickoff.raise_for_status().json()["id"])
    async with opened(mesh, f"runs/{run_id}/ws") as first:
        seen = [await receive(first)]
    async with opened(mesh, f"runs/{run_id}/ws?after_seq={seen[-1]['seq']}") as second:
        seen += await rest_of_run(second)
        await second.wait_closed()
    assert (second.close_code, "completed" in seen[-1]) == (1000, True)
    assert seen == await server_sent(mesh, f"runs/{run_id}")
    runs: Any = RunServiceStub(channel)
    told = runs.WatchRun(run_pb2.WatchRunRequest(run_id=run_id), timeout=30)
    printing = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
    assert seen == [MessageToDict(event, **printing) for event in told if not event.HasField("heartbeat")]


async def test_a_run_that_does_not_exist_is_told_as_the_crew_service_says_it(mesh: Mesh) -> None:
    async with opened(mesh, "runs/nothing/ws") as connection:
        answer = await receive(connection)
        await connection.wait_closed()
    assert (reason(answer), connection.close_code) == ("RUN_NOT_FOUND", 1011)
