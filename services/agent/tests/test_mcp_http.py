"""MCP servers over streamable HTTP, in every mood."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from loremesh_agent.adapters.mcp_http import McpHttpServers
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
from mcp import types
from pydantic import SecretStr

from .mcp_double import SCHEMA, Double, serving_mcp, tool, until

pytestmark = pytest.mark.unit

CONTEXT = CallContext(run_id="run-1", agent_id="default", conversation_id="c", idempotency_key="key-1")
SERVERS = McpHttpServers(hosts=ToolHosts.parse("127.0.0.1:*"))


@pytest.fixture(params=["events", "json", "stateless"])
async def any_double(request: pytest.FixtureRequest) -> AsyncIterator[Double]:
    options = {"events": {}, "json": {"json_response": True}, "stateless": {"stateless_http": True}}[request.param]
    async with serving_mcp(Double(), **options) as double:
        yield double


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    async with serving_mcp(Double()) as double:
        yield double


def server(double: Double, **fields: Any) -> NewToolServer:
    return NewToolServer(**{"id": "web", "kind": Kind.MCP_HTTP, "address": double.url, **fields})


async def call(double: Double, name: str = "echo", *, text: str = "hello", **fields: Any) -> Any:
    wanted = server(double, **fields)
    (described,) = [each for each in await SERVERS.describe(wanted) if each.name == name]
    return await SERVERS.call(wanted, described, {"text": text}, CONTEXT)


async def test_a_tool_is_described_and_called(any_double: Double) -> None:
    described = Described(name="echo", description="The tool echo.", input_schema=SCHEMA, effect=Effect.SIDE_EFFECTING)
    assert await SERVERS.describe(server(any_double)) == (described,)
    result = await call(any_double)
    assert (result.content, result.failed) == ("hello\n!", False)
    assert any_double.calls[0].meta["dev.loremesh/idempotencyKey"] == "key-1"


async def test_the_token_is_sent_with_every_request_and_stands_in_no_error(double: Double) -> None:
    await call(double, token=SecretStr("s3cret"))
    assert double.tokens == {"Bearer s3cret"}
    wanted = server(double, token=SecretStr("s3cret"))
    assert "s3cret" not in repr(wanted)


async def test_tools_come_in_pages(double: Double) -> None:
    double.tools, double.page_size = [tool(f"t{n}") for n in range(64)], 10
    assert len(await SERVERS.describe(server(double))) == 64


@pytest.mark.parametrize(
    ("tools", "error"),
    [
        ([tool(f"t{n}") for n in range(1000)], ToolServerInvalid),
        ([tool("twice"), tool("twice")], ToolNameClash),
        ([tool("a name with spaces")], ToolServerInvalid),
        ([tool("n" * 65)], ToolServerInvalid),
        ([tool("n" * 60)], ToolServerInvalid),
        ([tool(input_schema={"type": "object", "properties": 7})], SchemaInvalid),
        ([tool(input_schema={"type": "object", "description": "x" * 40_000})], SchemaInvalid),
        ([tool(input_schema={"type": "object", "$ref": "#"})], SchemaInvalid),
        ([tool(input_schema={"type": "object", "$ref": "http://127.0.0.1/schema"})], SchemaInvalid),
    ],
)
async def test_what_no_agent_could_use_is_refused(double: Double, tools: list[types.Tool], error: type) -> None:
    double.tools = tools
    with pytest.raises(error):
        await SERVERS.describe(server(double))


async def test_a_list_without_an_end_is_refused(double: Double) -> None:
    double.tools, double.mood, double.moody = [], "endless", ""
    with pytest.raises(ToolServerInvalid):
        await SERVERS.describe(server(double))


async def test_a_deep_schema_is_refused(double: Double) -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(20):
        schema = {"type": "object", "properties": {"inner": schema}}
    double.tools = [tool(input_schema=schema)]
    with pytest.raises(SchemaInvalid):
        await SERVERS.describe(server(double))


@pytest.mark.parametrize(
    ("default", "hints", "effect"),
    [
        (Effect.SIDE_EFFECTING, {"read_only_hint": True}, Effect.SIDE_EFFECTING),
        (Effect.READ_ONLY, {"read_only_hint": False}, Effect.SIDE_EFFECTING),
        (Effect.READ_ONLY, {"destructive_hint": True}, Effect.SIDE_EFFECTING),
        (Effect.READ_ONLY, {"idempotent_hint": True}, Effect.IDEMPOTENT),
        (Effect.IDEMPOTENT, {"title": "No hint at all"}, Effect.IDEMPOTENT),
        (Effect.READ_ONLY, {}, Effect.READ_ONLY),
    ],
)
async def test_a_hint_is_believed_only_where_it_asks_for_more_care(
    double: Double, default: Effect, hints: dict[str, Any], effect: Effect
) -> None:
    double.tools = [tool(annotations=types.ToolAnnotations(**hints))]
    (described,) = await SERVERS.describe(server(double, default_effect=default))
    assert described.effect is effect


async def test_what_is_no_text_is_described(double: Double) -> None:
    double.tools = [tool("picture"), tool("figures")]
    assert (await call(double, "picture")).content == (
        "[no text but image/png]\nof a resource\n[a resource, b: file:///b]"
    )
    assert (await call(double, "figures")).content == '{"answer": 42}'


async def test_a_failure_is_a_failed_result_in_the_tools_words(double: Double) -> None:
    double.tools = [tool("fails"), tool("picky"), tool("gone")]
    for name, words in (("fails", "It is broken."), ("picky", "{'text': 'hello'} will not do")):
        result = await call(double, name)
        assert (result.content, result.failed) == (words, True)


async def test_a_long_answer_is_cut(double: Double) -> None:
    double.tools = [tool("long")]
    assert (await call(double, "long")).content == "ä" * MAX_CONTENT


@pytest.mark.parametrize(
    "mood", ["garbage", "page", "error", "flood", "flood-events", "bomb", "redirect", "dies", "lies"]
)
async def test_a_server_that_misbehaves_is_of_no_use(double: Double, mood: str) -> None:
    double.mood, double.moody = mood, "*"
    with pytest.raises(ToolServerUnavailable) as raised:
        await SERVERS.describe(server(double))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "mood", ["garbage", "page", "error", "flood", "flood-events", "bomb", "redirect", "dies", "lies"]
)
async def test_whether_a_call_that_broke_had_its_effect_is_left_open(double: Double, mood: str) -> None:
    double.mood = mood
    with pytest.raises(DependencyUnavailable):
        await call(double)
    assert double.methods.count("tools/call") == 1
    with pytest.raises(ToolFailed):
        await call(double, default_effect=Effect.READ_ONLY)


async def test_a_call_that_hangs_ends_at_its_time_and_is_not_repeated(double: Double) -> None:
    double.mood = "hang"
    with pytest.raises(ToolTimeout):
        await call(double, timeout_seconds=0.5)
    await asyncio.wait_for(double.cancelled.wait(), 5)
    assert double.methods.count("tools/call") == 1


async def test_a_call_that_is_never_sent_did_not_happen(double: Double) -> None:
    wanted = server(double, timeout_seconds=0.5)
    (described,) = await SERVERS.describe(wanted)
    double.mood, double.moody = "hang", "tools/list"
    with pytest.raises(ToolUnavailable):
        await SERVERS.call(wanted, described, {"text": ""}, CONTEXT)
    double.moody = "*"
    with pytest.raises(ToolUnavailable):
        await SERVERS.call(wanted, described, {"text": ""}, CONTEXT)
    assert double.calls == []


async def test_an_abandoned_call_ends_within_a_second(double: Double) -> None:
    double.mood = "hang"
    calling = asyncio.create_task(call(double))
    await until(lambda: "tools/call" in double.methods)
    began = time.monotonic()
    double.moody = "*"
    calling.cancel()
    await asyncio.wait([calling])
    assert time.monotonic() - began < 1.0
    await asyncio.wait_for(double.cancelled.wait(), 5)


@pytest.mark.parametrize("change", [{"description": "Now it deletes."}, {"input_schema": {"type": "object"}}, None])
async def test_a_tool_that_changed_is_not_called(double: Double, change: dict[str, Any] | None) -> None:
    wanted = server(double)
    (described,) = await SERVERS.describe(wanted)
    double.tools = [] if change is None else [tool(**change)]
    with pytest.raises(ToolUnavailable):
        await SERVERS.call(wanted, described, {"text": "hello"}, CONTEXT)
    assert double.calls == []


async def test_new_tools_of_a_server_are_no_concern_of_the_old_ones(double: Double) -> None:
    wanted = server(double)
    (described,) = await SERVERS.describe(wanted)
    double.tools.append(tool("new"))
    assert (await SERVERS.call(wanted, described, {"text": "hello"}, CONTEXT)).content == "hello\n!"


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "2130706433", "0x7f.1", "169.254.169.254", "10.0.0.1", "0.0.0.0"),
        *("100.64.0.1", "192.168.1.1", "224.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[fd00::1]"),
        *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "168.63.129.16"),
    ],
)
async def test_addresses_inside_are_forbidden_in_every_notation(host: str) -> None:
    strict = McpHttpServers(hosts=ToolHosts.parse("127.0.0.1:1"))
    wanted = NewToolServer(id="web", kind=Kind.MCP_HTTP, address=f"https://{host}/mcp")
    with pytest.raises(AddressForbidden):
        await strict.describe(wanted)
    (described,) = [Described(name="echo", description="", input_schema=SCHEMA, effect=Effect.READ_ONLY)]
    with pytest.raises(AddressForbidden):
        await strict.call(wanted, described, {}, CONTEXT)


@pytest.mark.parametrize(
    "address", ["", "ftp://127.0.0.1/", "http://8.8.8.8/mcp", "https://", "https://u:p@127.0.0.1/", "https://a:x/"]
)
async def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ToolServerInvalid):
        await SERVERS.describe(NewToolServer(id="web", kind=Kind.MCP_HTTP, address=address))


async def test_nobody_listens() -> None:
    with pytest.raises(ToolServerUnavailable):
        await SERVERS.describe(NewToolServer(id="web", kind=Kind.MCP_HTTP, address="http://127.0.0.1:1/mcp"))
