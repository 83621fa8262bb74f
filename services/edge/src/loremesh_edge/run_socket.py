"""A bridge from a WebSocket to the events of one run of a crew or flow, which are all that goes through it.

The client is sent each RunEvent as server-sent events have it, then the socket is closed: normally (1000) behind the
last one, else as an error (1011) behind {"error": <google.rpc.Status>}. A client that leaves ends the watching, not the
run.
"""

import asyncio
from typing import Any
from urllib.parse import parse_qsl, unquote

from google.protobuf import json_format
from grpc import aio
from loremesh.crew.v1 import run_pb2
from loremesh.crew.v1.run_pb2_grpc import RunServiceStub
from loremesh_kit.errors import InvalidField
from websockets.frames import CloseCode

from loremesh_edge.errors import MessageInvalid
from loremesh_edge.line import Line


async def watch(line: Line, crew: aio.Channel, group: asyncio.TaskGroup, *, run_id: str, query: str) -> None:
    """Pass on the run's events until they or the client end; raises ConnectionClosed. Both texts are the URL's own."""
    try:
        request = _read(run_id, query)
    except InvalidField as error:
        await line.refuse(error)
        return await line.socket.close(CloseCode.INTERNAL_ERROR)
    runs: Any = RunServiceStub(crew)
    group.create_task(_follow(line, runs.WatchRun(request)))
    # Read even though nothing is awaited: a client's leaving is not seen behind messages that wait.
    while True:
        await line.socket.recv()
        await line.refuse(MessageInvalid("This WebSocket tells a run's events and takes no messages."))


async def _follow(line: Line, call: Any) -> None:
    ended_well = await line.relay(call)
    await line.socket.close(CloseCode.NORMAL_CLOSURE if ended_well else CloseCode.INTERNAL_ERROR)


def _read(run_id: str, query: str) -> run_pb2.WatchRunRequest:
    """Raises InvalidField."""
    try:
        given = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        request: run_pb2.WatchRunRequest = json_format.ParseDict(given, run_pb2.WatchRunRequest())
    except (json_format.Error, ValueError):
        raise InvalidField("The one parameter is after_seq, a whole number.", field="after_seq") from None
    request.run_id = unquote(run_id)
    return request
