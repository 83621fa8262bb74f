"""MCP servers over streamable HTTP: a connection for each call, to an address checked for it."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
from loremesh_kit import deadline
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from loremesh_agent.adapters import mcp
from loremesh_agent.adapters.tool_hosts import ToolHosts
from loremesh_agent.domain.tool_servers import Described, NewToolServer, described, full_name, is_described
from loremesh_agent.domain.tools import CallContext, ToolResult
from loremesh_agent.errors import ToolServerInvalid, ToolTimeout, ToolUnavailable

_DESCRIBE_SECONDS = 10.0
_CONNECT_SECONDS = 5.0
# An abandoned call must not wait for its server to agree that the session is over.
_GOODBYE_SECONDS = 0.3
# Of all that a server answers in one connection.
_MAX_BYTES = 4 * 1024 * 1024


class McpHttpServers:
    """See ports.ToolServerClient."""

    def __init__(self, *, hosts: ToolHosts) -> None:
        """`hosts` are those the operator trusts."""
        # It logs what servers say.
        logging.getLogger("mcp").setLevel(logging.CRITICAL)
        self._hosts = hosts
        # To read the authorities' certificates takes longer than most calls.
        self._trust = httpx2.create_ssl_context()

    def sleeps(self, server: NewToolServer) -> bool:
        """See ports.ToolServerClient."""
        del server
        return False

    async def describe(self, server: NewToolServer) -> tuple[Described, ...]:
        """See ports.ToolServerClient."""
        try:
            async with asyncio.timeout(deadline.within(_DESCRIBE_SECONDS)), self._connect(server) as session:
                return described(await mcp.list_tools(session, server), server_id=server.id)
        except mcp.FAILURES as error:
            raise mcp.unusable(error, server) from error

    async def call(
        self, server: NewToolServer, tool: Described, arguments: Mapping[str, Any], context: CallContext
    ) -> ToolResult:
        """See ports.ToolServerClient."""
        name, called = full_name(server.id, tool.name), False
        try:
            async with asyncio.timeout(deadline.within(server.timeout_seconds)), self._connect(server) as session:
                if not is_described(tool, await mcp.list_tools(session, server)):
                    raise ToolUnavailable(name)
                called = True
                return await mcp.call_tool(session, tool, arguments, context)
        except TimeoutError as error:
            raise (ToolTimeout if called else ToolUnavailable)(name) from error
        except mcp.FAILURES as error:
            told = mcp.broken(error, server, tool) if called else mcp.uncalled(error, server, name)
            raise told from error

    @asynccontextmanager
    async def _connect(self, server: NewToolServer) -> AsyncIterator[ClientSession]:
        token = server.token.get_secret_value()
        client = httpx2.AsyncClient(
            transport=_CheckedTransport(hosts=self._hosts, url=server.address, trust=self._trust),
            headers={"accept-encoding": "identity"} | ({"authorization": f"Bearer {token}"} if token else {}),
            timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),
            trust_env=False,
        )
        async with (
            client,
            streamable_http_client(server.address, http_client=client, max_sse_event_size=_MAX_BYTES) as streams,
            mcp.open_session(streams) as session,
        ):
            yield session


class _CheckedTransport(httpx2.AsyncBaseTransport):
    """Connects to the address it has checked, and reads so much and no more."""

    def __init__(self, *, hosts: ToolHosts, url: str, trust: ssl.SSLContext) -> None:
        self._hosts = hosts
        self._host, self._port = _parse(url, hosts)
        self._inner = httpx2.AsyncHTTPTransport(verify=trust, trust_env=False)
        self._address = ""
        self.left = _MAX_BYTES

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._address = self._address or (await self._hosts.resolve(self._host, self._port))[0]
        extensions = dict(request.extensions) | {"sni_hostname": self._host}
        if request.method == "DELETE":
            extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), _GOODBYE_SECONDS)
        answer = await self._inner.handle_async_request(
            httpx2.Request(
                request.method,
                request.url.copy_with(host=self._address),
                headers=request.headers,
                stream=request.stream,
                extensions=extensions,
            )
        )
        stream = answer.stream
        if not isinstance(stream, httpx2.AsyncByteStream) or answer.headers.get("content-encoding"):
            # It was not asked for, and may unfold to any size.
            await answer.aclose()
            raise httpx2.DecodingError("a compressed answer")
        return httpx2.Response(
            answer.status_code, headers=answer.headers, stream=_Limited(stream, self), extensions=answer.extensions
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Limited(httpx2.AsyncByteStream):
    """Ends a stream that is longer than the connection may bring."""

    def __init__(self, inner: httpx2.AsyncByteStream, transport: _CheckedTransport) -> None:
        self._inner = inner
        self._transport = transport

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._transport.left -= len(piece)
            if self._transport.left < 0:
                raise httpx2.ReadError("a flood")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


def _parse(url: str, hosts: ToolHosts) -> tuple[str, int]:
    """Host and port; raises ToolServerInvalid."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise ToolServerInvalid("The address must be an http or https URL without a user.", field="tool_server.address")
    port = port or (443 if parts.scheme == "https" else 80)
    if parts.scheme == "http" and not hosts.lists(host, port):
        raise ToolServerInvalid("The address must be https.", field="tool_server.address")
    return host, port
