"""An MCP server made with the SDK, and what can go wrong between it and its client."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from loremesh_kit.loops import background
from mcp import types
from mcp.server.lowlevel import Server

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
ENDLESS = b" " * 65_536


def tool(name: str = "echo", **fields: Any) -> types.Tool:
    return types.Tool(**{"name": name, "description": f"The tool {name}.", "input_schema": SCHEMA, **fields})


@dataclass
class Double:
    """What it has, what it was asked, and how it feels while it is asked for `moody`."""

    tools: list[types.Tool] = field(default_factory=lambda: [tool()])
    page_size: int = 1000
    mood: str = ""
    moody: str = "tools/call"
    calls: list[types.CallToolRequestParams] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    methods: list[str] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def list_tools(self, _: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        start = int(params.cursor) if params and params.cursor else 0
        end = start + self.page_size
        more = str(end) if self.mood == "endless" or end < len(self.tools) else None
        return types.ListToolsResult(tools=self.tools[start:end], next_cursor=more)

    async def call_tool(self, _: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        self.calls.append(params)
        given = params.arguments or {}
        match params.name:
            case "picture":
                resource = types.TextResourceContents(uri="file:///a", text="of a resource")
                content = [
                    types.ImageContent(data="AAAA", mime_type="image/png"),
                    types.EmbeddedResource(resource=resource),
                    types.ResourceLink(name="b", uri="file:///b"),
                ]
                return types.CallToolResult(content=content)
            case "figures":
                return types.CallToolResult(content=[], structured_content={"answer": 42})
            case "long":
                return types.CallToolResult(content=[types.TextContent(text="ä" * 200_000)])
            case "fails":
                return types.CallToolResult(content=[types.TextContent(text="It is broken.")], is_error=True)
            case "picky":
                raise_invalid(f"{given} will not do")
        return types.CallToolResult(
            content=[types.TextContent(text=given.get("text", "")), types.TextContent(text="!")]
        )

    def server(self) -> Server[Any]:
        return Server("double", on_list_tools=self.list_tools, on_call_tool=self.call_tool)


def raise_invalid(message: str) -> None:
    from mcp import MCPError

    raise MCPError(code=types.INVALID_PARAMS, message=message)


class _Moody:
    """Between client and server: whatever may happen on the way."""

    def __init__(self, app: Any, double: Double) -> None:
        self._app = app
        self._double = double

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, method = await _read(receive)
        double = self._double
        double.methods.append(method or scope["method"])
        double.tokens |= {value.decode() for name, value in scope["headers"] if name == b"authorization"}
        if double.mood and double.moody in (method, "*") and scope["method"] == "POST":
            await self._misbehave(double.mood, body, receive, send)
            return
        sent = False

        async def again() -> Any:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    async def _misbehave(self, mood: str, body: bytes, receive: Any, send: Any) -> None:  # noqa: C901 - one case each
        match mood:
            case "hang":
                while (await receive())["type"] != "http.disconnect":
                    pass
                self._double.cancelled.set()
            case "garbage":
                await answer(send, 200, [b'{"jsonrpc": "2.0", "result": {]'])
            case "page":
                await answer(send, 200, [b"<h1>Welcome</h1>"], kind=b"text/html")
            case "error":
                await answer(send, 503, [b"secret-of-the-server"])
            case "flood":
                await answer(send, 200, [ENDLESS] * 1000)
            case "flood-events":
                event = b'data: {"jsonrpc": "2.0", "method": "notifications/message", "params": '
                event += b'{"level": "info", "data": "' + b"x" * 65_536 + b'"}}\n\n'
                await answer(send, 200, [event] * 1000, kind=b"text/event-stream")
            case "bomb":
                bomb = gzip.compress(b" " * 100_000_000)
                await answer(send, 200, [bomb], headers=[(b"content-encoding", b"gzip")])
            case "redirect":
                await answer(send, 307, [], headers=[(b"location", b"http://169.254.169.254/latest/meta-data")])
            case "dies":
                # Promises more than it sends.
                await answer(send, 200, [b'{"jsonrpc"'], headers=[(b"content-length", b"1000")])
            case "lies":
                result = {"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": {"content": "no list"}}
                await answer(send, 200, [json.dumps(result).encode()])


async def _read(receive: Any) -> tuple[bytes, str]:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    try:
        return body, json.loads(body)["method"]
    except (ValueError, KeyError):
        return body, ""


async def answer(send: Any, status: int, pieces: Any, *, kind: bytes = b"application/json", headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *headers]})
    for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - it is seen by asking
            await asyncio.sleep(0.02)


class _Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving_mcp(double: Double, **options: Any) -> AsyncIterator[Double]:
    """It serves while the block runs."""
    app = _Moody(double.server().streamable_http_app(**options), double)
    server = _Quiet(uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=0))
    async with background() as group:
        group.create_task(server.serve())
        await until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        double.url = f"http://127.0.0.1:{port}/mcp"
        try:
            yield double
        finally:
            server.should_exit = server.force_exit = True
