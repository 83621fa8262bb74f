"""AgentService: messages in, use cases, messages out."""

from loremesh.agent.v1 import agent_pb2 as pb
from loremesh.agent.v1.agent_pb2_grpc import AgentServiceServicer
from loremesh_kit import pages
from loremesh_kit.errors import PageTokenInvalid
from loremesh_kit.pages import Position
from loremesh_kit.text import clean

from loremesh_agent import agent_protos as protos
from loremesh_agent.calls import Context
from loremesh_agent.engine.agents import AgentEngine

_DEFAULT_PAGE = 50


class AgentServicer(AgentServiceServicer):
    """Keeps agents."""

    def __init__(self, *, engine: AgentEngine) -> None:
        self._engine = engine

    async def CreateAgent(self, request: pb.CreateAgentRequest, context: Context) -> pb.Agent:  # noqa: N802 - the rpc's
        """Create one."""
        del context
        return protos.agent(await self._engine.create(protos.read_agent(request.agent)))

    async def GetAgent(self, request: pb.GetAgentRequest, context: Context) -> pb.Agent:  # noqa: N802
        """Get one, or a revision of it."""
        del context
        return protos.agent(await self._engine.get(clean(request.agent_id), revision=request.revision))

    async def ListAgents(self, request: pb.ListAgentsRequest, context: Context) -> pb.ListAgentsResponse:  # noqa: N802
        """List them, `default` first."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        found = await self._engine.page(after=pages.decode_token(request.page_token, query=request), limit=size + 1)
        agents = protos.fitting([protos.agent(each) for each in found], size)
        response = pb.ListAgentsResponse(agents=agents)
        if len(found) > len(agents):
            last = Position(sort_key=agents[-1].id, id=agents[-1].id)
            response.next_page_token = pages.encode_token(last, query=request)
        return response

    async def UpdateAgent(self, request: pb.UpdateAgentRequest, context: Context) -> pb.Agent:  # noqa: N802
        """Update what the mask names, or what is set."""
        del context
        wanted = request.agent
        kept = await self._engine.update(
            clean(wanted.id),
            lambda current: protos.changed(current, wanted, request.update_mask),
            etag=wanted.etag,
        )
        return protos.agent(kept)

    async def DeleteAgent(self, request: pb.DeleteAgentRequest, context: Context) -> pb.DeleteAgentResponse:  # noqa: N802
        """Delete one."""
        del context
        await self._engine.delete(clean(request.agent_id))
        return pb.DeleteAgentResponse()

    async def ListAgentRevisions(  # noqa: N802
        self, request: pb.ListAgentRevisionsRequest, context: Context
    ) -> pb.ListAgentRevisionsResponse:
        """List one's revisions, newest first."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        before = _number(pages.decode_token(request.page_token, query=request))
        found = await self._engine.revisions(clean(request.agent_id), before=before, limit=size + 1)
        revisions = protos.fitting([protos.agent(each) for each in found], size)
        response = pb.ListAgentRevisionsResponse(revisions=revisions)
        if len(found) > len(revisions):
            last = Position(sort_key=str(revisions[-1].revision), id=revisions[-1].id)
            response.next_page_token = pages.encode_token(last, query=request)
        return response

    async def RollbackAgent(self, request: pb.RollbackAgentRequest, context: Context) -> pb.Agent:  # noqa: N802
        """Make an old revision the next one."""
        del context
        kept = await self._engine.rollback(clean(request.agent_id), revision=request.revision, etag=request.etag)
        return protos.agent(kept)

    async def ValidateAgent(  # noqa: N802
        self, request: pb.ValidateAgentRequest, context: Context
    ) -> pb.ValidateAgentResponse:
        """Say what is wrong with one."""
        del context
        found = await self._engine.violations(protos.read_agent(request.agent))
        return pb.ValidateAgentResponse(
            violations=[
                pb.AgentViolation(field=each.field, description=each.description, reason=each.reason) for each in found
            ]
        )

    async def ListTools(self, request: pb.ListToolsRequest, context: Context) -> pb.ListToolsResponse:  # noqa: N802
        """List the tools."""
        del request, context
        return pb.ListToolsResponse(tools=map(protos.tool, await self._engine.tools()))

    async def ListProviders(self, request: pb.ListProvidersRequest, context: Context) -> pb.ListProvidersResponse:  # noqa: N802
        """List the providers."""
        del request, context
        return pb.ListProvidersResponse(providers=map(protos.provider, self._engine.providers()))


def _number(position: Position | None) -> int | None:
    if position is None:
        return None
    if not position.sort_key.isdecimal():
        raise PageTokenInvalid
    return int(position.sort_key)
