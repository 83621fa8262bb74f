"""Tool servers: registered by tenants, or named by the operator; and the tools they bring."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from loremesh_agent.domain.tool_servers import (
    Described,
    Kind,
    NewToolServer,
    ToolServer,
    server_of,
    specs,
)
from loremesh_agent.domain.tools import CallContext, ToolResult, ToolSpec
from loremesh_agent.engine.operator_servers import OperatorServers
from loremesh_agent.errors import (
    ToolNotFound,
    ToolServerExists,
    ToolServerInvalid,
    ToolServerNotFound,
    ToolServerReadOnly,
    ToolUnavailable,
)
from loremesh_agent.ports import Claim, Tool, ToolServerClient, ToolServerStore

# Of one tenant; each is asked for its health for ever.
_MAX_SERVERS = 100


class ToolServers:
    """Keeps what is registered, and shows it beside the operator's."""

    def __init__(
        self, *, store: ToolServerStore, operator: OperatorServers, clients: Mapping[Kind, ToolServerClient]
    ) -> None:
        """`clients` are by the kinds they speak to."""
        self._store = store
        self._operator = operator
        self._clients = clients

    async def create(self, wanted: NewToolServer, *, claim: Claim | None = None) -> ToolServer:
        """Register a server with the tools it has now.

        Raises ToolServerExists, ToolServerInvalid, ToolServerUnavailable, ToolNameClash, SchemaInvalid,
        AddressForbidden, IdempotencyConflict.
        """
        if claim and (made := await self._store.claimed(claim)):
            return await self._store.get(made)
        if wanted.kind is Kind.MCP_STDIO:
            raise ToolServerInvalid("Programs are named by the operator's file only.", field="tool_server.kind")
        if self._operator.has(wanted.id):
            raise ToolServerExists(wanted.id)
        if len(await self._store.page(after="", limit=_MAX_SERVERS)) == _MAX_SERVERS:
            raise ToolServerInvalid(f"There are {_MAX_SERVERS} tool servers already.")
        tools = await self._clients[wanted.kind].describe(wanted)
        await self._store.create(_described(wanted, tools), claim)
        return await self._store.get(wanted.id)

    async def get(self, server_id: str) -> ToolServer:
        """One of the caller's or the operator's; raises ToolServerNotFound."""
        if self._operator.has(server_id):
            return await self._operator.get(server_id)
        return await self._store.get(server_id)

    async def page(self, *, after: str, limit: int) -> Sequence[ToolServer]:
        """At most `limit` servers whose ids come after one, by id."""
        every = await self._operator.all()
        theirs = [each for each in every if each.id > after]
        # What the operator named after a tenant had is the operator's.
        own = await self._store.page(after=after, limit=limit + len(every))
        mine = [each for each in own if not self._operator.has(each.id)]
        merged = heapq.merge(theirs, mine, key=lambda server: server.id)
        return [server for server, _ in zip(merged, range(limit), strict=False)]

    async def refresh(self, server_id: str) -> ToolServer:
        """Put what it describes now in force.

        Raises ToolServerNotFound, ToolServerReadOnly, and as `create` does of what it describes.
        """
        server = await self._own(server_id)
        tools = await self._clients[server.kind].describe(server)
        await self._store.put(replace(server, tools=tools, healthy=True))
        return await self._store.get(server_id)

    async def delete(self, server_id: str) -> None:
        """Remove one; raises ToolServerNotFound, ToolServerReadOnly."""
        await self._own(server_id)
        await self._store.delete(server_id)

    async def _own(self, server_id: str) -> ToolServer:
        if self._operator.has(server_id):
            raise ToolServerReadOnly(server_id)
        return await self._store.get(server_id)


class ServerTools:
    """The tools of all servers of the caller's tenant and the operator; see ports.Toolbox."""

    def __init__(self, *, servers: ToolServers, clients: Mapping[Kind, ToolServerClient]) -> None:
        """`clients` are by the kinds they speak to."""
        self._servers = servers
        self._clients = clients

    async def specs(self) -> Sequence[ToolSpec]:
        """See ports.Toolbox; nobody is asked for them."""
        servers = await self._servers.page(after="", limit=1000)
        return sorted((spec for server in servers for spec in specs(server)), key=lambda spec: spec.name)

    async def find(self, name: str) -> Tool:
        """See ports.Toolbox."""
        try:
            server = await self._servers.get(server_of(name))
        except ToolServerNotFound as error:
            raise ToolNotFound(name) from error
        found = zip(specs(server), server.tools, strict=True)
        for spec, tool in found:
            if spec.name == name:
                if spec.unavailable:
                    raise ToolUnavailable(name)
                return _ServerTool(spec, server=server, tool=tool, client=self._clients[server.kind])
        raise ToolNotFound(name)


class _ServerTool:
    """See ports.Tool."""

    def __init__(self, spec: ToolSpec, *, server: ToolServer, tool: Described, client: ToolServerClient) -> None:
        self._spec = spec
        self._server = server
        self._tool = tool
        self._client = client

    @property
    def spec(self) -> ToolSpec:
        return self._spec

    async def call(self, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        return await self._client.call(self._server, self._tool, arguments, context)


def _described(wanted: NewToolServer, tools: tuple[Described, ...]) -> ToolServer:
    given = {each.name: getattr(wanted, each.name) for each in fields(wanted)}
    return ToolServer(**given, tools=tools, healthy=True)
