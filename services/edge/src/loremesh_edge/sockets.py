"""Serves WebSockets: chats with the agent (`chat_socket`) and, under a run's path, its events (`run_socket`)."""

import asyncio
import logging
import re
from contextlib import suppress
from http import HTTPStatus

from grpc import aio
from loremesh_kit import idempotency, identity
from loremesh_kit.errors import Overloaded
from loremesh_kit.interceptors.errors import status_of
from loremesh_kit.loops import background
from loremesh_kit.telemetry import traces
from opentelemetry.trace import SpanKind
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from loremesh_edge.chat_socket import Conversation
from loremesh_edge.errors import WebSocketRequired
from loremesh_edge.line import DOMAIN, Line, printed
from loremesh_edge.run_socket import watch

_JSON = "application/json"
_MESSAGE_BYTES = 1024 * 1024
# Well below what the gateway and other proxies bear in silence.
_PING_SECONDS = 20.0
# The gateway lets through this path and that of chats.
_RUN = re.compile("/api/v1/runs/([^/]+)/ws")
# Each connection is told at INFO, and each one that says nothing as an error with a traceback.
_quiet = logging.getLogger("loremesh_edge.websockets")
_quiet.setLevel(logging.CRITICAL)


class Sockets:
    """Serves WebSockets until it is told to stop; then they are closed as going away (1001)."""

    def __init__(
        self, *, agent: aio.Channel, crew: aio.Channel, listen: str, connections: int, idle_seconds: float
    ) -> None:
        """`listen` is host:port; a socket of chats without a run is closed after `idle_seconds` without a message."""
        self._agent = agent
        self._crew = crew
        self._listen = listen
        self._connections = connections
        self._idle_seconds = idle_seconds
        self._open = 0

    async def run(self, stop: asyncio.Event) -> None:
        """See Worker."""
        host, _, port = self._listen.rpartition(":")
        async with serve(
            self._converse,
            host,
            int(port),
            process_request=self._admit,
            process_response=_worded,
            max_size=_MESSAGE_BYTES,
            compression=None,
            ping_interval=_PING_SECONDS,
            ping_timeout=_PING_SECONDS,
            server_header=None,
            logger=_quiet,
        ):
            await stop.wait()

    def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        """Refuse one too many; whose it is and where its page comes from, the gateway has seen to."""
        del request
        if self._open < self._connections:
            return None
        refused = status_of(Overloaded("Too many WebSockets are open."), domain=DOMAIN)
        return _json(socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, printed(refused)))

    async def _converse(self, socket: ServerConnection) -> None:
        headers = {} if socket.request is None else {k.lower(): v for k, v in socket.request.headers.raw_items()}
        who = identity.Identity(
            tenant=headers.get(identity.TENANT_HEADER, ""),
            principal=headers.get(identity.PRINCIPAL_HEADER, ""),
            request_id=headers.get(identity.REQUEST_ID_HEADER, ""),
        )
        self._open += 1
        try:
            with (
                identity.scope(who),
                idempotency.scope(headers.get(idempotency.HEADER)),
                traces.span("web socket", kind=SpanKind.SERVER, carrier=headers, attributes={}),
                suppress(ConnectionClosed),
            ):
                async with background() as group:
                    await self._speak(socket, group)
        finally:
            self._open -= 1

    async def _speak(self, socket: ServerConnection, group: asyncio.TaskGroup) -> None:
        path, _, query = ("" if socket.request is None else socket.request.path).partition("?")
        run = _RUN.fullmatch(path)
        if run is not None:
            await watch(Line(socket, "crew"), self._crew, group, run_id=run[1], query=query)
        else:
            await Conversation(Line(socket, "agent"), self._agent, group).listen(idle_seconds=self._idle_seconds)


def _worded(socket: ServerConnection, request: Request, response: Response) -> Response | None:
    """What the library refuses, in our words; its status and what it says beside it stay."""
    del request
    if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS or response.headers["Content-Type"] == _JSON:
        return None
    error = status_of(WebSocketRequired(), domain=DOMAIN)
    refused = _json(socket.respond(HTTPStatus(response.status_code), printed(error)))
    for name in ("Allow", "Upgrade"):
        if name in response.headers:
            refused.headers[name] = response.headers[name]
    return refused


def _json(response: Response) -> Response:
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = _JSON
    return response
