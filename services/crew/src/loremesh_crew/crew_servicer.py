"""CrewService: messages in, use cases, messages out."""

from collections.abc import Awaitable, Callable
from typing import Any

from grpc import aio
from loremesh.crew.v1 import crew_pb2 as pb
from loremesh.crew.v1 import run_pb2
from loremesh.crew.v1.crew_pb2_grpc import CrewServiceServicer
from loremesh_kit import pages
from loremesh_kit.errors import PageTokenInvalid
from loremesh_kit.pages import Position
from loremesh_kit.text import clean

from loremesh_crew import crew_protos as protos
from loremesh_crew.adapters.structs import plain
from loremesh_crew.domain import crewai_yaml
from loremesh_crew.engine.crews import CrewEngine
from loremesh_crew.engine.definitions import position

Context = aio.ServicerContext[Any, Any]

_DEFAULT_PAGE = 50


class CrewServicer(CrewServiceServicer):
    """Keeps crews."""

    def __init__(self, *, engine: CrewEngine, show: Callable[[str], Awaitable[run_pb2.Run]]) -> None:
        """`show` tells of a run by its id."""
        self._engine = engine
        self._show = show

    async def CreateCrew(self, request: pb.CreateCrewRequest, context: Context) -> pb.Crew:  # noqa: N802 - the rpc's
        """Create one."""
        del context
        return protos.crew(await self._engine.create(protos.read_crew(request.crew)))

    async def GetCrew(self, request: pb.GetCrewRequest, context: Context) -> pb.Crew:  # noqa: N802
        """Get one, or a revision of it."""
        del context
        return protos.crew(await self._engine.get(clean(request.crew_id), revision=request.revision))

    async def ListCrews(self, request: pb.ListCrewsRequest, context: Context) -> pb.ListCrewsResponse:  # noqa: N802
        """List them, those built in first."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        found = await self._engine.page(after=pages.decode_token(request.page_token, query=request), limit=size + 1)
        crews = protos.fitting([protos.crew(each) for each in found], size)
        response = pb.ListCrewsResponse(crews=crews)
        if len(found) > len(crews):
            last = position(crews[-1].id, built_in=crews[-1].built_in)
            response.next_page_token = pages.encode_token(last, query=request)
        return response

    async def UpdateCrew(self, request: pb.UpdateCrewRequest, context: Context) -> pb.Crew:  # noqa: N802
        """Update what the mask names, or what is set."""
        del context
        wanted = request.crew
        kept = await self._engine.update(
            clean(wanted.id),
            lambda current: protos.changed(current, wanted, request.update_mask),
            etag=wanted.etag,
        )
        return protos.crew(kept)

    async def DeleteCrew(self, request: pb.DeleteCrewRequest, context: Context) -> pb.DeleteCrewResponse:  # noqa: N802
        """Delete one."""
        del context
        await self._engine.delete(clean(request.crew_id))
        return pb.DeleteCrewResponse()

    async def ListCrewRevisions(  # noqa: N802
        self, request: pb.ListCrewRevisionsRequest, context: Context
    ) -> pb.ListCrewRevisionsResponse:
        """List one's revisions, newest first."""
        del context
        size = request.page_size or _DEFAULT_PAGE
        before = revision_of(pages.decode_token(request.page_token, query=request))
        found = await self._engine.revisions(clean(request.crew_id), before=before, limit=size + 1)
        revisions = protos.fitting([protos.crew(each) for each in found], size)
        response = pb.ListCrewRevisionsResponse(revisions=revisions)
        if len(found) > len(revisions):
            last = Position(sort_key=str(revisions[-1].revision), id=revisions[-1].id)
            response.next_page_token = pages.encode_token(last, query=request)
        return response

    async def RollbackCrew(self, request: pb.RollbackCrewRequest, context: Context) -> pb.Crew:  # noqa: N802
        """Make an old revision the next one."""
        del context
        kept = await self._engine.rollback(clean(request.crew_id), revision=request.revision, etag=request.etag)
        return protos.crew(kept)

    async def ValidateCrew(self, request: pb.ValidateCrewRequest, context: Context) -> pb.ValidateCrewResponse:  # noqa: N802
        """Say what is wrong with one."""
        del context
        found = await self._engine.faults(protos.read_crew(request.crew))
        return pb.ValidateCrewResponse(violations=map(protos.violation, found))

    async def ImportCrew(self, request: pb.ImportCrewRequest, context: Context) -> pb.Crew:  # noqa: N802
        """Make one of CrewAI's files."""
        del context
        crew = crewai_yaml.read(
            agents=request.agents_yaml,
            tasks=request.tasks_yaml,
            crew_id=clean(request.crew_id),
            name=clean(request.name),
            process=protos.read_process(request.process),
        )
        protos.check_crew(crew)
        if not request.validate_only:
            return protos.crew(await self._engine.create(crew))
        await self._engine.check(crew)
        return protos.crew(crew)

    async def KickoffCrew(self, request: pb.KickoffCrewRequest, context: Context) -> run_pb2.Run:  # noqa: N802
        """Start a run."""
        del context
        run_id = await self._engine.kickoff(
            clean(request.crew_id),
            revision=request.revision,
            inputs=plain(request.inputs),
            limits=protos.read_run_limits(request.limits),
        )
        return await self._show(run_id)

    async def KickoffCrewForEach(  # noqa: N802
        self, request: pb.KickoffCrewForEachRequest, context: Context
    ) -> pb.KickoffCrewForEachResponse:
        """Start a run for each of the inputs."""
        del context
        run_ids = await self._engine.kickoff_for_each(
            clean(request.crew_id),
            revision=request.revision,
            inputs=[plain(each) for each in request.inputs],
            limits=protos.read_run_limits(request.limits),
        )
        return pb.KickoffCrewForEachResponse(runs=[await self._show(each) for each in run_ids])


def revision_of(position_: Position | None) -> int | None:
    """The revision that a page ended with; raises PageTokenInvalid."""
    if position_ is None:
        return None
    if not position_.sort_key.isdecimal():
        raise PageTokenInvalid
    return int(position_.sort_key)
