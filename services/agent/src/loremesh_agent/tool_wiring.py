"""Puts together what brings tools: those that are built in, and those of others."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from loremesh_kit.clock import SystemClock
from loremesh_kit.postgres import Database

from loremesh_agent.adapters.grpc_tools import GrpcToolServers
from loremesh_agent.adapters.guarded_http import Guard, SystemResolver
from loremesh_agent.adapters.mcp_http import McpHttpServers
from loremesh_agent.adapters.mcp_stdio import McpPrograms
from loremesh_agent.adapters.postgres_tool_servers import PostgresToolServers
from loremesh_agent.adapters.toolbox import FixedToolbox, built_in
from loremesh_agent.adapters.tools import web_search
from loremesh_agent.domain.tool_servers import Kind
from loremesh_agent.engine.operator_servers import OperatorServers
from loremesh_agent.engine.tool_checks import ToolChecks
from loremesh_agent.engine.tool_servers import ServerTools, ToolServers
from loremesh_agent.ports import DocumentTexts, PassageIndex, Recollection, ToolServerClient
from loremesh_agent.settings import AgentSettings


@dataclass(frozen=True, kw_only=True)
class ExternalTools:
    """What brings the tools of others."""

    servers: ToolServers
    tools: ServerTools
    programs: McpPrograms
    checks: ToolChecks


def external_tools(database: Database, settings: AgentSettings) -> ExternalTools:
    """Those of servers which tenants register, and those of the operator's file."""
    hosts, programs = settings.allowed_tool_hosts(), McpPrograms()
    clients: Mapping[Kind, ToolServerClient] = {
        Kind.GRPC: GrpcToolServers(hosts=hosts),
        Kind.MCP_HTTP: McpHttpServers(hosts=hosts),
        Kind.MCP_STDIO: programs,
    }
    store = PostgresToolServers(database=database)
    operator = OperatorServers(named=settings.named_tool_servers(), store=store)
    servers = ToolServers(store=store, operator=operator, clients=clients)
    return ExternalTools(
        servers=servers,
        tools=ServerTools(servers=servers, clients=clients),
        programs=programs,
        checks=ToolChecks(store=store, operator=operator, clients=clients),
    )


@asynccontextmanager
async def built_in_tools(
    settings: AgentSettings, *, index: PassageIndex, texts: DocumentTexts, recollection: Recollection
) -> AsyncIterator[FixedToolbox]:
    """Those that are built in, with what connections they need."""
    guard = Guard(exempt=settings.exemptions(), resolver=SystemResolver())
    async with built_in(
        index=index,
        texts=texts,
        recollection=recollection,
        clock=SystemClock(),
        guard=guard,
        engine=web_search.chosen(
            searxng_url=settings.searxng_url,
            tavily_key=settings.tavily_api_key.get_secret_value(),
            brave_key=settings.brave_api_key.get_secret_value(),
        ),
    ) as toolbox:
        yield toolbox
