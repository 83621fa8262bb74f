"""FlowService: messages in, use cases, messages out."""

from collections.abc import Awaitable, Callable
from typing import Any

from grpc import aio
from loremesh.crew.v1 import flow_pb2 as pb
from loremesh.crew.v1 import run_pb2
from loremesh.crew.v1.flow_pb2_grpc import FlowServiceServicer
from loremesh_kit import pages
from loremesh_kit.pages import Position
from loremesh_kit.text import clean

from loremesh_crew import flow_protos as protos
from loremesh_crew.adapters.structs import plain
from loremesh_crew.crew_protos import fitting, read_run_limits, violation
from loremesh_crew.crew_servicer import revision_of
from loremesh_crew.engine.definitions import position
from loremesh_crew.engine.flows import FlowEngine

Context = aio.ServicerContext[Any, Any]

_DEFAULT_PAGE = 50


class FlowServicer(FlowServiceServicer):
    """Keeps flows."""

    def __init__(self, *, engine: FlowEngine, show: Callable[[str], Awaitable[run_pb2.Run]]) -> None:
        """`show` tells of a run by its id."""
        self._engine = engine
        self._show = show

    async def CreateFlow(self, request: pb.CreateFlowRequest, context: Context) -> pb.Flow:  # noqa: N802 - the rpc's
        """Create one."""
        del context
        return protos.flow(await self._engine.create(protos.read_flow(request.flow)))

    async def GetFlow(self, request: pb.GetFlowRequest, context: Context) -> pb.Flow:  # noqa: N802
        """Get one, or a revision of it."""
        del context
        return protos.flow(await self._engine.get(clean(request.flow_id), revision=request.revision))

    async def ListFlows(self, request: pb.ListFlowsRequest, context: Context) -> pb.ListFlowsResponse:  # noqa: N802
        """List them, those built in first."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        found = await self._engine.page(after=pages.decode_token(request.page_token, query=request), limit=size + 1)
        flows = fitting([protos.flow(each) for each in found], size)
        response = pb.ListFlowsResponse(flows=flows)
        if len(found) > len(flows):
            last = position(flows[-1].id, built_in=flows[-1].built_in)
            response.next_page_token = pages.encode_token(last, query=request)
        return response

    async def UpdateFlow(self, request: pb.UpdateFlowRequest, context: Context) -> pb.Flow:  # noqa: N802
        """Update what the mask names, or what is set."""
        del context
        wanted = request.flow
        kept = await self._engine.update(
            clean(wanted.id),
            lambda current: protos.changed(current, wanted, request.update_mask),
            etag=wanted.etag,
        )
        return protos.flow(kept)

    async def DeleteFlow(self, request: pb.DeleteFlowRequest, context: Context) -> pb.DeleteFlowResponse:  # noqa: N802
        """Delete one."""
        del context
        await self._engine.delete(clean(request.flow_id))
        return pb.DeleteFlowResponse()

    async def ListFlowRevisions(  # noqa: N802
        self, request: pb.ListFlowRevisionsRequest, context: Context
    ) -> pb.ListFlowRevisionsResponse:
        """List one's revisions, newest first."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        before = revision_of(pages.decode_token(request.page_token, query=request))
        found = await self._engine.revisions(clean(request.flow_id), before=before, limit=size + 1)
        revisions = fitting([protos.flow(each) for each in found], size)
        response = pb.ListFlowRevisionsResponse(revisions=revisions)
        if len(found) > len(revisions):
            last = Position(sort_key=str(revisions[-1].revision), id=revisions[-1].id)
            response.next_page_token = pages.encode_token(last, query=request)
        return response

    async def RollbackFlow(self, request: pb.RollbackFlowRequest, context: Context) -> pb.Flow:  # noqa: N802
        """Make an old revision the next one."""
        del context
        kept = await self._engine.rollback(clean(request.flow_id), revision=request.revision, etag=request.etag)
        return protos.flow(kept)

    async def ValidateFlow(self, request: pb.ValidateFlowRequest, context: Context) -> pb.ValidateFlowResponse:  # noqa: N802
        """Say what is wrong with one."""
        del context
        found = await self._engine.faults(protos.read_flow(request.flow))
        return pb.ValidateFlowResponse(violations=map(violation, found))

    async def KickoffFlow(self, request: pb.KickoffFlowRequest, context: Context) -> run_pb2.Run:  # noqa: N802
        """Start a run."""
        del context
        run_id = await self._engine.kickoff(
            clean(request.flow_id),
            revision=request.revision,
            inputs=plain(request.inputs),
            limits=read_run_limits(request.limits),
        )
        return await self._show(run_id)
