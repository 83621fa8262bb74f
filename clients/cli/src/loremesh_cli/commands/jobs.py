"""`jobs` and `replay`: the work a mesh has accepted, and what it gave up."""

from enum import StrEnum
from typing import Annotated
from uuid import uuid4

import typer
from loremesh.ingestion.v1 import job_pb2 as pb
from rich.table import Column, Table

from loremesh_cli import client
from loremesh_cli.commands.options import AsJson, Url, url_of
from loremesh_cli.errors import UsageError
from loremesh_cli.output import Output

PAGE_SIZE = 200


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


def jobs(
    *,
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="Those given up and not replayed since, and why.")] = False,
    limit: int = 50,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """List ingestion's jobs, newest first."""
    output, url = Output(as_json=as_json), url_of(url)
    if dead and state is not None:
        raise UsageError("--dead and --state exclude each other", reason="OPTIONS_EXCLUSIVE")
    if dead:
        letters = client.run(_dead(url, limit), url=url)
        output.result({"dead_letters": letters})
        table = Table(Column("job", min_width=36), "kind", "for", "attempts", "why", box=None)
        for letter in letters:
            why = f"{letter.reason}: {letter.message}"
            table.add_row(letter.job_id, letter.kind, letter.subject_id, str(letter.attempt), why)
    else:
        found = client.run(_jobs(url, limit, state), url=url)
        output.result({"jobs": found})
        table = Table(Column("id", min_width=36), "kind", "for", "state", "attempts", "last failure", box=None)
        for job in found:
            name = pb.JobState.Name(job.state).removeprefix("JOB_STATE_")
            table.add_row(job.id, job.kind, job.subject_id, name, f"{job.attempt}/{job.max_attempts}", job.error_reason)
    output.console.print(table)


def replay(
    job_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[JOB]...", help="These; all that fit if none.")
    ] = None,
    *,
    reason: Annotated[str, typer.Option(help="Only those given up for this reason.")] = "",
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """Take up jobs that were given up; `jobs --dead` lists them."""
    output, url = Output(as_json=as_json), url_of(url)
    if job_ids and reason:
        raise UsageError("name jobs or a reason, not both", reason="OPTIONS_EXCLUSIVE")
    replayed = client.run(_replay(url, job_ids or [], reason), url=url)
    output.result({"job_ids": replayed})
    output.say(f"{len(replayed)} taken up again")


async def _jobs(url: str, limit: int, state: State | None) -> list[pb.Job]:
    request = pb.ListJobsRequest(state=pb.JobState.Value(f"JOB_STATE_{state.name if state else 'UNSPECIFIED'}"))
    found: list[pb.Job] = []
    async with client.connect(url) as mesh:
        while len(found) < limit:
            request.page_size = min(PAGE_SIZE, limit - len(found))
            page = await mesh.jobs.ListJobs(request, timeout=client.UNARY_SECONDS)
            found += page.jobs
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
    return found


async def _dead(url: str, limit: int) -> list[pb.DeadLetter]:
    request = pb.ListDeadLettersRequest()
    found: list[pb.DeadLetter] = []
    async with client.connect(url) as mesh:
        while len(found) < limit:
            request.page_size = min(PAGE_SIZE, limit - len(found))
            page = await mesh.jobs.ListDeadLetters(request, timeout=client.UNARY_SECONDS)
            found += page.dead_letters
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
    return found


async def _replay(url: str, job_ids: list[str], reason: str) -> list[str]:
    request = pb.ReplayDeadLettersRequest(job_ids=job_ids, filter=pb.DeadLetterFilter(reason=reason))
    replayed: list[str] = []
    async with client.connect(url) as mesh:
        while True:
            key = (("idempotency-key", str(uuid4())),)
            answer = await mesh.jobs.ReplayDeadLetters(request, timeout=client.UNARY_SECONDS, metadata=key)
            replayed += answer.job_ids
            if not answer.more:
                return replayed
