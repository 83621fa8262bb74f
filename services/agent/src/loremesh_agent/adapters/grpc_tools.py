"""Servers of ToolService: a channel for each call, to addresses checked for it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import grpc
import structlog
from grpc import StatusCode, aio
from loremesh.agent.v1 import agent_pb2, tool_pb2
from loremesh.agent.v1.tool_pb2_grpc import ToolServiceStub
from loremesh_kit import deadline, identity
from loremesh_kit.structs import plain
from loremesh_kit.text import clean

from loremesh_agent.adapters.tool_hosts import ToolHosts, is_port
from loremesh_agent.domain.tool_servers import (
    MAX_CONTENT,
    Described,
    NewToolServer,
    described,
    full_name,
    is_described,
    lost,
)
from loremesh_agent.domain.tools import CallContext, Effect, ToolResult
from loremesh_agent.errors import (
    ToolArgumentsInvalid,
    ToolFailed,
    ToolServerInvalid,
    ToolServerUnavailable,
    ToolTimeout,
    ToolUnavailable,
)

_DESCRIBE_SECONDS = 10.0
_MAX_BYTES = 4 * 1024 * 1024
_EFFECTS = {
    agent_pb2.TOOL_EFFECT_READ_ONLY: Effect.READ_ONLY,
    agent_pb2.TOOL_EFFECT_IDEMPOTENT: Effect.IDEMPOTENT,
    agent_pb2.TOOL_EFFECT_SIDE_EFFECTING: Effect.SIDE_EFFECTING,
}
# The model is told what they say.
_TOLD = frozenset({StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, StatusCode.FAILED_PRECONDITION})
# The call was refused before it had an effect.
_REFUSED = frozenset({StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED, StatusCode.UNIMPLEMENTED})
_OPTIONS = (
    # A call that may have had its effect is not repeated behind the run's back.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", _MAX_BYTES),
    ("grpc.max_send_message_length", _MAX_BYTES),
)
_log = structlog.get_logger(__name__)


class GrpcToolServers:
    """See ports.ToolServerClient."""

    def __init__(self, *, hosts: ToolHosts) -> None:
        """`hosts` are those the operator trusts."""
        self._hosts = hosts

    def sleeps(self, server: NewToolServer) -> bool:
        """See ports.ToolServerClient."""
        del server
        return False

    async def describe(self, server: NewToolServer) -> tuple[Described, ...]:
        """See ports.ToolServerClient."""
        async with self._open(server) as stub:
            return described(await _describe(stub, server), server_id=server.id)

    async def call(
        self, server: NewToolServer, tool: Described, arguments: Mapping[str, Any], context: CallContext
    ) -> ToolResult:
        """See ports.ToolServerClient."""
        name = full_name(server.id, tool.name)
        request = tool_pb2.CallToolRequest(
            name=tool.name, idempotency_key=context.idempotency_key, run_id=context.run_id
        )
        try:
            request.arguments.update(dict(arguments))
        except (ValueError, OverflowError) as error:
            raise ToolArgumentsInvalid(name, problem="There is a number or a text that cannot be sent.") from error
        with deadline.scope(server.timeout_seconds):
            try:
                async with self._open(server) as stub:
                    if not is_described(tool, await _describe(stub, server)):
                        raise ToolUnavailable(name)
                    seconds = deadline.within(server.timeout_seconds)
                    answer = await stub.CallTool(request, timeout=seconds, metadata=_luggage(server))
            except (ToolServerInvalid, ToolServerUnavailable) as error:
                raise ToolUnavailable(name) from error
            except aio.AioRpcError as error:
                return _failure(error, server, tool)
        return ToolResult(content=clean(answer.content)[:MAX_CONTENT], failed=answer.failed)

    @asynccontextmanager
    async def _open(self, server: NewToolServer) -> AsyncIterator[ToolServiceStub]:
        host, port, secure = _parse(server.address, self._hosts)
        addresses = await self._hosts.resolve(host, port)
        scheme = f"ipv{ip_address(addresses[0].partition('%')[0]).version}"
        hosts = [f"[{each}]" if scheme == "ipv6" else each for each in addresses]
        target = f"{scheme}:" + ",".join(f"{each}:{port}" for each in hosts)
        options = (*_OPTIONS, ("grpc.default_authority", f"{host}:{port}"))
        if secure:
            named = (*options, ("grpc.ssl_target_name_override", host))
            channel = aio.secure_channel(target, grpc.ssl_channel_credentials(), options=named)
        else:
            channel = aio.insecure_channel(target, options=options)
        async with channel:
            yield ToolServiceStub(channel)


async def _describe(stub: ToolServiceStub, server: NewToolServer) -> list[Described]:
    seconds = deadline.within(_DESCRIBE_SECONDS)
    try:
        answer = await stub.DescribeTools(tool_pb2.DescribeToolsRequest(), timeout=seconds, metadata=_luggage(server))
    except aio.AioRpcError as error:
        _log.warning("tool server failed", tool_server_id=server.id, code=error.code().name)
        raise ToolServerUnavailable(server.id) from error
    return [_tool(each, server.default_effect) for each in answer.tools]


def _tool(tool: tool_pb2.ToolDescription, default: Effect) -> Described:
    return Described(
        name=tool.name,
        description=tool.description,
        input_schema=plain(tool.input_schema),
        effect=_EFFECTS.get(tool.effect, default),
    )


def _failure(error: aio.AioRpcError, server: NewToolServer, tool: Described) -> ToolResult:
    """The call's failure as the model should know it; raises ToolTimeout, ToolFailed, DependencyUnavailable."""
    name, code = full_name(server.id, tool.name), error.code()
    if code in _TOLD:
        return ToolResult(content=clean(error.details() or "")[:MAX_CONTENT], failed=True)
    _log.warning("tool server failed", tool_server_id=server.id, tool=name, code=code.name)
    if code is StatusCode.DEADLINE_EXCEEDED:
        raise ToolTimeout(name) from error
    if code in _REFUSED:
        raise ToolFailed("The tool failed.", tool=name) from error
    raise lost(server, tool) from error


def _luggage(server: NewToolServer) -> tuple[tuple[str, str], ...]:
    caller = identity.current()
    token = server.token.get_secret_value()
    return (
        (identity.TENANT_HEADER, caller.tenant),
        (identity.PRINCIPAL_HEADER, caller.principal),
        (identity.REQUEST_ID_HEADER, caller.request_id),
        *((("authorization", f"Bearer {token}"),) if token else ()),
    )


def _parse(address: str, hosts: ToolHosts) -> tuple[str, int, bool]:
    """Host, port, and whether TLS is spoken; raises ToolServerInvalid."""
    secure = address.startswith("https://")
    host, _, port = address.removeprefix("https://").rstrip("/").rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not is_port(port) or set(host) & set("/@?#%"):
        raise ToolServerInvalid(
            "The address must be host:port, or https://host:port for TLS.", field="tool_server.address"
        )
    if not secure and not hosts.lists(host, int(port)):
        raise ToolServerInvalid("The address must be https://host:port.", field="tool_server.address")
    return host, int(port), secure
