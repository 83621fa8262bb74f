"""JobService."""

from datetime import datetime
from typing import Any

from grpc import aio
from loremesh.ingestion.v1 import job_pb2 as pb
from loremesh.ingestion.v1.job_pb2_grpc import JobServiceServicer
from loremesh_kit.dead_letters import DeadLetter, Which
from loremesh_kit.errors import PageTokenInvalid
from loremesh_kit.job_list import ListedJob
from loremesh_kit.pages import Position, decode_token, encode_token

from loremesh_ingestion.engine.jobs import Jobs
from loremesh_ingestion.servicers import messages
from loremesh_ingestion.servicers.documents import DEFAULT_PAGE

Context = aio.ServicerContext[Any, Any]


class JobServicer(JobServiceServicer):
    """One method per rpc."""

    def __init__(self, *, jobs: Jobs) -> None:
        self._jobs = jobs

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.Job:  # noqa: N802 - the rpc's name
        """Get one."""
        del context
        return _job(await self._jobs.get(messages.line(request.job_id)))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:  # noqa: N802
        """List a page, newest first."""
        del context
        limit = request.page_size or DEFAULT_PAGE
        after = decode_token(request.page_token, query=request)
        found = await self._jobs.page(
            state=pb.JobState.Name(request.state).removeprefix("JOB_STATE_") if request.state else "",
            kind=messages.line(request.kind),
            subject_id=messages.line(request.subject_id),
            before=messages.line(after.id) if after else "",
            limit=limit + 1,
        )
        response = pb.ListJobsResponse(jobs=[_job(each) for each in found[:limit]])
        if len(found) > limit:
            response.next_page_token = encode_token(Position(sort_key="", id=found[limit - 1].id), query=request)
        return response

    async def ListDeadLetters(  # noqa: N802
        self, request: pb.ListDeadLettersRequest, context: Context
    ) -> pb.ListDeadLettersResponse:
        """List a page, the latest first."""
        del context
        limit = request.page_size or DEFAULT_PAGE
        before = _place(decode_token(request.page_token, query=request))
        found = await self._jobs.dead(_which(request.filter), before=before, limit=limit + 1)
        response = pb.ListDeadLettersResponse(dead_letters=[_letter(each) for each in found[:limit]])
        if len(found) > limit:
            last = found[limit - 1]
            position = Position(sort_key=last.died_at.isoformat(), id=last.id)
            response.next_page_token = encode_token(position, query=request)
        return response

    async def ReplayDeadLetters(  # noqa: N802
        self, request: pb.ReplayDeadLettersRequest, context: Context
    ) -> pb.ReplayDeadLettersResponse:
        """Take up those named, or those that fulfil the filter."""
        del context
        job_ids = [messages.line(each) for each in request.job_ids]
        replayed, more = await self._jobs.replay(job_ids, _which(request.filter))
        return pb.ReplayDeadLettersResponse(job_ids=replayed, more=more)


def _which(given: pb.DeadLetterFilter) -> Which:
    return Which(
        kind=messages.line(given.kind), reason=messages.line(given.reason), subject_id=messages.line(given.subject_id)
    )


def _place(position: Position | None) -> tuple[datetime, str] | None:
    if position is None:
        return None
    try:
        return datetime.fromisoformat(position.sort_key), messages.line(position.id)
    except ValueError as error:
        raise PageTokenInvalid from error


def _job(job: ListedJob) -> pb.Job:
    return pb.Job(
        id=job.id,
        kind=job.kind,
        subject_id=job.subject_id,
        state=pb.JobState.Value(f"JOB_STATE_{job.state}"),
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        error_reason=job.error_reason or "",
        create_time=messages.timestamp(job.created_at),
        due_time=messages.timestamp(job.due_at),
        finish_time=None if job.finished_at is None else messages.timestamp(job.finished_at),
    )


def _letter(letter: DeadLetter) -> pb.DeadLetter:
    return pb.DeadLetter(
        job_id=letter.id,
        kind=letter.kind,
        subject_id=letter.subject_id,
        attempt=letter.attempt,
        reason=letter.reason,
        message=letter.message,
        die_time=messages.timestamp(letter.died_at),
    )
