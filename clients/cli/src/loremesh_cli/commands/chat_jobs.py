"""`chat-jobs`."""

from typing import Annotated

import typer
from loremesh.agent.v1 import chat_job_pb2 as pb
from rich.table import Table

from loremesh_cli import client
from loremesh_cli.commands.options import AsJson, Url, url_of
from loremesh_cli.output import Output

_PREFIX = "CHAT_JOB_STATUS_"


def chat_jobs(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    url: Url = "",
    as_json: AsJson = False,
) -> None:
    """List questions asked in the background, newest first."""
    output, url = Output(as_json=as_json), url_of(url)

    async def work() -> pb.ListChatJobsResponse:
        async with client.connect(url) as mesh:
            return await mesh.chat_jobs.ListChatJobs(
                pb.ListChatJobsRequest(page_size=limit), timeout=client.UNARY_SECONDS
            )

    response = client.run(work(), url=url)
    output.result({"jobs": list(response.jobs)})
    table = Table("id", "status", "attempt", "asked", "failed because", box=None)
    for job in response.jobs:
        status = pb.ChatJobStatus.Name(job.status).removeprefix(_PREFIX).lower()
        asked = f"{job.create_time.ToDatetime():%Y-%m-%d %H:%M:%S}"
        table.add_row(job.job_id, status, str(job.attempt), asked, job.error.reason)
    output.console.print(table)
