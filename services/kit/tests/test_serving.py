"""Health, reflection, roles and draining, in one process."""

import asyncio
import contextlib
import dataclasses
import time

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from loremesh.agent.v1.chat_pb2 import ChatRequest
from loremesh_kit.server import Wired, serve
from loremesh_kit.settings import ServiceSettings

pytestmark = pytest.mark.unit

HELLO = ChatRequest(message="hello")
SERVICE = "loremesh.agent.v1.EchoService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def check(channel, name=""):
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    return answer.status


async def statuses(channel):
    answer = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest(), timeout=5)
    return {name: state.status for name, state in answer.statuses.items()}


async def eventually(holds, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - asked over the wire
            await asyncio.sleep(0.02)


async def test_the_process_and_each_service_serve(start_echo):
    async with start_echo() as echo:
        assert await check(echo.channel) == SERVING
        assert await check(echo.channel, SERVICE) == SERVING
        with pytest.raises(aio.AioRpcError) as raised:
            await check(echo.channel, "loremesh.nothing.v1.Nothing")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_failing_dependency_takes_down_its_own_name_only(start_echo):
    up = asyncio.Event()

    async def flaky():
        if not up.is_set():
            raise OSError

    async def fine():
        pass

    probes = {"postgres": flaky, "nats": fine}
    async with start_echo(wired={"probes": probes}, probe_seconds=0.05) as echo:

        async def settled(postgres):
            return await statuses(echo.channel) == {
                "": SERVING,
                SERVICE: SERVING,
                "dependency/nats": SERVING,
                "dependency/postgres": postgres,
            }

        await eventually(lambda: settled(NOT_SERVING))
        up.set()
        await eventually(lambda: settled(SERVING))
        up.clear()
        await eventually(lambda: settled(NOT_SERVING))
        assert await echo.call("Unary", HELLO) == [HELLO]


async def test_a_hanging_dependency_is_a_failing_one(start_echo):
    async def hang():
        await asyncio.sleep(60)

    async with start_echo(wired={"probes": {"nats": hang}}) as echo:
        assert await check(echo.channel, "dependency/nats") == NOT_SERVING
        assert await check(echo.channel) == SERVING


async def test_watchers_hear_of_changes(start_echo):
    async with start_echo(drain_seconds=0.3) as echo:
        watcher = health_pb2_grpc.HealthStub(echo.channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
        seen = [(await watcher.read()).status]
        await echo.health.drain()
        seen.append((await watcher.read()).status)
    assert seen == [SERVING, NOT_SERVING]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_and_describes(start_echo, version):
    async def requests():
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol="loremesh.agent.v1.ChatRequest")

    async with start_echo() as echo:
        info = echo.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        answers = [answer async for answer in info(requests(), timeout=5)]

    assert SERVICE in {service.name for service in answers[0].list_services_response.service}
    assert answers[1].file_descriptor_response.file_descriptor_proto


async def test_draining_says_so_first_and_still_answers_meanwhile(start_echo):
    """Load balancers get their time: NOT_SERVING is told before any call is refused."""
    stack = contextlib.AsyncExitStack()
    echo = await stack.enter_async_context(start_echo(drain_seconds=0.5))
    closing = asyncio.create_task(stack.aclose())
    async with aio.insecure_channel(echo.target) as channel:

        async def draining():
            return await check(channel) == NOT_SERVING

        await eventually(draining)
        assert await check(channel, SERVICE) == NOT_SERVING
        assert await dataclasses.replace(echo, channel=channel).call("Unary", HELLO) == [HELLO]
        await closing


async def test_calls_in_hand_finish_within_the_grace_period(start_echo):
    entered = asyncio.Event()

    async def act(request):
        entered.set()
        await asyncio.sleep(0.3)
        return request

    stack = contextlib.AsyncExitStack()
    echo = await stack.enter_async_context(start_echo(act, grace_seconds=5))
    async with aio.insecure_channel(echo.target) as channel:
        in_hand = asyncio.create_task(dataclasses.replace(echo, channel=channel).call("Unary", HELLO))
        await entered.wait()
        await stack.aclose()

        assert await in_hand == [HELLO]


async def test_calls_that_would_not_end_are_cut_off(start_echo):
    entered = asyncio.Event()

    async def act(_):
        entered.set()
        await asyncio.sleep(60)

    stack = contextlib.AsyncExitStack()
    echo = await stack.enter_async_context(start_echo(act, grace_seconds=0.2))
    async with aio.insecure_channel(echo.target) as channel:
        in_hand = asyncio.create_task(dataclasses.replace(echo, channel=channel).call("Unary", HELLO, seconds=30))
        await entered.wait()
        started = time.monotonic()
        await stack.aclose()

        with pytest.raises(aio.AioRpcError):
            await in_hand
    assert time.monotonic() - started < 5


class Recorder:
    """A worker that notes when it ran and when it was told to stop."""

    def __init__(self):
        self.ran = self.stopped = False

    async def run(self, stop):
        self.ran = True
        await stop.wait()
        self.stopped = True


@pytest.mark.parametrize(
    ("role", "works", "serves"), [("all", True, True), ("server", False, True), ("worker", True, False)]
)
async def test_a_role_decides_what_runs(start_echo, role, works, serves):
    worker, background = Recorder(), Recorder()
    async with start_echo(wired={"workers": [worker], "background": [background]}, role=role) as echo:
        await asyncio.sleep(0)
        names = await statuses(echo.channel)

    assert (worker.ran, worker.stopped) == (works, works)
    assert (background.ran, background.stopped) == (True, True)
    assert (SERVICE in names) is serves
    assert "" in names


async def test_a_worker_that_fails_ends_the_process():
    class Broken:
        async def run(self, _):
            raise RuntimeError("broken worker")

    with pytest.raises(RuntimeError, match="broken worker"):
        async with serve(
            Wired(servicers=[], workers=[Broken()]), service="agent", settings=ServiceSettings(drain_seconds=0)
        ):
            await asyncio.sleep(10)


async def test_a_worker_that_does_not_stop_is_stopped(start_echo, monkeypatch):
    monkeypatch.setattr("loremesh_kit.serving._HAND_BACK_SECONDS", 0.1)

    class Stubborn:
        async def run(self, _):
            await asyncio.sleep(60)

    started = time.monotonic()
    async with start_echo(wired={"workers": [Stubborn()]}, grace_seconds=0.1):
        pass
    assert time.monotonic() - started < 5
