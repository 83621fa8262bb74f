"""MCP as a client, whatever carries it: what servers describe, and what their tools answer."""

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import structlog
from loremesh_kit.errors import ServiceError
from loremesh_kit.text import clean
from mcp import ClientSession, MCPError, types
from mcp.client._transport import TransportStreams

from loremesh_agent.domain.tool_servers import (
    MAX_CONTENT,
    MAX_TOOLS,
    Described,
    NewToolServer,
    lost,
    more_careful,
)
from loremesh_agent.domain.tools import CallContext, Effect, ToolResult
from loremesh_agent.errors import ToolServerInvalid, ToolServerUnavailable, ToolUnavailable

# What the SDK and its transports raise when a server misbehaves.
FAILURES = (
    MCPError,
    httpx2.HTTPError,
    httpx2.StreamError,
    httpx2.InvalidURL,
    anyio.ClosedResourceError,
    anyio.BrokenResourceError,
    anyio.EndOfStream,
    OSError,
    RuntimeError,
    ValueError,
    ExceptionGroup,
)
# A listing in more pages than this has no end.
_MAX_PAGES = 32
_IDEMPOTENCY_KEY = "dev.loremesh/idempotencyKey"
# The server read the request and refused it; whatever else it says, the call may have had its effect.
_REFUSALS = frozenset({types.INVALID_PARAMS, types.METHOD_NOT_FOUND})
_log = structlog.get_logger(__name__)


class _Session(ClientSession):
    """Leaves a stranger's output schemas alone: their expressions may take an age to evaluate."""

    async def validate_tool_result(self, name: str, result: types.CallToolResult) -> None:
        """Take the result as it is."""


@asynccontextmanager
async def open_session(streams: TransportStreams, **options: Any) -> AsyncIterator[ClientSession]:
    """A session that server and client agree on, of this year's protocol or an older one; raises FAILURES."""
    async with _Session(*streams, **options) as session:
        try:
            await session.discover()
        except (MCPError, RuntimeError, ValueError):
            await _initialize(session)
        yield session


async def _initialize(session: ClientSession) -> None:
    try:
        await session.initialize()
    except MCPError as error:
        if error.code != types.UNSUPPORTED_PROTOCOL_VERSION:
            raise
        # It started slowly: it has read, after all, the question that was not waited for, and keeps to that protocol.
        await session.discover()


async def list_tools(session: ClientSession, server: NewToolServer) -> list[Described]:
    """All that the server has, as it says, or one more than it may have; raises FAILURES, ToolServerInvalid."""
    tools: list[types.Tool] = []
    cursor: str | None = None
    for _ in range(_MAX_PAGES):
        page = await session.list_tools(params=types.PaginatedRequestParams(cursor=cursor) if cursor else None)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None or len(tools) > MAX_TOOLS:
            return [_described(tool, server.default_effect) for tool in tools]
    raise ToolServerInvalid("Its list of tools has no end.")


def _described(tool: types.Tool, default: Effect) -> Described:
    return Described(
        name=tool.name,
        description=tool.description or "",
        input_schema=tool.input_schema,
        effect=more_careful(default, _hint(tool.annotations)),
    )


def _hint(annotations: types.ToolAnnotations | None) -> Effect | None:
    """What the server says of a call's effect; None where it says nothing."""
    match annotations:
        case None:
            return None
        case types.ToolAnnotations(read_only_hint=True):
            return Effect.READ_ONLY
        case types.ToolAnnotations(idempotent_hint=True):
            return Effect.IDEMPOTENT
        case types.ToolAnnotations(read_only_hint=None, idempotent_hint=None, destructive_hint=None | False):
            return None
    return Effect.SIDE_EFFECTING


async def call_tool(
    session: ClientSession, tool: Described, arguments: Mapping[str, Any], context: CallContext
) -> ToolResult:
    """What the tool answers; raises FAILURES, after which nobody knows whether it was called."""
    meta: Any = {_IDEMPOTENCY_KEY: context.idempotency_key}
    try:
        answer = await session.call_tool(tool.name, dict(arguments), meta=meta)
    except MCPError as error:
        if error.code not in _REFUSALS:
            raise
        return ToolResult(content=clean(error.message)[:MAX_CONTENT], failed=True)
    return ToolResult(content=_content(answer), failed=bool(answer.is_error))


def _content(answer: types.CallToolResult) -> str:
    if not answer.content and answer.structured_content is not None:
        return clean(json.dumps(answer.structured_content, ensure_ascii=False))[:MAX_CONTENT]
    return clean("\n".join(_within(map(_text, answer.content), MAX_CONTENT)))[:MAX_CONTENT]


def _within(texts: Iterable[str], limit: int) -> Iterator[str]:
    for text in texts:
        if limit <= 0:
            return
        yield text[:limit]
        limit -= len(text)


def _text(block: types.ContentBlock) -> str:
    match block:
        case types.TextContent():
            return block.text
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            return resource.text
        case types.EmbeddedResource():
            return f"[a file: {block.resource.uri}]"
        case types.ResourceLink():
            return f"[a resource, {block.name}: {block.uri}]"
    return f"[no text but {block.mime_type}]"


def unusable(error: BaseException, server: NewToolServer) -> ServiceError:
    """What a server that could not be asked is told as."""
    return _refusal(error) or _logged(error, server, ToolServerUnavailable(server.id))


def uncalled(error: BaseException, server: NewToolServer, name: str) -> ServiceError:
    """What a call is told as that never reached the tool."""
    refusal = _refusal(error)
    if isinstance(refusal, ToolServerInvalid | ToolServerUnavailable):
        refusal = None
    return refusal or _logged(error, server, ToolUnavailable(name))


def broken(error: BaseException, server: NewToolServer, tool: Described) -> ServiceError:
    """What a call is told as that broke after it was sent."""
    return _refusal(error) or _logged(error, server, lost(server, tool))


def _refusal(error: BaseException) -> ServiceError | None:
    return next((each for each in _leaves(error) if isinstance(each, ServiceError)), None)


def _logged(error: BaseException, server: NewToolServer, told: ServiceError) -> ServiceError:
    # Kinds only: the words are a stranger's.
    kinds = sorted({type(each).__name__ for each in _leaves(error)})
    _log.warning("tool server failed", tool_server_id=server.id, errors=kinds, reason=told.reason)
    return told


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
