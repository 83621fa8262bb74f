"""What agents add to their provider: a step, a token, two hundred streams at once, and how soon a cancel arrives."""

import asyncio
import json
import math
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from tests.bench import measure
from tests.bench.mesh import Mesh, provider, running
from tests.bench.provider import FLOOD, PACE, STEADY

RUNS = 60
WARM = 10
FLOODS = 10
STREAMS = 200
CANCELS = 50
# Of a run with one tool call: the model is asked, the tool called, the model asked again.
STEPS = 3
QUESTION = "How high is the lighthouse of Genoa?"
TICKS = os.sysconf("SC_CLK_TCK")


def acting(mesh: Mesh, base_url: str) -> None:
    """Print every line about agents."""
    with httpx.Client(base_url=mesh.url, timeout=60) as client:
        _prepare(client)
        _steps(client, base_url)
        _relay(client, mesh)
        asyncio.run(_crowd(mesh))
        asyncio.run(_cancels(mesh, base_url.removesuffix("/v1")))


def _prepare(client: httpx.Client) -> None:
    """One document, and an agent for each of the provider's moods."""
    client.post("/api/v1/vector_stores", json={"id": "genoa"}).raise_for_status()
    body = {"title": "Lighthouses", "content": "The lighthouse of Genoa is 77 metres high.", "vector_store_id": "genoa"}
    document = client.post("/api/v1/documents", json=body).raise_for_status().json()
    while client.get(f"/api/v1/documents/{document['id']}").json()["state"] != "DOCUMENT_STATE_READY":
        time.sleep(0.1)
    for model in ("flood", "steady", "endless"):
        agent = {"id": model, "model": f"openai/{model}", "vector_store_ids": ["genoa"], "max_output_tokens": 16_384}
        client.post("/api/v1/agents", json=agent).raise_for_status()
    agent = {"id": "acting", "model": "openai/acting", "top_k_documents": 0, "tools": [{"name": "calculator"}]}
    client.post("/api/v1/agents", json=agent).raise_for_status()


def _steps(client: httpx.Client, base_url: str) -> None:
    """From the run's first event to its last, less what the provider takes for the two answers."""
    asked: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
    answered = [*asked, {"role": "tool", "tool_call_id": "c1", "content": "42"}]

    def theirs(_: int) -> None:
        for messages in (asked, answered):
            body = {"model": "acting", "stream": True, "messages": messages}
            client.post(f"{base_url}/chat/completions", json=body).raise_for_status()

    in_run = []

    def ours(_: int) -> None:
        answer = client.post("/api/v1/chat", json={"agent_id": "acting", "message": QUESTION}).raise_for_status().json()
        assert answer["usage"]["tool_calls"] == 1
        events = client.get(f"/api/v1/chat/jobs/{answer['run_id']}/history").raise_for_status().json()["events"]
        begun, ended = (datetime.fromisoformat(events[at]["time"]) for at in (0, -1))
        in_run.append((ended - begun).total_seconds() * 1000)

    def called(_: int) -> None:
        client.post("/api/v1/chat", json={"agent_id": "acting", "message": QUESTION}).raise_for_status()

    direct = measure.p50(measure.milliseconds(theirs, range(RUNS + WARM))[WARM:])
    whole = measure.p50(measure.milliseconds(called, range(RUNS + WARM))[WARM:])
    measure.milliseconds(ours, range(RUNS))
    step = (measure.p50(in_run) - direct) / STEPS
    measure.row("two answers of the provider that answers at once, ms p50", f"{direct:.1f}", "-", met=True)
    measure.row("a call with one tool through the gateway, ms p50", f"{whole:.1f}", "-", met=True)
    measure.row("a step of its run beyond the provider's own, ms p50", f"{step:.1f}", "<= 8", met=step <= 8)


def _relay(client: httpx.Client, mesh: Mesh) -> None:
    """Tokens streamed through agent and gateway, by their processor time and by the clock."""
    pids = {unit["name"]: unit["pid"] for unit in mesh.command("status")["processes"]}
    _flood(client)
    before, started = _cpu(pids), time.perf_counter()
    for _ in range(FLOODS):
        _flood(client)
    seconds = time.perf_counter() - started
    used = {name: _cpu(pids)[name] - before[name] for name in before}
    tokens = FLOODS * FLOOD
    for name, cpu in used.items():
        measure.row(f"relayed tokens per processor second of {name}", f"{tokens / cpu:.0f}", "-", met=True)
    whole = tokens / sum(used.values())
    measure.row("relayed tokens per processor second of both", f"{whole:.0f}", ">= 3000", met=whole >= 3000)
    measure.row("relayed tokens/s of one stream", f"{tokens / seconds:.0f}", "-", met=True)


