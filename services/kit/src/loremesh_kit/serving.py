"""A gRPC server with everything a service has, its workers, and how both stop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import structlog
from grpc import aio
from grpc_health.v1 import health_pb2_grpc

from loremesh_kit import health, reflection
from loremesh_kit.channel import MESSAGE_CAP
from loremesh_kit.interceptors import (
    AdmissionInterceptor,
    Chain,
    DeadlineInterceptor,
    ErrorInterceptor,
    IdempotencyInterceptor,
    IdentityInterceptor,
    TelemetryInterceptor,
    ValidationInterceptor,
)
from loremesh_kit.loops import background
from loremesh_kit.postgres import Database
from loremesh_kit.settings import ServiceSettings

Role = Literal["server", "worker", "all"]

# Workers get the grace period for what is in hand, and this to hand back the rest.
_HAND_BACK_SECONDS = 5.0

_OPTIONS = (
    # Two processes on one port would not share its calls: the kernel gives one of them all.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_CAP),
    ("grpc.max_send_message_length", MESSAGE_CAP),
    # Our clients ping each 30 s and Envoy as it likes; without leave they would be cut off for it.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Servicer:
    """A servicer, the generated function that adds it to a server, and its full service name."""

    add: Callable[[Any, aio.Server], None]
    servicer: object
    name: str


class Worker(Protocol):
    """Something that works beside the server for the life of the process."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish or hand back what is in hand and return."""
        ...


@dataclass(frozen=True, kw_only=True)
class Wired:
    """What a service is made of, ready to run.

    `workers` run in the roles worker and all, `background` in every role. `probes` raise while the dependency of
    that name is down. `long_lived` are full method names (`/package.Service/Method`) outside the admission limit
    and the default deadline; of those in `every_message` each streamed request must be complete, not just the first.
    Those in `idempotent` are unary, change nothing but `database`, and have one effect when repeated under their key.
    """

    servicers: Sequence[Servicer]
    workers: Sequence[Worker] = ()
    background: Sequence[Worker] = ()
    probes: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    long_lived: frozenset[str] = frozenset()
    every_message: frozenset[str] = frozenset()
    idempotent: frozenset[str] = frozenset()
    database: Database | None = None


@dataclass(frozen=True)
class Running:
    """A server that serves; `target` is its host:port."""

    target: str
    health: health.HealthServicer


@asynccontextmanager
async def serve(
    wired: Wired,
    *,
    service: str,
    settings: ServiceSettings,
    role: Role = "all",
) -> AsyncIterator[Running]:
    """Serve while the block runs, then drain: say so, wait for it to be noticed, finish what is in hand.

    A worker that fails ends the block with its exception.
    """
    server = aio.server(interceptors=[_chain(wired, service=service, settings=settings)], options=_OPTIONS)
    servicers = () if role == "worker" else wired.servicers
    states = health.HealthServicer()
    port = _add_services(server, servicers, states, listen=settings.listen)
    workers = (*wired.background, *(() if role == "server" else wired.workers))
    stop = asyncio.Event()
    async with background() as group:
        working = [group.create_task(worker.run(stop)) for worker in workers]
        watching = group.create_task(health.watch(states, wired.probes, interval=settings.probe_seconds))
        try:
            await server.start()
            await states.start(servicer.name for servicer in servicers)
            running = Running(target=f"{settings.listen.rpartition(':')[0]}:{port}", health=states)
            _log.info("serving", target=running.target, role=role)
            yield running
        finally:
            _log.info("draining", seconds=settings.drain_seconds)
            await states.drain()
            await asyncio.sleep(settings.drain_seconds)
            stop.set()
            await server.stop(settings.grace_seconds)
            await _finish(working, seconds=settings.grace_seconds + _HAND_BACK_SECONDS)
            watching.cancel()
    _log.info("stopped")


async def _finish(working: Sequence[asyncio.Task[None]], *, seconds: float) -> None:
    if not working:
        return
    _, late = await asyncio.wait(working, timeout=seconds)
    for task in late:
        _log.error("a worker did not stop in time", worker=task.get_name())
        task.cancel()


def _add_services(
    server: aio.Server,
    servicers: Sequence[Servicer],
    states: health.HealthServicer,
    *,
    listen: str,
) -> int:
    for servicer in servicers:
        servicer.add(servicer.servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(states, server)
    reflection.add(server, [*(servicer.name for servicer in servicers), health.SERVICE_NAME])
    return server.add_insecure_port(listen)


def _chain(wired: Wired, *, service: str, settings: ServiceSettings) -> Chain:
    return Chain(
        [
            TelemetryInterceptor(),
            ErrorInterceptor(service=service),
            IdentityInterceptor(),
            DeadlineInterceptor(default=settings.default_deadline_seconds, long_lived=wired.long_lived),
            AdmissionInterceptor(limit=settings.admission_limit, long_lived=wired.long_lived),
            ValidationInterceptor(every_message=wired.every_message),
            IdempotencyInterceptor(database=wired.database, methods=wired.idempotent),
        ],
    )
