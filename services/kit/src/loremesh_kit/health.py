"""Health as grpc.health.v1 states it: the process, each of its services, and each thing it depends on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import structlog
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

OVERALL = ""
SERVICE_NAME = "grpc.health.v1.Health"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

Probe = Callable[[], Awaitable[None]]

_PROBE_SECONDS = 3.0
_log = structlog.get_logger(__name__)


def dependency(name: str) -> str:
    """The name under which a dependency's state is asked for."""
    return f"dependency/{name}"


class HealthServicer(health_aio.HealthServicer):
    """Answers Check, Watch and List; a failing dependency takes down its own name only, so the process lives on."""

    def __init__(self) -> None:
        """Nothing serves yet."""
        super().__init__()
        self._statuses: dict[str, int] = {}
        self._draining = False

    # The published type stubs lack List's messages.
    async def List(self, request: Any, context: aio.ServicerContext[Any, Any]) -> Any:  # noqa: N802 - the rpc's name
        """Every name and its state."""
        del request, context
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]

    async def set(self, service: str, status: int) -> None:
        """Record and announce one name's state; ignored once draining."""
        if not self._draining:
            self._statuses[service] = status
            await super().set(service, status)

    async def start(self, services: Iterable[str]) -> None:
        """Say that the process and these services serve."""
        for name in (OVERALL, *services):
            await self.set(name, SERVING)

    async def drain(self) -> None:
        """Say, finally, that nothing here serves."""
        for name in self._statuses:
            await self.set(name, NOT_SERVING)
        self._draining = True


async def watch(health: HealthServicer, probes: Mapping[str, Probe], *, interval: float) -> None:
    """Run every probe each `interval` seconds for ever, and tell `health` what came of it."""
    async with asyncio.TaskGroup() as group:
        for name, probe in probes.items():
            await health.set(dependency(name), NOT_SERVING)
            group.create_task(_watch_one(health, name, probe, interval))


async def _watch_one(health: HealthServicer, name: str, probe: Probe, interval: float) -> None:
    was_serving: bool | None = None
    while True:
        failure = await _failure_of(probe)
        serving = failure is None
        if serving is not was_serving:
            _report(name, failure)
        was_serving = serving
        await health.set(dependency(name), SERVING if serving else NOT_SERVING)
        await asyncio.sleep(interval if serving else min(interval, 1.0))


async def _failure_of(probe: Probe) -> str | None:
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            await probe()
    except Exception as error:  # noqa: BLE001 - whatever a driver raises means the same: it does not serve
        return f"{type(error).__name__}: {error}"
    return None


def _report(name: str, failure: str | None) -> None:
    if failure is None:
        _log.info("dependency serves", dependency=name)
    else:
        _log.warning("waiting for dependency", dependency=name, error=failure)