def _flood(client: httpx.Client) -> None:
    text: list[str] = []
    with client.stream("POST", "/api/v1/chat/stream", json={"agent_id": "flood", "message": QUESTION}) as response:
        raw = b"".join(response.iter_raw())
    for line in raw.splitlines():
        if line.startswith(b"data: "):
            event = json.loads(line[6:])
            text.append(event.get("text_delta", {}).get("text", ""))
    # Behind the tokens stands that no passage supports them.
    if "".join(text).split()[:FLOOD] != [f"word{number}" for number in range(FLOOD)] or b'"completed"' not in raw:
        raise SystemExit("tokens were lost on the way")


def _cpu(pids: dict[str, int]) -> dict[str, float]:
    """Processor seconds of agent and gateway."""
    found = {}
    for name in ("agent", "gateway"):
        fields = Path(f"/proc/{pids[name]}/stat").read_text().rpartition(") ")[2].split()
        found[name] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


async def _crowd(mesh: Mesh) -> None:
    """Many streams at once, each as slow as people read."""
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        streams = [group.create_task(_steady(mesh)) for _ in range(STREAMS)]
    seconds = time.perf_counter() - started
    took = sorted(stream.result() for stream in streams)
    slowest, least = took[-1], STEADY * PACE
    measure.row(f"{STREAMS} streams at once, all of them, s", f"{seconds:.1f}", "-", met=True)
    row = f"from first to last token, slowest of {STREAMS} / the provider's own"
    measure.row(row, f"{slowest / least:.2f}", "<= 2.00", met=slowest <= 2 * least)
    ratio = slowest / took[0]
    measure.row("slowest / fastest of them", f"{ratio:.2f}", "<= 2.00", met=ratio <= 2)


async def _steady(mesh: Mesh) -> float:
    """Seconds between a stream's first and last token."""
    times: list[float] = []
    last = b""
    async with _streaming(mesh, agent_id="steady", message=QUESTION) as lines:
        async for line in lines:
            times += [time.perf_counter()] * (b'"text_delta"' in line and b"word" in line)
            last = line if line.strip() not in {b"", b"0"} else last
    if len(times) != STEADY or b'"completed"' not in last:
        raise SystemExit(f"a stream was not whole, {len(times)} of {STEADY}: {last.decode()}")
    return times[-1] - times[0] + PACE


async def _cancels(mesh: Mesh, provider_url: str) -> None:
    """From a cancel until the provider sees its connection closed."""
    async with httpx.AsyncClient(timeout=60) as client:
        for name, cancel in (("leaving a stream", _leave), ("CancelChatJob", _cancel_job)):
            took = [await cancel(mesh, client, provider_url) for _ in range(CANCELS)]
            worst = sorted(took)[math.ceil(0.99 * CANCELS) - 1]
            measure.row(
                f"from {name} to the provider's end, s p99 of {CANCELS}", f"{worst:.2f}", "<= 1", met=worst <= 1
            )


async def _leave(mesh: Mesh, client: httpx.AsyncClient, provider_url: str) -> float:
    word = f"leaving-{uuid.uuid4().hex}"
    async with _streaming(mesh, agent_id="endless", message=f"{QUESTION} {word}") as lines:
        await _until_text(lines)
        left = time.monotonic()
    return await _seen(client, provider_url, word) - left


async def _cancel_job(mesh: Mesh, client: httpx.AsyncClient, provider_url: str) -> float:
    word = f"leaving-{uuid.uuid4().hex}"
    body = {"agent_id": "endless", "message": f"{QUESTION} {word}"}
    job = (await client.post(f"{mesh.url}/api/v1/chat/async", json=body)).raise_for_status().json()["job_id"]
    async with client.stream("GET", f"{mesh.url}/api/v1/chat/jobs/{job}/events") as watched:
        await _until_text(line.encode() async for line in watched.aiter_lines())
        cancelled = time.monotonic()
        (await client.post(f"{mesh.url}/api/v1/chat/jobs/{job}/cancel", json={})).raise_for_status()
    return await _seen(client, provider_url, word) - cancelled


async def _until_text(lines: AsyncIterator[bytes]) -> None:
    async for line in lines:
        if b'"text_delta"' in line:
            return
    raise SystemExit("a stream ended by itself")


async def _seen(client: httpx.AsyncClient, provider_url: str, word: str) -> float:
    async with asyncio.timeout(30):
        while True:
            left = (await client.get(f"{provider_url}/left/{word}")).json()
            if left is not None:
                return float(left)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _streaming(mesh: Mesh, **request: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """The lines of a chat's stream over a connection of its own, by no more than a socket: clients cost, too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", mesh.port)
    body = json.dumps(request).encode()
    head = f"POST /api/v1/chat/stream HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    writer.write(f"{head}content-type: application/json\r\n\r\n".encode() + body)

    async def lines() -> AsyncIterator[bytes]:
        while line := await reader.readline():
            yield line

    try:
        yield lines()
    finally:
        writer.close()


def main() -> None:
    """Run these alone, on a mesh of their own."""
    with (
        tempfile.TemporaryDirectory(prefix="loremesh-bench-") as place,
        provider() as base_url,
        running(Path(place) / "mesh", base_url=base_url) as (mesh, _),
    ):
        acting(mesh, base_url)


if __name__ == "__main__":
    main()
