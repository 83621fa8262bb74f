"""What a crew's run costs beyond its model, against CrewAI and LangGraph: durable and spread over processes."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.bench import idle, measure
from tests.bench.jobs import servers
from tests.bench.mesh import Mesh

HERE = Path(__file__).parent
CHAIN = 20
ROUNDS = 10
MANY_RUNS = 100
MANY_TASKS = 10
WAITING = 1000
AT_ONCE = 100
TERMINAL = ("completed", "incomplete", "failed", "cancelled", "expired")
SECONDS = 300.0


def crews(mesh: Mesh, base_url: str) -> None:
    """Measure everything and print a line for each target."""
    with httpx.Client(base_url=mesh.url, timeout=60) as client:
        ours = _a_task(client) - _a_completion(base_url)
        measure.row("a task of a crew beyond its model, ms p50", f"{ours:.1f}", "<= 10", met=ours <= 10)
        _peers(base_url, ours)
        rate = _rate(client)
        measure.row("tasks of many runs at once", f"{rate:.0f} tasks/s", ">= 150 tasks/s", met=rate >= 150)
        together = _together(client)
        measure.row("ten tasks of 300 ms at once, ms p50", f"{together:.0f}", "<= 450", met=together <= 450)
        kilobytes = _waiting(client, mesh)
        measure.row("a run that waits for a human, KB of memory", f"{kilobytes:.2f}", "< 1", met=kilobytes < 1)


def _a_task(client: httpx.Client) -> float:
    _create(client, "bench-chain", _tasks(CHAIN), process="PROCESS_SEQUENTIAL", model="openai/instant")
    times = [_run(client, "bench-chain") / CHAIN for _ in range(ROUNDS + 1)]
    return measure.p50(times[1:])


def _a_completion(base_url: str) -> float:
    """Milliseconds of the model double itself."""
    body = {"model": "instant", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    with httpx.Client(timeout=60) as client:

        def ask(_: str) -> None:
            client.post(f"{base_url}/chat/completions", json=body).raise_for_status()

        return measure.p50(measure.milliseconds(ask, ["hello"] * 100)[10:])


def _peers(base_url: str, ours: float) -> None:
    python = os.environ.get("PEER_PYTHON")
    if python is None:
        measure.row("a task in CrewAI, a node in LangGraph", "not measured", "run scripts/bench", met=True)
        return
    theirs = _peer(python, "peer_crewai.py", base_url, str(CHAIN), str(ROUNDS)) - _a_completion(base_url)
    measure.row("a task of CrewAI beyond its model, ms p50", f"{theirs:.1f}", "-", met=True)
    measure.row("a task of ours against CrewAI's", f"{ours / theirs:.2f} x", "<= 0.67 x", met=ours <= 0.67 * theirs)
    with tempfile.TemporaryDirectory(prefix="loremesh-bench-") as place, servers(Path(place)) as (url, _):
        node = _peer(python, "peer_langgraph.py", url, str(CHAIN), str(ROUNDS))
    measure.row("a node of LangGraph with Postgres in sync mode, ms p50", f"{node:.1f}", "-", met=True)
    measure.row("a task of ours against LangGraph's node", f"{ours / node:.2f} x", "<= 3.7 x", met=ours <= 3.7 * node)


def _peer(python: str, script: str, *arguments: str) -> float:
    command = [python, str(HERE / script), *arguments]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=600)
    return float(run.stdout.split()[-1])


def _rate(client: httpx.Client) -> float:
    """Tasks done in a second, all runs kicked off at once."""
    _create(client, "bench-many", _tasks(MANY_TASKS), process="PROCESS_SEQUENTIAL", model="openai/instant")
    started = time.perf_counter()
    answer = client.post("/api/v1/crews/bench-many/kickoff_for_each", json={"inputs": [{}] * MANY_RUNS})
    answer.raise_for_status()
    waiting = [run["id"] for run in answer.json()["runs"]]
    while waiting:
        if time.perf_counter() - started > SECONDS:
            raise SystemExit(f"{len(waiting)} runs did not end")
        # One at a time: asking after all of them would be most of the work.
        if _ended(client, waiting[-1]):
            waiting.pop()
        else:
            time.sleep(0.1)
    return MANY_RUNS * MANY_TASKS / (time.perf_counter() - started)


def _ended(client: httpx.Client, run_id: str) -> bool:
    run = client.get(f"/api/v1/runs/{run_id}").raise_for_status().json()
    if run["status"] in ("RUN_STATUS_FAILED", "RUN_STATUS_INCOMPLETE"):
        raise SystemExit(f"a run failed: {run.get('reason')} {run.get('message')}")
    return bool(run["status"] == "RUN_STATUS_COMPLETED")


def _together(client: httpx.Client) -> float:
    _create(client, "bench-parallel", _tasks(10), process="PROCESS_PARALLEL", model="openai/slow")
    return measure.p50([_run(client, "bench-parallel") for _ in range(ROUNDS + 1)][1:])


def _waiting(client: httpx.Client, mesh: Mesh) -> float:
    """Kilobytes by which the processes of the two services grow for each further run that waits.

    The first thousand make the allocators grow to what so much work at once takes: it is theirs, waiting or not.
    """
    task = {"name": "draft", "description": "Write.", "human_input": {"question": "Good?"}}
    _create(client, "bench-waiting", [task], process="PROCESS_SEQUENTIAL", model="openai/instant")
    _wait_all(client, WAITING)
    before = _memory(mesh)
    _wait_all(client, WAITING)
    return max(0.0, (_memory(mesh) - before) / WAITING)


def _wait_all(client: httpx.Client, runs: int) -> None:
    ids: list[str] = []
    for _ in range(0, runs, AT_ONCE):
        body = {"inputs": [{}] * AT_ONCE}
        answer = client.post("/api/v1/crews/bench-waiting/kickoff_for_each", json=body).raise_for_status().json()
        ids += [run["id"] for run in answer["runs"]]
    deadline = time.perf_counter() + SECONDS
    while ids and time.perf_counter() < deadline:
        ids = [each for each in ids if not _waits(client, each)]
    if ids:
        raise SystemExit(f"{len(ids)} runs do not wait for a human")


def _waits(client: httpx.Client, run_id: str) -> bool:
    run = client.get(f"/api/v1/runs/{run_id}").raise_for_status().json()
    return any(task["status"] == "TASK_STATUS_WAITING" for task in run.get("tasks", ()))


def _memory(mesh: Mesh) -> int:
    """Kilobytes of the two services."""
    processes = mesh.command("status")["processes"]
    return sum(idle.tree(int(each["pid"])) for each in processes if each["name"] in ("agent", "crew"))


def _tasks(count: int) -> list[dict[str, Any]]:
    return [{"name": f"task{number}", "description": "Write a line."} for number in range(count)]


def _create(client: httpx.Client, crew: str, tasks: Sequence[Any], *, process: str, model: str) -> None:
    agent = {"name": "writer", "role": "Writer", "goal": "Write", "backstory": "A writer.", "model": model}
    body = {"id": crew, "agents": [agent], "tasks": tasks, "process": process}
    client.post("/api/v1/crews", json=body).raise_for_status()


def _run(client: httpx.Client, crew: str) -> float:
    """Milliseconds from the kickoff to the terminal event."""
    started = time.perf_counter()
    run = client.post(f"/api/v1/crews/{crew}/kickoff", json={}).raise_for_status().json()
    with client.stream("GET", f"/api/v1/runs/{run['id']}/events", headers={"accept": "text/event-stream"}) as events:
        for line in events.iter_lines():
            if line.startswith("data:"):
                event = json.loads(line[5:])
                if ended := next((each for each in TERMINAL if each in event), None):
                    if ended != "completed":
                        raise SystemExit(f"a run of {crew} ended as {ended}: {event[ended]}")
                    return (time.perf_counter() - started) * 1000
    raise SystemExit(f"the events of a run of {crew} were cut")
