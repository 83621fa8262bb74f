"""A service's command line: serve, migrate, or ask whether the one that runs is healthy."""

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import structlog
import uvloop
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from loremesh_kit.migrations import MigrationError, migrate
from loremesh_kit.serving import Role, Running, Servicer, Wired, Worker, serve
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.telemetry import logs, metrics, traces

__all__ = ["Role", "Running", "Servicer", "Wired", "Worker", "main", "serve"]

S = TypeVar("S", bound=ServiceSettings)
Wire = Callable[[S], AbstractAsyncContextManager[Wired]]
_HEALTH_SECONDS = 3.0
_log = structlog.get_logger(__name__)


def main(
    *,
    service: str,
    settings: type[S],
    wire: Wire[S],
    migrations: Traversable | Path | None = None,
) -> None:
    """`loremesh-<service> [--role server|worker|all] | migrate | health`; exits 0 when it did what it should.

    `wire` builds the service from its settings and takes it apart again; `migrations` is its folder of SQL, for a
    service with a database.
    """
    arguments = _arguments(service)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        match arguments.command:
            case "migrate":
                sys.exit(runner.run(_migrate(service, _read(_common(settings), service), migrations)))
            case "health":
                sys.exit(runner.run(_ask_health(_read(_common(settings), service).listen)))
            case _:
                sys.exit(runner.run(_run(service, _read(settings, service), wire, role=arguments.role)))


def _arguments(service: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"loremesh-{service}")
    parser.add_argument("command", nargs="?", choices=["serve", "migrate", "health"], default="serve")
    parser.add_argument("--role", choices=["server", "worker", "all"], default="all")
    return parser.parse_args()


def _common(settings: type[ServiceSettings]) -> type[ServiceSettings]:
    """What any service is told: who migrates has no need of siblings, a provider or their keys."""

    class Common(ServiceSettings):
        model_config = SettingsConfigDict(env_prefix=settings.model_config.get("env_prefix", ""))

    return Common


def _read(settings: type[S], service: str) -> S:
    """The settings in force, with logs that keep their secrets."""
    try:
        configured = settings()
    except ValidationError as error:
        # Not the error's own text: it quotes the values, secrets among them.
        for problem in error.errors(include_input=False, include_url=False, include_context=False):
            name = f"{settings.model_config.get('env_prefix', '')}{'.'.join(map(str, problem['loc']))}".upper()
            sys.stderr.write(f"{name}: {problem['msg']}\n")
        sys.exit(2)
    logs.configure(service=service, settings=configured)
    return configured


async def _run(service: str, settings: S, wire: Wire[S], *, role: Role) -> int:
    tracing = traces.configure(service=service, endpoint=settings.otel_exporter_otlp_endpoint)
    metrics.serve(settings.metrics_port, address=settings.listen.rpartition(":")[0])
    stop = _StopSignal()
    try:
        async with wire(settings) as wired, serve(wired, service=service, settings=settings, role=role):
            # All that was imported and wired stays: a collection would stop the service for 0.1 s to find that out.
            gc.freeze()
            await stop.wait()
    except asyncio.CancelledError:
        _log.warning("stopped before it was serving, or while draining")
    except Exception:  # noqa: BLE001 - the outermost edge
        _log.exception("the process failed")
        return 1
    finally:
        tracing.shutdown()
    return 0


class _StopSignal:
    """SIGTERM and SIGINT: the first ends `wait`; one before or after that cancels whatever goes on."""

    def __init__(self) -> None:
        self._received = asyncio.Event()
        self._waiting = False
        self._main = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._receive)

    async def wait(self) -> None:
        self._waiting = True
        await self._received.wait()
        self._waiting = False

    def _receive(self) -> None:
        self._received.set()
        if not self._waiting and self._main is not None:
            self._main.cancel()


async def _migrate(service: str, settings: ServiceSettings, migrations: Traversable | Path | None) -> int:
    if migrations is None:
        _log.info("nothing to migrate")
        return 0
    plain = settings.database_url.get_secret_value()
    owner = settings.migrate_database_url.get_secret_value() or plain
    role = str(conninfo_to_dict(plain)["user"])
    try:
        await migrate(owner, schema=service, role=role, directory=migrations)
    except (MigrationError, TimeoutError) as error:
        _log.error("migration failed", error=str(error) or "postgres did not answer in time")
        return 1
    return 0


async def _ask_health(target: str) -> int:
    async with aio.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_HEALTH_SECONDS)
        except aio.AioRpcError as error:
            _log.warning("unhealthy", target=target, code=error.code().name)
            return 1
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1
