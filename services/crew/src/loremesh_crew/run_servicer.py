"""RunService: messages in, use cases, messages out."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from google.api import httpbody_pb2  # type: ignore[import-untyped]
from grpc import aio
from loremesh.crew.v1 import run_pb2 as pb
from loremesh.crew.v1.run_pb2_grpc import RunServiceServicer
from loremesh_kit import eventlog, pages
from loremesh_kit.pages import Position
from loremesh_kit.text import clean

from loremesh_crew import run_export
from loremesh_crew import run_protos as protos
from loremesh_crew.adapters.structs import plain, plain_value
from loremesh_crew.crew_protos import fitting
from loremesh_crew.domain.comparing import differences
from loremesh_crew.domain.forking import Changes
from loremesh_crew.engine.forking import Forking
from loremesh_crew.engine.replaying import Replaying
from loremesh_crew.engine.runs import Runs

Context = aio.ServicerContext[Any, Any]

_DEFAULT_PAGE = 50
_DEFAULT_EVENTS = 100


class RunServicer(RunServiceServicer):
    """Shows runs and steers them."""

    def __init__(self, *, runs: Runs, forking: Forking, replaying: Replaying) -> None:
        self._runs = runs
        self._forking = forking
        self._replaying = replaying

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.Run:  # noqa: N802 - the rpc's
        """Get one."""
        del context
        return protos.run(*await self._runs.get(clean(request.run_id)))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:  # noqa: N802
        """List them, newest first."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        found = await self._runs.page(
            after=pages.decode_token(request.page_token, query=request),
            limit=size + 1,
            definition_id=clean(request.definition_id),
            status=protos.read_status(request.status),
            children=request.children,
        )
        runs = fitting([protos.listed(each) for each in found], size)
        response = pb.ListRunsResponse(runs=runs)
        if len(found) > len(runs):
            last = found[len(runs) - 1]
            position = Position(sort_key=last.create_time.isoformat(), id=last.pinned.run_id)
            response.next_page_token = pages.encode_token(position, query=request)
        return response

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.RunEvent]:  # noqa: N802
        """Stream one's events."""
        run_id = clean(request.run_id)
        after_seq = eventlog.resume_after(request.after_seq, context.invocation_metadata())
        async with aclosing(self._runs.watch(run_id, after_seq=after_seq)) as events:
            async for event in events:
                yield protos.event(run_id, event)

    async def ListRunEvents(  # noqa: N802
        self, request: pb.ListRunEventsRequest, context: Context
    ) -> pb.ListRunEventsResponse:
        """List one's events up to now."""
        del context
        run_id = clean(request.run_id)
        size = request.page_size or _DEFAULT_EVENTS
        found, last_seq = await self._runs.events(run_id, after_seq=request.after_seq, limit=size)
        events = fitting([protos.event(run_id, event) for event in found], size)
        return pb.ListRunEventsResponse(events=events, last_seq=last_seq)

    async def GetRunTree(self, request: pb.GetRunTreeRequest, context: Context) -> pb.RunTree:  # noqa: N802
        """Get one with those below it."""
        del context
        return protos.tree(await self._runs.tree(clean(request.run_id)))

    async def GetRunFile(self, request: pb.GetRunFileRequest, context: Context) -> httpbody_pb2.HttpBody:  # noqa: N802
        """Get a file."""
        del context
        name = clean(request.file_name)
        task = await self._runs.file(clean(request.run_id), name)
        return httpbody_pb2.HttpBody(
            content_type=f"{protos.media_type(name)}; charset=utf-8", data=task.output.encode()
        )

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.Run:  # noqa: N802
        """Cancel one that is not finished."""
        del context
        return protos.run(*await self._runs.cancel(clean(request.run_id), comment=clean(request.comment)))

    async def PauseRun(self, request: pb.PauseRunRequest, context: Context) -> pb.Run:  # noqa: N802
        """Pause one."""
        del context
        return protos.run(*await self._runs.pause(clean(request.run_id)))

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: Context) -> pb.Run:  # noqa: N802
        """Let one go on."""
        del context
        return protos.run(*await self._runs.resume(clean(request.run_id)))

    async def SignalRun(self, request: pb.SignalRunRequest, context: Context) -> pb.Run:  # noqa: N802
        """Give one a signal."""
        del context
        shown = await self._runs.signal(
            clean(request.run_id),
            signal=clean(request.signal),
            signal_id=clean(request.signal_id),
            payload=plain_value(request.payload),
        )
        return protos.run(*shown)

    async def ReplayRun(self, request: pb.ReplayRunRequest, context: Context) -> pb.ReplayRunResponse:  # noqa: N802
        """Decide one anew."""
        del context
        decisions, found = await self._replaying.replay(clean(request.run_id))
        return pb.ReplayRunResponse(
            decisions=decisions,
            differences=[
                pb.ReplayDifference(
                    decision=each.decision, event=each.event, recorded=each.recorded, replayed=each.replayed
                )
                for each in found
            ],
        )

    async def ForkRun(self, request: pb.ForkRunRequest, context: Context) -> pb.Run:  # noqa: N802
        """Begin another from one."""
        del context
        changes = Changes(
            inputs=plain(request.inputs),
            model=clean(request.model),
            descriptions={clean(name): clean(text) for name, text in request.descriptions.items()},
        )
        run_id = await self._forking.fork(clean(request.run_id), after_seq=request.after_seq, changes=changes)
        return protos.run(*await self._runs.get(run_id))

    async def DiffRuns(self, request: pb.DiffRunsRequest, context: Context) -> pb.DiffRunsResponse:  # noqa: N802
        """Compare two."""
        del context
        (one, view), (other, other_view) = [
            await self._runs.get(clean(run_id)) for run_id in (request.run_id, request.other_run_id)
        ]
        found = differences((one.pinned, view), (other.pinned, other_view))
        return pb.DiffRunsResponse(
            differences=[pb.RunDifference(field=field, left=left, right=right) for field, left, right in found]
        )

    async def ExportRun(self, request: pb.ExportRunRequest, context: Context) -> httpbody_pb2.HttpBody:  # noqa: N802
        """Draw one, or give all of it."""
        del context
        run_id = clean(request.run_id)
        if request.format == pb.EXPORT_FORMAT_JSON:
            return await run_export.as_json(self._runs, run_id)
        return await run_export.as_mermaid(self._runs, run_id)

    async def ExplainTransition(  # noqa: N802
        self, request: pb.ExplainTransitionRequest, context: Context
    ) -> pb.ExplainTransitionResponse:
        """Say why a flow went where it went."""
        del context
        found = await self._runs.explain(clean(request.run_id), state=clean(request.state), visit=request.visit)
        return pb.ExplainTransitionResponse(report=protos.report(found))
