"""Servers of ToolService, in every mood."""

import asyncio
import importlib.util
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from grpc import aio
from loremesh.agent.v1 import agent_pb2
from loremesh.agent.v1 import tool_pb2 as pb
from loremesh.agent.v1.tool_pb2_grpc import ToolServiceServicer, add_ToolServiceServicer_to_server
from loremesh_agent.adapters.grpc_tools import GrpcToolServers
from loremesh_agent.adapters.tool_hosts import ToolHosts
from loremesh_agent.domain.tool_servers import MAX_CONTENT, Described, Kind, NewToolServer
from loremesh_agent.domain.tools import CallContext, Effect
from loremesh_agent.errors import (
    AddressForbidden,
    SchemaInvalid,
    ToolFailed,
    ToolNameClash,
    ToolServerInvalid,
    ToolServerUnavailable,
    ToolTimeout,
    ToolUnavailable,
)
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.identity import Identity
from pydantic import SecretStr

from .mcp_double import until

pytestmark = pytest.mark.unit

EXAMPLE = Path(__file__).parents[3] / "examples" / "tool_service.py"
SCHEMA = {"type": "object", "properties": {"text": {"type": "string", "maxLength": 10}}}
CONTEXT = CallContext(run_id="run-1", agent_id="default", conversation_id="c", idempotency_key="key-1")
SERVERS = GrpcToolServers(hosts=ToolHosts.parse("127.0.0.1:*"))


def tool(name: str = "echo", **fields: Any) -> pb.ToolDescription:
    schema = fields.pop("input_schema", SCHEMA)
    described = pb.ToolDescription(**{"name": name, "description": "Echoes.", **fields})
    json_format.ParseDict(schema, described.input_schema)
    return described


@dataclass
class Double(ToolServiceServicer):
    tools: list[pb.ToolDescription] = field(default_factory=lambda: [tool()])
    status: grpc.StatusCode | None = None
    mood: str = ""
    calls: list[pb.CallToolRequest] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    left: float = 0.0
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    server: Any = None
    dying: asyncio.Task[None] | None = None
    address: str = ""

    async def DescribeTools(self, request: Any, context: Any) -> pb.DescribeToolsResponse:  # noqa: N802
        if self.mood == "describes nothing":
            await asyncio.sleep(600)
        return pb.DescribeToolsResponse(tools=self.tools)

    async def CallTool(self, request: Any, context: Any) -> pb.CallToolResponse:  # noqa: N802
        self.calls.append(request)
        self.metadata, self.left = dict(context.invocation_metadata()), context.time_remaining()
        if self.status is not None:
            await context.abort(self.status, "its own words")
        match self.mood:
            case "hangs":
                try:
                    await asyncio.sleep(600)
                finally:
                    self.cancelled.set()
            case "dies":
                # By a task of its own: this one is cancelled by it.
                self.dying = asyncio.create_task(self.server.stop(None))
                await asyncio.sleep(600)
            case "floods":
                return pb.CallToolResponse(content="x" * 20_000_000)
            case "is long":
                return pb.CallToolResponse(content="ä" * 500_000)
            case "fails":
                return pb.CallToolResponse(content="It is broken.", failed=True)
        return pb.CallToolResponse(content=request.arguments["text"])


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    server, double = aio.server(options=[("grpc.max_send_message_length", -1)]), Double()
    add_ToolServiceServicer_to_server(double, server)
    double.server, double.address = server, f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield double
    await (double.dying or server.stop(None))


def server(double: Double, **fields: Any) -> NewToolServer:
    return NewToolServer(**{"id": "orders", "kind": Kind.GRPC, "address": double.address, **fields})


async def call(double: Double, **fields: Any) -> Any:
    wanted = server(double, **fields)
    (described,) = await SERVERS.describe(wanted)
    return await SERVERS.call(wanted, described, {"text": "hello"}, CONTEXT)


async def test_a_tool_is_described_and_called_as_its_caller(double: Double, who: Identity) -> None:
    described = Described(name="echo", description="Echoes.", input_schema=SCHEMA, effect=Effect.SIDE_EFFECTING)
    wanted = server(double, token=SecretStr("s3cret"), timeout_seconds=20)
    assert await SERVERS.describe(wanted) == (described,)
    result = await SERVERS.call(wanted, described, {"text": "hello"}, CONTEXT)
    assert (result.content, result.failed) == ("hello", False)
    (request,) = double.calls
    assert (request.name, request.idempotency_key, request.run_id) == ("echo", "key-1", "run-1")
    assert double.metadata["x-loremesh-tenant"] == who.tenant
    assert double.metadata["x-loremesh-principal"] == who.principal
    assert double.metadata["x-request-id"] == who.request_id
    assert double.metadata["authorization"] == "Bearer s3cret"
    assert 0 < double.left <= 20


async def test_a_whole_number_of_a_schema_is_one(double: Double, who: Identity) -> None:
    (described,) = await SERVERS.describe(server(double))
    assert repr(described.input_schema["properties"]["text"]["maxLength"]) == "10"


@pytest.mark.parametrize("effect", list(Effect))
async def test_a_tool_says_what_its_calls_may_do(double: Double, who: Identity, effect: Effect) -> None:
    double.tools = [tool("a", effect=agent_pb2.ToolEffect.Value(f"TOOL_EFFECT_{effect}")), tool("b")]
    first, second = await SERVERS.describe(server(double, default_effect=Effect.IDEMPOTENT))
    assert (first.effect, second.effect) == (effect, Effect.IDEMPOTENT)


