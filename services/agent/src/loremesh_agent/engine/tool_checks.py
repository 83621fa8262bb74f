"""Asks tool servers whether they are there, and whether their tools are still those that are in force."""

import asyncio
from collections.abc import Mapping

import structlog
from loremesh_kit import identity
from loremesh_kit.errors import ServiceError
from loremesh_kit.identity import Identity
from loremesh_kit.ids import new_id
from loremesh_kit.loops import repeat, unless

from loremesh_agent.domain.tool_servers import Kind, NewToolServer, ToolServer, differences
from loremesh_agent.engine.operator_servers import OPERATOR, OperatorServers
from loremesh_agent.errors import ToolServerNotFound
from loremesh_agent.ports import ToolServerClient, ToolServerStore

_PRINCIPAL = "tool-checks"
_AT_ONCE = 8
_log = structlog.get_logger(__name__)


class ToolChecks:
    """A kit Worker; of any number of them in any process, one checks each server when it is due."""

    def __init__(
        self,
        *,
        store: ToolServerStore,
        operator: OperatorServers,
        clients: Mapping[Kind, ToolServerClient],
        interval: float = 60.0,
    ) -> None:
        """`clients` are by the kinds they speak to; `interval` is in seconds, between two checks of a server."""
        self._store = store
        self._operator = operator
        self._clients = clients
        self._interval = interval

    async def run(self, stop: asyncio.Event) -> None:
        """Check until `stop` is set."""

        async def step() -> None:
            if not await unless(stop, self.check()):
                await unless(stop, asyncio.sleep(min(self._interval, 5.0)))

        await repeat(step, stop=stop, name="tool checks")

    async def check(self) -> int:
        """Check what is due; how many there were."""
        unknown = await self._operator.unknown()
        due = await self._store.due(interval=self._interval, limit=_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for server in unknown:
                group.create_task(self._introduce(server))
            for tenant, server_id in due:
                group.create_task(self._check(tenant, server_id))
        return len(due)

    async def _introduce(self, server: NewToolServer) -> None:
        with identity.scope(_caller(OPERATOR)):
            try:
                tools = await self._clients[server.kind].describe(server)
            except ServiceError as error:
                _log.warning("tool server is of no use", tool_server_id=server.id, reason=error.reason)
                return
            await self._operator.keep(server.id, tools)

    async def _check(self, tenant: str, key: str) -> None:
        with identity.scope(_caller(tenant)):
            server = await self._server(tenant, key)
            if server is None or (server.healthy and self._clients[server.kind].sleeps(server)):
                return
            try:
                changed = differences(server.tools, await self._clients[server.kind].describe(server))
            except ServiceError as error:
                _log.info("tool server is not well", tool_server_id=server.id, reason=error.reason)
                await self._store.note(key, healthy=False, changed=None, tenant=tenant)
            else:
                await self._store.note(key, healthy=True, changed=changed, tenant=tenant)

    async def _server(self, tenant: str, key: str) -> ToolServer | None:
        if tenant == OPERATOR:
            server_id = self._operator.of_key(key)
            return await self._operator.get(server_id) if server_id else None
        try:
            return await self._store.get(key)
        except ToolServerNotFound:
            return None


def _caller(tenant: str) -> Identity:
    return Identity(tenant=tenant, principal=_PRINCIPAL, request_id=new_id())
