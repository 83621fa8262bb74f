"""What is sent through a WebSocket: events, answers and failures, as JSON text."""

from contextlib import suppress
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import status_pb2  # type: ignore[import-untyped]
from grpc import StatusCode, aio
from grpc_status import rpc_status
from loremesh_kit import identity
from loremesh_kit.errors import DependencyUnavailable, Internal, ServiceError
from loremesh_kit.interceptors.errors import status_of
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

DOMAIN = "edge.loremesh.dev"


class Line:
    """One client's WebSocket, and the name of the service it speaks to."""

    def __init__(self, socket: ServerConnection, service: str) -> None:
        """`service` is named where it cannot be reached."""
        self.socket = socket
        self._service = service

    async def send(self, name: str, message: Message) -> None:
        """Send {name: message}; raises ConnectionClosed."""
        await self.socket.send(f'{{"{name}":{printed(message)}}}')

    async def refuse(self, error: ServiceError | aio.AioRpcError) -> None:
        """Send {"error": google.rpc.Status}; raises ConnectionClosed."""
        await self.send("error", self._status(error))

    async def relay(self, call: Any) -> bool:
        """Pass on all events, and how the call failed if it did; whether it ended well. The call ends with this."""
        with suppress(ConnectionClosed):
            try:
                async for event in call:
                    await self.socket.send(printed(event))
            except aio.AioRpcError as error:
                await self.refuse(error)
            else:
                return True
            finally:
                call.cancel()
        return False

    def _status(self, error: ServiceError | aio.AioRpcError) -> status_pb2.Status:
        """What a service said of its failure; our own words where it could not say anything."""
        if isinstance(error, ServiceError):
            return status_of(error, domain=DOMAIN)
        told: status_pb2.Status | None = rpc_status.from_call(error)  # type: ignore[arg-type]
        if told is not None:
            return told
        unreachable = error.code() in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)
        return status_of(
            DependencyUnavailable(self._service) if unreachable else Internal(request_id=identity.current().request_id),
            domain=DOMAIN,
        )


def printed(message: Message) -> str:
    """JSON as the gateway's transcoder prints it."""
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=None,
        ensure_ascii=False,
    )
