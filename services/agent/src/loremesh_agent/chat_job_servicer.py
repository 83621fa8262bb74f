"""ChatJobService: messages in, use cases, messages out."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from loremesh.agent.v1 import chat_job_pb2 as pb
from loremesh.agent.v1 import chat_pb2 as chat
from loremesh.agent.v1.chat_job_pb2_grpc import ChatJobServiceServicer
from loremesh_kit import eventlog, pages
from loremesh_kit.pages import Position
from loremesh_kit.text import clean

from loremesh_agent import calls, protos
from loremesh_agent.calls import Context
from loremesh_agent.engine.chat_jobs import ChatJobs

_DEFAULT_PAGE = 50
_DEFAULT_EVENTS = 100
_DEFAULT_STEPS = 100


class ChatJobServicer(ChatJobServiceServicer):
    """Answers messages in the background."""

    def __init__(self, *, engine: ChatJobs) -> None:
        self._engine = engine

    async def CreateChatJob(self, request: chat.ChatRequest, context: Context) -> pb.CreateChatJobResponse:  # noqa: N802
        """Accept a message."""
        del context
        job_id, conversation_id = await self._engine.create(
            protos.question(request),
            request=request.SerializeToString(deterministic=True),
            claim=calls.claim(request, method="CreateChatJob"),
        )
        return pb.CreateChatJobResponse(job_id=job_id, conversation_id=conversation_id)

    async def GetChatJob(self, request: pb.GetChatJobRequest, context: Context) -> pb.ChatJob:  # noqa: N802
        """Get one."""
        del context
        return protos.chat_job(await self._engine.get(clean(request.job_id)))

    async def ListChatJobs(self, request: pb.ListChatJobsRequest, context: Context) -> pb.ListChatJobsResponse:  # noqa: N802
        """List them, newest first."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        found = await self._engine.page(
            after=pages.decode_token(request.page_token, query=request),
            limit=size + 1,
            status=protos.read_status(request.status),
        )
        response = pb.ListChatJobsResponse(jobs=map(protos.chat_job, found[:size]))
        if len(found) > size:
            last = Position(sort_key=found[size - 1].create_time.isoformat(), id=found[size - 1].id)
            response.next_page_token = pages.encode_token(last, query=request)
        return response

    async def CancelChatJob(self, request: pb.CancelChatJobRequest, context: Context) -> pb.ChatJob:  # noqa: N802
        """Cancel one that is not finished."""
        del context
        return protos.chat_job(await self._engine.cancel(clean(request.job_id)))

    async def WatchChatJob(self, request: pb.WatchChatJobRequest, context: Context) -> AsyncIterator[chat.ChatEvent]:  # noqa: N802
        """Stream one's events."""
        after_seq = eventlog.resume_after(request.after_seq, context.invocation_metadata())
        async with aclosing(self._engine.watch(clean(request.job_id), after_seq=after_seq)) as events:
            async for event in events:
                yield protos.event(event)

    async def ListChatJobEvents(  # noqa: N802
        self, request: pb.ListChatJobEventsRequest, context: Context
    ) -> pb.ListChatJobEventsResponse:
        """List one's events up to now."""
        del context
        events, last_seq = await self._engine.events(
            clean(request.job_id), after_seq=request.after_seq, limit=request.page_size or _DEFAULT_EVENTS
        )
        return pb.ListChatJobEventsResponse(events=map(protos.event, events), last_seq=last_seq)

    async def ListRunSteps(self, request: pb.ListRunStepsRequest, context: Context) -> pb.ListRunStepsResponse:  # noqa: N802
        """List a run's steps."""
        del context
        steps = await self._engine.steps(
            clean(request.job_id), after_number=request.after_number, limit=request.page_size or _DEFAULT_STEPS
        )
        return pb.ListRunStepsResponse(steps=map(protos.step, steps))