@pytest.mark.parametrize(
    ("tools", "error"),
    [
        ([tool(f"t{n}") for n in range(1000)], ToolServerInvalid),
        ([tool("twice"), tool("twice")], ToolNameClash),
        ([tool("")], ToolServerInvalid),
        ([tool("näme")], ToolServerInvalid),
        ([tool(input_schema={})], SchemaInvalid),
        ([tool(input_schema={"type": "object", "properties": 7})], SchemaInvalid),
    ],
)
async def test_what_no_agent_could_use_is_refused(double: Double, who: Identity, tools: Any, error: type) -> None:
    double.tools = tools
    with pytest.raises(error):
        await SERVERS.describe(server(double))


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"])
async def test_the_model_is_told_what_such_a_status_says(double: Double, who: Identity, status: str) -> None:
    double.status = grpc.StatusCode[status]
    result = await call(double)
    assert (result.content, result.failed) == ("its own words", True)


@pytest.mark.parametrize("status", ["PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"])
async def test_of_a_refusal_the_model_is_told_that_it_failed(double: Double, who: Identity, status: str) -> None:
    double.status = grpc.StatusCode[status]
    with pytest.raises(ToolFailed) as raised:
        await call(double)
    assert "words" not in raised.value.message


@pytest.mark.parametrize("status", ["UNAVAILABLE", "INTERNAL", "UNKNOWN", "ABORTED", "RESOURCE_EXHAUSTED", "CANCELLED"])
async def test_any_other_status_leaves_the_outcome_open_and_is_not_repeated(
    double: Double, who: Identity, status: str
) -> None:
    double.status = grpc.StatusCode[status]
    with pytest.raises(DependencyUnavailable) as raised:
        await call(double)
    assert "words" not in raised.value.message
    assert len(double.calls) == 1
    with pytest.raises(ToolFailed):
        await call(double, default_effect=Effect.READ_ONLY)


@pytest.mark.parametrize("mood", ["dies", "floods"])
async def test_a_call_that_breaks_leaves_the_outcome_open(double: Double, who: Identity, mood: str) -> None:
    double.mood = mood
    with pytest.raises(DependencyUnavailable):
        await call(double)


async def test_a_long_answer_is_cut_and_a_failure_told(double: Double, who: Identity) -> None:
    double.mood = "is long"
    assert (await call(double)).content == "ä" * MAX_CONTENT
    double.mood = "fails"
    result = await call(double)
    assert (result.content, result.failed) == ("It is broken.", True)


async def test_a_call_that_hangs_ends_at_its_time(double: Double, who: Identity) -> None:
    double.mood = "hangs"
    with pytest.raises(ToolTimeout):
        await call(double, timeout_seconds=0.5)
    await asyncio.wait_for(double.cancelled.wait(), 10)


async def test_an_abandoned_call_ends_within_a_second(double: Double, who: Identity) -> None:
    double.mood = "hangs"
    calling = asyncio.create_task(call(double))
    await until(lambda: bool(double.calls))
    began = time.monotonic()
    calling.cancel()
    await asyncio.wait([calling])
    assert time.monotonic() - began < 1.0
    await asyncio.wait_for(double.cancelled.wait(), 10)


async def test_a_server_that_describes_nothing_was_not_called(double: Double, who: Identity) -> None:
    wanted = server(double, timeout_seconds=0.5)
    (described,) = await SERVERS.describe(wanted)
    double.mood = "describes nothing"
    with pytest.raises(ToolUnavailable):
        await SERVERS.call(wanted, described, {}, CONTEXT)
    assert double.calls == []


async def test_a_tool_that_changed_is_not_called(double: Double, who: Identity) -> None:
    wanted = server(double)
    (described,) = await SERVERS.describe(wanted)
    double.tools = [tool(description="Now it deletes.")]
    with pytest.raises(ToolUnavailable):
        await SERVERS.call(wanted, described, {"text": "hello"}, CONTEXT)
    assert double.calls == []


async def test_nobody_listens(who: Identity) -> None:
    with pytest.raises(ToolServerUnavailable):
        await SERVERS.describe(NewToolServer(id="orders", kind=Kind.GRPC, address="127.0.0.1:1"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "[::1]", "169.254.169.254", "10.0.0.1"])
async def test_addresses_inside_are_forbidden(who: Identity, host: str) -> None:
    strict = GrpcToolServers(hosts=ToolHosts())
    with pytest.raises(AddressForbidden):
        await strict.describe(NewToolServer(id="orders", kind=Kind.GRPC, address=f"https://{host}:443"))


@pytest.mark.parametrize(
    "address", ["", "host", "host:", ":1", "host:70000", "unix:/tmp/x", "dns:///a:1", "8.8.8.8:53"]
)
async def test_an_address_that_is_none_or_without_tls_is_refused(who: Identity, address: str) -> None:
    with pytest.raises(ToolServerInvalid):
        await SERVERS.describe(NewToolServer(id="orders", kind=Kind.GRPC, address=address))


async def test_the_example_serves_its_tools(who: Identity) -> None:
    spec = importlib.util.spec_from_file_location("tool_service", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    served = aio.server()
    add_ToolServiceServicer_to_server(example.OrderTools(), served)
    port = served.add_insecure_port("127.0.0.1:0")
    await served.start()
    wanted = NewToolServer(id="orders", kind=Kind.GRPC, address=f"127.0.0.1:{port}")
    state, cancel = await SERVERS.describe(wanted)
    assert (state.effect, cancel.effect) == (Effect.READ_ONLY, Effect.IDEMPOTENT)
    assert (await SERVERS.call(wanted, state, {"order": "A-1"}, CONTEXT)).content == "shipped"
    missing = await SERVERS.call(wanted, state, {"order": "B-1"}, CONTEXT)
    assert (missing.content, missing.failed) == ("There is no order 'B-1'.", True)
    for _ in range(2):
        assert (await SERVERS.call(wanted, cancel, {"order": "A-2"}, CONTEXT)).content == "It is cancelled."
    await served.stop(None)
