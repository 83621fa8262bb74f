"""Crews and flows at work while things break: callers who start runs, the tool they use, and the humans they ask."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from google.protobuf import json_format
from grpc import aio
from loremesh.agent.v1 import agent_pb2
from loremesh.agent.v1 import tool_pb2 as pb
from loremesh.agent.v1.tool_pb2_grpc import ToolServiceServicer, add_ToolServiceServicer_to_server

from tests.ordeal.clients import Clients
from tests.ordeal.stores import RunRow

CREW, FLOW = "ordeal-crew", "ordeal-flow"
TOOL_SERVER, TOOL = "ordeal", "note"
_PAUSE_SECONDS = 0.5
_REPLAY_SECONDS = 30.0
_NOTE = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
_RETRY = {"max_attempts": 10, "initial_pause": "1s"}


def _task(name: str, description: str, *depends_on: str, agent: str = "writer") -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "agent": agent,
        "depends_on": list(depends_on),
        "retry": _RETRY,
    }


_TASKS = [
    _task("facts", "Note {mark} down.", agent="keeper"),
    _task("left", "Write the left half.", "facts"),
    _task("right", "Write the other half.", "facts"),
    _task("report", "Put them together.", "left", "right"),
]
_KEEPER: dict[str, Any] = {
    "name": "keeper",
    "role": "Keeper",
    "goal": "Keep a log.",
    "tools": [{"name": f"{TOOL_SERVER}__{TOOL}", "approval": "APPROVAL_POLICY_NEVER"}],
}
_WRITER: dict[str, Any] = {"name": "writer", "role": "Writer", "goal": "Write."}
_REVIEWED = {"name": "review", "description": "Write a line on {mark}.", "human_input": {}, "retry": _RETRY}


class Notes(ToolServiceServicer):
    """A tool that changes something each time it is called, and remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.texts: Counter[str] = Counter()

    async def DescribeTools(  # noqa: N802
        self, request: pb.DescribeToolsRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.DescribeToolsResponse:
        """The one."""
        del request, context
        tool = pb.ToolDescription(name=TOOL, description="Notes a text.", effect=agent_pb2.TOOL_EFFECT_SIDE_EFFECTING)
        json_format.ParseDict(_NOTE, tool.input_schema)
        return pb.DescribeToolsResponse(tools=[tool])

    async def CallTool(  # noqa: N802
        self, request: pb.CallToolRequest, context: aio.ServicerContext[Any, Any]
    ) -> pb.CallToolResponse:
        """Note it."""
        del context
        self.calls[request.idempotency_key] += 1
        self.texts[str(json_format.MessageToDict(request.arguments).get("text", ""))] += 1
        return pb.CallToolResponse(content="Noted.")


@dataclass(kw_only=True)
class Crews:
    """Whoever starts runs, and whoever is asked by them."""

    clients: Clients
    notes: Notes = field(default_factory=Notes)
    tool_address: str = ""

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Have the crew and the flow, and somebody who decides what runs ask."""
        for path, body in (
            ("tool-servers", {"id": TOOL_SERVER, "kind": "TOOL_SERVER_KIND_GRPC", "address": self.tool_address}),
            ("crews", _crew()),
            ("flows", _flow()),
        ):
            (await self.clients.http.post(f"/api/v1/{path}", json=body)).raise_for_status()
        deciding = asyncio.create_task(self._decide())
        try:
            yield
        finally:
            deciding.cancel()

    async def kickoff(self, number: int) -> None:
        """Start a run of the crew or of the flow, until it is accepted."""
        kind, mark = ("crews", CREW) if number % 3 else ("flows", FLOW), f"mark-{self.clients.seed}-{number}"
        path = f"/api/v1/{kind[0]}/{kind[1]}/kickoff"
        await self.clients.accepted("run", path, {"inputs": {"mark": mark}}, key=mark, id_field="id")

    async def _decide(self) -> None:
        """Accept outputs; of a call whose end nobody knows, say that it failed."""
        http = self.clients.http
        while True:
            await asyncio.sleep(_PAUSE_SECONDS)
            try:
                pending = (await http.get("/api/v1/approvals")).raise_for_status().json().get("approvals", ())
                for each in pending:
                    unknown = each["kind"] == "APPROVAL_KIND_REVIEW"
                    decision = {"decision": "DECISION_DENY" if unknown else "DECISION_APPROVE"}
                    await http.post(f"/api/v1/approvals/{each['id']}/decide", json=decision)
            except (httpx.HTTPError, ValueError):
                continue

    async def replayed(self, rows: Mapping[str, RunRow]) -> dict[str, int]:
        """In how many decisions each run's replay differs; -1 where it cannot be replayed."""
        found = {}
        for run_id in rows:
            until = time.monotonic() + _REPLAY_SECONDS
            while True:
                try:
                    answer = await self.clients.http.post(f"/api/v1/runs/{run_id}/replay", json={})
                    found[run_id] = len(answer.raise_for_status().json().get("differences", ()))
                except (httpx.HTTPError, ValueError):
                    if time.monotonic() > until:
                        found[run_id] = -1
                    else:
                        await asyncio.sleep(_PAUSE_SECONDS)
                        continue
                break
        return found


@asynccontextmanager
async def noting() -> AsyncIterator[tuple[Notes, str]]:
    """Serve the tool on loopback; yields it and its address."""
    notes, server = Notes(), aio.server()
    add_ToolServiceServicer_to_server(notes, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield notes, f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def _crew() -> dict[str, Any]:
    return {"id": CREW, "agents": [_KEEPER, _WRITER], "tasks": _TASKS, "process": "PROCESS_PARALLEL"}


def _flow() -> dict[str, Any]:
    """A crew, then a line that a human accepts; from a failure it begins again after a second."""
    return {
        "id": FLOW,
        "states": [
            {"id": "draft", "initial": True, "crew": {"crew_id": CREW}},
            {"id": "check", "agent": {"agent": _WRITER, "task": _REVIEWED}},
            {"id": "rest", "wait": {"duration": "1s"}},
            {"id": "done", "final": True},
        ],
        "transitions": [
            {"from": "draft", "to": "check", "condition": {"on_success": {}}},
            {"from": "check", "to": "done", "condition": {"on_success": {}}},
            {"from": "check", "to": "rest", "condition": {"on_failure": {}}},
            {"from": "rest", "to": "check"},
            # A draft is not begun twice: what it noted would be noted twice.
            {"from": "draft", "to": "done", "condition": {"on_failure": {}}},
        ],
        "max_iterations": 50,
    }
