"""ToolServerService: messages in, use cases, messages out."""

from typing import Any

from grpc import aio
from loremesh.agent.v1 import tool_pb2 as pb
from loremesh.agent.v1.tool_pb2_grpc import ToolServerServiceServicer
from loremesh_kit import pages
from loremesh_kit.pages import Position
from loremesh_kit.text import clean

from loremesh_agent import calls, tool_server_protos
from loremesh_agent.engine.tool_servers import ToolServers

Context = aio.ServicerContext[Any, Any]

_DEFAULT_PAGE = 50


class ToolServerServicer(ToolServerServiceServicer):
    """Keeps tool servers."""

    def __init__(self, *, engine: ToolServers) -> None:
        self._engine = engine

    async def CreateToolServer(self, request: pb.CreateToolServerRequest, context: Context) -> pb.ToolServer:  # noqa: N802
        """Register one with the tools it has."""
        del context
        claim = calls.claim(request, method="CreateToolServer")
        wanted = tool_server_protos.read_tool_server(request.tool_server)
        return tool_server_protos.tool_server(await self._engine.create(wanted, claim=claim))

    async def GetToolServer(self, request: pb.GetToolServerRequest, context: Context) -> pb.ToolServer:  # noqa: N802
        """Get one."""
        del context
        return tool_server_protos.tool_server(await self._engine.get(clean(request.tool_server_id)))

    async def ListToolServers(  # noqa: N802
        self, request: pb.ListToolServersRequest, context: Context
    ) -> pb.ListToolServersResponse:
        """List them by id."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        after = pages.decode_token(request.page_token, query=request)
        found = await self._engine.page(after=after.id if after else "", limit=size + 1)
        listed = [tool_server_protos.tool_server(each, listed=True) for each in found[:size]]
        response = pb.ListToolServersResponse(tool_servers=listed)
        if len(found) > size:
            last = Position(sort_key="", id=found[size - 1].id)
            response.next_page_token = pages.encode_token(last, query=request)
        return response

    async def RefreshToolServer(self, request: pb.RefreshToolServerRequest, context: Context) -> pb.ToolServer:  # noqa: N802
        """Put what one describes now in force."""
        del context
        return tool_server_protos.tool_server(await self._engine.refresh(clean(request.tool_server_id)))

    async def DeleteToolServer(  # noqa: N802
        self, request: pb.DeleteToolServerRequest, context: Context
    ) -> pb.DeleteToolServerResponse:
        """Remove one."""
        del context
        await self._engine.delete(clean(request.tool_server_id))
        return pb.DeleteToolServerResponse()
