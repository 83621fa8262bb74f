"""ApprovalService: messages in, use cases, messages out."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from loremesh.agent.v1 import approval_pb2 as pb
from loremesh.agent.v1.approval_pb2_grpc import ApprovalServiceServicer
from loremesh_kit import pages
from loremesh_kit.pages import Position
from loremesh_kit.text import clean

from loremesh_agent import approval_protos as protos
from loremesh_agent.calls import Context
from loremesh_agent.engine.approvals import Approvals

_DEFAULT_PAGE = 50


class ApprovalServicer(ApprovalServiceServicer):
    """Asks humans."""

    def __init__(self, *, engine: Approvals) -> None:
        self._engine = engine

    async def ListApprovals(self, request: pb.ListApprovalsRequest, context: Context) -> pb.ListApprovalsResponse:  # noqa: N802
        """List them, those due first."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        found = await self._engine.page(
            after=pages.decode_token(request.page_token, query=request),
            limit=size + 1,
            state=protos.read_state(request.state),
            run_id=clean(request.run_id),
            assignee=clean(request.assignee),
        )
        response = pb.ListApprovalsResponse(approvals=map(protos.approval, found[:size]))
        if len(found) > size:
            last = Position(sort_key=found[size - 1].due_time.isoformat(), id=found[size - 1].id)
            response.next_page_token = pages.encode_token(last, query=request)
        return response

    async def GetApproval(self, request: pb.GetApprovalRequest, context: Context) -> pb.Approval:  # noqa: N802
        """Get one."""
        del context
        return protos.approval(await self._engine.get(clean(request.approval_id)))

    async def WatchApprovals(  # noqa: N802
        self, request: pb.WatchApprovalsRequest, context: Context
    ) -> AsyncIterator[pb.ApprovalEvent]:
        """Stream them as they change."""
        del context
        async with aclosing(self._engine.watch(run_id=clean(request.run_id))) as changes:
            async for changed in changes:
                yield protos.event(changed)

    async def DecideApproval(self, request: pb.DecideApprovalRequest, context: Context) -> pb.Approval:  # noqa: N802
        """Decide one."""
        del context
        decided = await self._engine.decide(
            clean(request.approval_id), protos.decision(request), etag=clean(request.etag)
        )
        return protos.approval(decided)

    async def ReassignApproval(self, request: pb.ReassignApprovalRequest, context: Context) -> pb.Approval:  # noqa: N802
        """Have somebody else asked."""
        del context
        reassigned = await self._engine.reassign(
            clean(request.approval_id), clean(request.assignee), etag=clean(request.etag)
        )
        return protos.approval(reassigned)
