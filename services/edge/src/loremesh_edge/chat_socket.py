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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from grpc import aio
from loremesh.agent.v1 import chat_job_pb2, chat_pb2
from loremesh.agent.v1.chat_job_pb2_grpc import ChatJobServiceStub
from loremesh.agent.v1.chat_pb2_grpc import ChatServiceStub
from loremesh_kit import idempotency
from loremesh_kit.errors import ServiceError
from websockets.frames import CloseCode

from loremesh_edge.errors import MessageInvalid, RunUnderway
from loremesh_edge.line import Line

# A client that has read a terminal event may send the next message before we know that the run is over.
_END_SECONDS = 1.0
_REQUESTS: Mapping[str, type[Message]] = {
    "chat": chat_pb2.ChatRequest,
    "watch": chat_job_pb2.WatchChatJobRequest,
    "cancel": chat_job_pb2.CancelChatJobRequest,
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A client's message: the request of that name, and the key that came beside it."""

    name: str
    request: Any
    key: str | None


class Conversation:
    """What is said through one socket."""

    def __init__(self, line: Line, agent: aio.Channel, group: asyncio.TaskGroup) -> None:
        """Runs are relayed by tasks of `group`."""
        self._line = line
        self._group = group
        self._chats: Any = ChatServiceStub(agent)
        self._jobs: Any = ChatJobServiceStub(agent)
        self._running: asyncio.Task[bool] | None = None

    async def listen(self, *, idle_seconds: float) -> None:
        """Do what the client says until it leaves; raises ConnectionClosed."""
        try:
            while True:
                try:
                    async with asyncio.timeout(idle_seconds):
                        message = await self._line.socket.recv()
                except TimeoutError:
                    if self._is_running():
                        continue
                    return await self._line.socket.close(CloseCode.NORMAL_CLOSURE, "idle")
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
                return await self._line.send("job", job)
            if self._running is not None and self._is_running():
                await asyncio.wait({self._running}, timeout=_END_SECONDS)
            if self._is_running():
                raise RunUnderway
            self._running = self._group.create_task(self._line.relay(self._begin(asked)))
        except (ServiceError, aio.AioRpcError) as error:
            await self._line.refuse(error)

    def _begin(self, asked: _Asked) -> Any:
        """The call whose answers are events; raises IdempotencyKeyInvalid."""
        if asked.name == "watch":
            return self._jobs.WatchChatJob(asked.request)
        with idempotency.scope(idempotency.key() if asked.key is None else asked.key):
            key = idempotency.key()
        return self._chats.StreamChat(asked.request, metadata=[] if key is None else [(idempotency.HEADER, key)])


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
