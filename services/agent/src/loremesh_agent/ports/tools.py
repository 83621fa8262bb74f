"""What is asked of tools and of the servers that bring them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.tool_servers import Described, NewToolServer, ToolServer
from loremesh_agent.domain.tools import CallContext, ToolCall, ToolResult, ToolSpec
from loremesh_agent.ports.chats import Claim


class Tool(Protocol):
    """Something a model may have done."""

    @property
    def spec(self) -> ToolSpec:
        """What it is."""
        ...

    async def call(self, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """Do it, with arguments that fulfil its schema; raises ToolError, AddressForbidden, DependencyUnavailable."""
        ...


class Toolbox(Protocol):
    """Knows the tools there are, for the caller's tenant."""

    async def specs(self) -> Sequence[ToolSpec]:
        """All of them, by name, those which are not available among them."""
        ...

    async def find(self, name: str) -> Tool:
        """The tool; raises ToolNotFound, ToolUnavailable."""
        ...


class Tools(Protocol):
    """The tools in an agent's hands."""

    async def offered(self, agent: Agent) -> Sequence[ToolSpec]:
        """Those that can be called now, in the agent's order."""
        ...

    def check(self, spec: ToolSpec, call: ToolCall) -> Mapping[str, Any]:
        """The call's arguments, read and valid; raises ToolArgumentsInvalid."""
        ...

    async def call(self, spec: ToolSpec, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """What the tool answers; raises ToolError, with a message for the model, or a retryable ServiceError."""
        ...


class ToolServerClient(Protocol):
    """Speaks to tool servers of one kind."""

    def sleeps(self, server: NewToolServer) -> bool:
        """Whether to ask it would start something that nobody needed so far."""
        ...

    async def describe(self, server: NewToolServer) -> tuple[Described, ...]:
        """The tools it has.

        Raises ToolServerUnavailable, ToolServerInvalid, ToolNameClash, SchemaInvalid, AddressForbidden.
        """
        ...

    async def call(
        self, server: NewToolServer, tool: Described, arguments: Mapping[str, Any], context: CallContext
    ) -> ToolResult:
        """Call a tool, as long as it is still described in the same way.

        Raises ToolUnavailable and AddressForbidden where it was not called, ToolFailed where it failed; ToolTimeout,
        and DependencyUnavailable for a tool that may change something, where nobody knows.
        """
        ...


class ToolServerStore(Protocol):
    """Keeps tool servers; `tenant` None means the caller's."""

    async def create(self, server: ToolServer, claim: Claim | None) -> None:
        """Keep a new one; raises ToolServerExists, IdempotencyConflict."""
        ...

    async def claimed(self, claim: Claim) -> str | None:
        """Id of the server that a request with this claim made before; raises IdempotencyConflict."""
        ...

    async def put(self, server: ToolServer) -> None:
        """Keep it in place of what there is of its id; raises ToolServerNotFound."""
        ...

    async def introduce(self, server: ToolServer, *, tenant: str) -> None:
        """Keep it unless there is one of its id."""
        ...

    async def get(self, server_id: str, *, tenant: str | None = None) -> ToolServer:
        """The server; raises ToolServerNotFound."""
        ...

    async def page(self, *, after: str, limit: int, tenant: str | None = None) -> Sequence[ToolServer]:
        """At most `limit` servers whose ids come after one, by id."""
        ...

    async def delete(self, server_id: str) -> None:
        """Remove it; raises ToolServerNotFound."""
        ...

    async def due(self, *, interval: float, limit: int) -> Sequence[tuple[str, str]]:
        """Tenant and id of servers, of all tenants, to be checked now by the caller and nobody else for a while.

        `interval` is the time between two checks of a server, in seconds.
        """
        ...

    async def note(self, server_id: str, *, healthy: bool, changed: frozenset[str] | None, tenant: str) -> None:
        """Keep what a check found; None for what it could not find out."""
        ...
