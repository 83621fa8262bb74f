"""A service as a process: its command line, its signals, its exit codes."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from loremesh_cli.mesh.ports import free_ports

pytestmark = pytest.mark.steelthread

PROGRAM = str(Path(__file__).parent / "demo_service.py")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def start():
    """Start the demo service with arguments and settings; killed at the end if it still runs."""
    started = []

    async def start(*arguments: str, **settings: str):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            PROGRAM,
            *arguments,
            env={"PATH": os.environ["PATH"], **settings},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process, seconds=20):
    async with asyncio.timeout(seconds):
        output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def until_logged(process, event, seconds=20):
    async with asyncio.timeout(seconds):
        while line := await process.stdout.readline():
            if (found := json.loads(line))["event"] == event:
                return found
    raise AssertionError(event)


def nowhere():
    """Settings of a service whose dependencies are down."""
    (port,) = free_ports(1)
    return {
        "AGENT_LISTEN": f"127.0.0.1:{port}",
        "AGENT_DATABASE_URL": "postgresql://agent:secret-word@127.0.0.1:1/x",
        "NATS_URL": "nats://127.0.0.1:1",
        "AGENT_DRAIN_SECONDS": "0.2",
        "AGENT_MUST_BE_TOLD": "quiet-word",
    }


async def test_it_serves_without_its_dependencies_and_says_what_it_waits_for(start):
    settings = nowhere()
    process = await start(**settings)
    waiting = {(await until_logged(process, "waiting for dependency"))["dependency"] for _ in range(2)}
    async with aio.insecure_channel(settings["AGENT_LISTEN"]) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest(), timeout=5)

    assert waiting == {"postgres", "nats"}
    assert {name: state.status for name, state in answer.statuses.items()} == {
        "": SERVING,
        "dependency/postgres": NOT_SERVING,
        "dependency/nats": NOT_SERVING,
    }


async def test_it_finds_its_dependencies_serving(start, database_urls, nats_url):
    settings = {**nowhere(), "AGENT_DATABASE_URL": database_urls.plain, "NATS_URL": nats_url}
    process = await start(**settings)
    serving = {(await until_logged(process, "dependency serves"))["dependency"] for _ in range(2)}

    assert serving == {"postgres", "nats"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_it_well(start, number):
    process = await start(**nowhere())
    await until_logged(process, "serving")
    asked_at = time.monotonic()
    process.send_signal(number)
    code, output, _ = await ended(process)

    assert code == 0
    assert "draining" in output
    assert "stopped" in output
    assert 0.2 <= time.monotonic() - asked_at < 10


async def test_health_tells_by_its_exit_code(start):
    settings = nowhere()
    assert (await ended(await start("health", **settings)))[0] == 1
    process = await start(**settings)
    await until_logged(process, "serving")

    assert (await ended(await start("health", **settings)))[0] == 0


async def test_a_worker_serves_health_too(start):
    settings = nowhere()
    process = await start("--role", "worker", **settings)
    assert (await until_logged(process, "serving"))["role"] == "worker"

    assert (await ended(await start("health", **settings)))[0] == 0


async def test_who_migrates_needs_not_be_told_what_the_service_alone_must(start):
    settings = {**nowhere(), "AGENT_MUST_BE_TOLD": ""}
    code, output, _ = await ended(await start("migrate", **settings))

    assert code == 0
    assert "nothing to migrate" in output


async def test_what_must_be_told_and_is_not_ends_it(start):
    code, _, errors = await ended(await start(**{**nowhere(), "AGENT_MUST_BE_TOLD": ""}))

    assert code == 2
    assert "AGENT_MUST_BE_TOLD" in errors


async def test_a_wrong_setting_is_named_without_its_value(start):
    settings = {**nowhere(), "AGENT_METRICS_PORT": "secret-word"}
    code, _, errors = await ended(await start(**settings))

    assert code == 2
    assert "AGENT_METRICS_PORT" in errors
    assert "secret-word" not in errors


async def test_a_port_that_is_taken_ends_it_with_a_reason(start):
    settings = nowhere()
    process = await start(**settings)
    await until_logged(process, "serving")
    code, output, _ = await ended(await start(**settings))

    assert code == 1
    assert settings["AGENT_LISTEN"] in output


async def test_no_log_line_has_the_passwords_of_the_settings(start):
    process = await start(**nowhere())
    await until_logged(process, "waiting for dependency")
    process.terminate()
    _, output, errors = await ended(process)

    assert "told " in output
    assert not {word for word in ("secret-word", "quiet-word") if word in output + errors}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
async def test_metrics_are_served_where_the_service_listens(start, host):
    port, metrics_port = free_ports(2)
    settings = {**nowhere(), "AGENT_LISTEN": f"{host}:{port}", "AGENT_METRICS_PORT": str(metrics_port)}
    process = await start(**settings)
    await until_logged(process, "serving")
    reader, writer = await asyncio.open_connection(host, metrics_port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    body = (await reader.read()).decode()
    writer.close()

    assert "grpc_server_started_total" in body
    assert "jobs_in_hand" in body


async def test_programs_started_while_calls_are_under_way_live():
    forking = str(Path(__file__).parent / "forking_process.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, forking, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    code, output, errors = await ended(process, seconds=60)
    assert (code, output.splitlines()[-1]) == (0, "{0}")
    # One in twenty would die; gRPC says each time that it has a hand in it.
    assert "fork" not in errors
