"""A bridge from WebSockets to the agent's chats: JSON messages in, the events of a run out, no meaning of its own.

A client sends one of

    {"chat": <ChatRequest>, "idempotency_key": "..."}    begins an answer; the key is optional
    {"watch": {"job_id": "...", "after_seq": "0"}}       takes up the events of a job
    {"cancel": {"job_id": "..."}}                        cancels one; the answer is {"job": <ChatJob>}

and is sent each ChatEvent as server-sent events have it. What fails otherwise is {"error": <google.rpc.Status>}, and
the socket stays open. One run at a time; when the socket closes, its run is left, which cancels a `chat`.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import status_pb2  # type: ignore[import-untyped]
from grpc import StatusCode, aio
from grpc_status import rpc_status
from loremesh.agent.v1 import chat_job_pb2, chat_pb2
from loremesh.agent.v1.chat_job_pb2_grpc import ChatJobServiceStub
from loremesh.agent.v1.chat_pb2_grpc import ChatServiceStub
from loremesh_kit import idempotency, identity
from loremesh_kit.errors import DependencyUnavailable, Internal, Overloaded, ServiceError
from loremesh_kit.interceptors.errors import status_of
from loremesh_kit.loops import background
from loremesh_kit.telemetry import traces
from opentelemetry.trace import SpanKind
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from loremesh_edge.errors import MessageInvalid, RunUnderway, WebSocketRequired

_DOMAIN = "edge.loremesh.dev"
_JSON = "application/json"
_MESSAGE_BYTES = 1024 * 1024
# Well below what the gateway and other proxies bear in silence.
_PING_SECONDS = 20.0
# A client that has read a terminal event may send the next message before we know that the run is over.
_END_SECONDS = 1.0
_REQUESTS: Mapping[str, type[Message]] = {
    "chat": chat_pb2.ChatRequest,
    "watch": chat_job_pb2.WatchChatJobRequest,
    "cancel": chat_job_pb2.CancelChatJobRequest,
}
# Each connection is told at INFO, and each one that says nothing as an error with a traceback.
_quiet = logging.getLogger("loremesh_edge.websockets")
_quiet.setLevel(logging.CRITICAL)


class ChatSocket:
    """Serves WebSockets until it is told to stop; then they are closed as going away (1001)."""

    def __init__(self, *, agent: aio.Channel, listen: str, connections: int, idle_seconds: float) -> None:
        """`listen` is host:port; a socket without a run is closed after `idle_seconds` without a message."""
        self._agent = agent
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
        refused = status_of(Overloaded("Too many WebSockets are open."), domain=_DOMAIN)
        return _json(socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, _printed(refused)))

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
                traces.span("chat socket", kind=SpanKind.SERVER, carrier=headers, attributes={}),
                suppress(ConnectionClosed),
            ):
                async with background() as group:
                    await _Conversation(socket, self._agent, group).listen(idle_seconds=self._idle_seconds)
        finally:
            self._open -= 1


def _worded(socket: ServerConnection, request: Request, response: Response) -> Response | None:
    """What the library refuses, in our words; its status and what it says beside it stay."""
    del request
    if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS or response.headers["Content-Type"] == _JSON:
        return None
    error = status_of(WebSocketRequired(), domain=_DOMAIN)
    refused = _json(socket.respond(HTTPStatus(response.status_code), _printed(error)))
    for name in ("Allow", "Upgrade"):
        if name in response.headers:
            refused.headers[name] = response.headers[name]
    return refused


def _json(response: Response) -> Response:
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = _JSON
    return response


@dataclass(frozen=True, slots=True)
class _Asked:
    """A client's message: the request of that name, and the key that came beside it."""

    name: str
    request: Any
    key: str | None


