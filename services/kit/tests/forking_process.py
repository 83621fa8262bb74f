"""Starts programs while gRPC calls are under way, as a service does, and prints their exit codes."""

import asyncio
import itertools

import loremesh_kit  # noqa: F401 - before gRPC  # isort: skip
import uvloop
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from loremesh_kit.server import Wired
from loremesh_kit.serving import serve
from loremesh_kit.settings import ServiceSettings

PROGRAMS = 150
CALLERS = 20


async def main() -> None:
    settings = ServiceSettings(listen="127.0.0.1:0", drain_seconds=0, grace_seconds=0)
    async with (
        serve(Wired(servicers=[]), service="forking", settings=settings) as running,
        aio.insecure_channel(running.target) as channel,
        asyncio.TaskGroup() as group,
    ):
        stub = health_pb2_grpc.HealthStub(channel)

        async def call() -> None:
            for _ in itertools.count():
                await stub.Check(health_pb2.HealthCheckRequest())

        callers = [group.create_task(call()) for _ in range(CALLERS)]
        codes = set()
        for _ in range(PROGRAMS):
            process = await asyncio.create_subprocess_exec("true")
            codes.add(await process.wait())
        for caller in callers:
            caller.cancel()
    print(codes)  # noqa: T201 - what it is for


uvloop.run(main())
