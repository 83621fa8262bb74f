"""GroundingService: messages in, use cases, messages out."""

from loremesh.agent.v1 import grounding_pb2 as pb
from loremesh.agent.v1.grounding_pb2_grpc import GroundingServiceServicer
from loremesh_kit.text import clean

from loremesh_agent.calls import Context
from loremesh_agent.domain.claims import Claim, Span, support
from loremesh_agent.engine.grounding import Grounding


class GroundingServicer(GroundingServiceServicer):
    """Checks what texts rest on."""

    def __init__(self, *, engine: Grounding) -> None:
        self._engine = engine

    async def CheckGrounding(  # noqa: N802
        self, request: pb.CheckGroundingRequest, context: Context
    ) -> pb.CheckGroundingResponse:
        """Check a text."""
        del context
        # As it came: offsets are those of the caller's own text.
        claims = await self._engine.check(
            request.text,
            question=request.question,
            passages=list(request.passages),
            message_id=clean(request.message_id),
        )
        return pb.CheckGroundingResponse(claims=map(_claim, claims), support=support(claims))


def _claim(claim: Claim) -> pb.Claim:
    return pb.Claim(
        start_char=claim.start,
        end_char=claim.end,
        supported=claim.supported,
        spans=map(_span, claim.spans),
        wrong_citations=claim.wrong,
    )


def _span(span: Span) -> pb.SupportSpan:
    return pb.SupportSpan(
        passage=span.passage, start_char=span.start, end_char=span.end, overlap=span.overlap, cited=span.cited
    )