class _Conversation:
    """What is said through one socket."""

    def __init__(self, socket: ServerConnection, agent: aio.Channel, group: asyncio.TaskGroup) -> None:
        """Runs are relayed by tasks of `group`."""
        self._socket = socket
        self._group = group
        self._chats: Any = ChatServiceStub(agent)
        self._jobs: Any = ChatJobServiceStub(agent)
        self._running: asyncio.Task[None] | None = None

    async def listen(self, *, idle_seconds: float) -> None:
        """Do what the client says until it leaves; raises ConnectionClosed."""
        try:
            while True:
                try:
                    async with asyncio.timeout(idle_seconds):
                        message = await self._socket.recv()
                except TimeoutError:
                    if self._is_running():
                        continue
                    return await self._socket.close(CloseCode.NORMAL_CLOSURE, "idle")
                await self._answer(message)
        finally:
            if self._running is not None:
                self._running.cancel()

    def _is_running(self) -> bool:
        return self._running is not None and not self._running.done()

    async def _answer(self, message: str | bytes) -> None:
        try:
            asked = _read(message)
            if asked.name == "cancel":
                job = await self._jobs.CancelChatJob(asked.request)
                return await self._send("job", job)
            if self._running is not None and self._is_running():
                await asyncio.wait({self._running}, timeout=_END_SECONDS)
            if self._is_running():
                raise RunUnderway
            self._running = self._group.create_task(self._relay(self._begin(asked)))
        except (ServiceError, aio.AioRpcError) as error:
            await self._send("error", _status(error))

    def _begin(self, asked: _Asked) -> Any:
        """The call whose answers are events; raises IdempotencyKeyInvalid."""
        if asked.name == "watch":
            return self._jobs.WatchChatJob(asked.request)
        with idempotency.scope(idempotency.key() if asked.key is None else asked.key):
            key = idempotency.key()
        return self._chats.StreamChat(asked.request, metadata=[] if key is None else [(idempotency.HEADER, key)])

    async def _relay(self, call: Any) -> None:
        """Pass on all events, and how the call failed if it did; the call ends with this task."""
        with suppress(ConnectionClosed):
            try:
                async for event in call:
                    await self._socket.send(_printed(event))
            except aio.AioRpcError as error:
                await self._send("error", _status(error))
            finally:
                call.cancel()

    async def _send(self, name: str, message: Message) -> None:
        await self._socket.send(f'{{"{name}":{_printed(message)}}}')


def _read(message: str | bytes) -> _Asked:
    """Raises MessageInvalid."""
    try:
        body = json.loads(message) if isinstance(message, str) else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise MessageInvalid("A message is a JSON object, sent as text.")
    names = [name for name in body if name in _REQUESTS]
    unknown = body.keys() - {*_REQUESTS, "idempotency_key"}
    if len(names) != 1 or unknown:
        raise MessageInvalid("A message has one of the fields chat, watch and cancel, and perhaps idempotency_key.")
    given, key = body[names[0]], body.get("idempotency_key")
    if not isinstance(given, dict) or not isinstance(key, str | None):
        raise MessageInvalid(f"{names[0]} is an object, and idempotency_key is text.")
    request = _REQUESTS[names[0]]()
    try:
        # As the gateway reads a body: what a later version may know is no mistake.
        json_format.ParseDict(given, request, ignore_unknown_fields=True)
    except (json_format.Error, ValueError, TypeError, AttributeError, RecursionError):
        raise MessageInvalid(f"{names[0]} is no {request.DESCRIPTOR.name}.") from None
    return _Asked(names[0], request, key)


def _printed(message: Message) -> str:
    """JSON as the gateway's transcoder prints it."""
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=None,
        ensure_ascii=False,
    )


def _status(error: ServiceError | aio.AioRpcError) -> status_pb2.Status:
    """What a service said of its failure; our own words where it could not say anything."""
    if isinstance(error, ServiceError):
        return status_of(error, domain=_DOMAIN)
    told: status_pb2.Status | None = rpc_status.from_call(error)  # type: ignore[arg-type]
    if told is not None:
        return told
    unreachable = error.code() in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)
    return status_of(
        DependencyUnavailable("agent") if unreachable else Internal(request_id=identity.current().request_id),
        domain=_DOMAIN,
    )
