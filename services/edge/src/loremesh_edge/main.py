"""Builds the edge service and runs it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import resources
from typing import Any

from grpc import aio
from loremesh.edge.v1 import edge_pb2_grpc
from loremesh_kit import health, reflection
from loremesh_kit.channel import open_channel
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.server import main as serve_main

from loremesh_edge import contracts
from loremesh_edge.adapters.health import GrpcHealth
from loremesh_edge.readiness import Readiness
from loremesh_edge.servicer import EdgeServicer
from loremesh_edge.settings import EdgeSettings
from loremesh_edge.sockets import Sockets

_EDGE = "loremesh.edge.v1.EdgeService"
_REFLECTION = "grpc.reflection.v1.ServerReflection"


@asynccontextmanager
async def wire(settings: EdgeSettings) -> AsyncIterator[Wired]:
    """The service, with a channel to each of its sisters."""
    async with AsyncExitStack() as stack:
        channels = {
            name: await stack.enter_async_context(open_channel(target)) for name, target in settings.targets.items()
        }
        services = {name: GrpcHealth(channel, seconds=settings.readiness_seconds) for name, channel in channels.items()}
        servicer = EdgeServicer(
            readiness=Readiness(services=services, seconds=settings.readiness_seconds),
            openapi=resources.files("loremesh_edge").joinpath("openapi.json").read_bytes(),
        )
        yield Wired(
            servicers=(
                # First, and so before the kit's own, which would name the edge service alone.
                Servicer(add=_reflect_the_mesh, servicer=None, name=_REFLECTION),
                Servicer(add=edge_pb2_grpc.add_EdgeServiceServicer_to_server, servicer=servicer, name=_EDGE),
            ),
            background=(
                Sockets(
                    agent=channels["agent"],
                    crew=channels["crew"],
                    listen=settings.websocket_listen,
                    connections=settings.websocket_connections,
                    idle_seconds=settings.websocket_idle_seconds,
                ),
            ),
        )


def _reflect_the_mesh(_: Any, server: aio.Server) -> None:
    reflection.add(server, [*contracts.public_services(), health.SERVICE_NAME])


def main() -> None:
    """Serve."""
    serve_main(service="edge", settings=EdgeSettings, wire=wire)


if __name__ == "__main__":
    main()
