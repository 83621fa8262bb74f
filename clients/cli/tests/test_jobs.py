"""Jobs listed and replayed."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from loremesh.ingestion.v1 import job_pb2 as pb
from loremesh_cli.errors import CommandError, UsageError
from loremesh_cli.main import app

pytestmark = pytest.mark.unit


@pytest.fixture
def command(mesh: Any, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command in a thread, the mesh being in this one; what it prints."""

    async def run(*arguments: str) -> str:
        full = [*arguments, "--url", mesh.url]
        await asyncio.to_thread(app, full, standalone_mode=False)
        return capsys.readouterr().out

    return run


def letter(job_id: str, reason: str) -> pb.DeadLetter:
    return pb.DeadLetter(job_id=job_id, kind="index", subject_id="d1", attempt=3, reason=reason, message="It broke.")


async def test_jobs_are_listed_through_all_pages_up_to_the_limit(mesh: Any, command: Any) -> None:
    mesh.jobs.jobs = [pb.Job(id=f"job-{n}", kind="index", state=pb.JOB_STATE_RUNNING) for n in range(5)]

    assert [job["id"] for job in json.loads(await command("jobs", "--json"))["jobs"]] == [f"job-{n}" for n in range(5)]
    assert len(json.loads(await command("jobs", "--json", "--limit", "3"))["jobs"]) == 3
    assert json.loads(await command("jobs", "--json", "--state", "failed"))["jobs"] == []
    assert "RUNNING" in await command("jobs")


async def test_the_dead_are_listed_with_the_reason(mesh: Any, command: Any) -> None:
    mesh.jobs.letters = [letter("job-1", "PARSE_LIMIT")]

    assert json.loads(await command("jobs", "--dead", "--json"))["dead_letters"][0]["reason"] == "PARSE_LIMIT"
    with pytest.raises(UsageError):
        await command("jobs", "--dead", "--state", "failed")


async def test_replaying_goes_on_until_none_are_left(mesh: Any, command: Any) -> None:
    mesh.jobs.letters = [letter(f"job-{n}", "INTERNAL") for n in range(3)] + [letter("job-3", "PARSE_LIMIT")]

    replayed = json.loads(await command("replay", "--reason", "INTERNAL", "--json"))["job_ids"]
    assert replayed == ["job-0", "job-1", "job-2"]
    assert len(set(mesh.jobs.keys)) == 3, "each call has a key of its own"
    assert "1 taken up again" in await command("replay", "job-3")
    with pytest.raises(CommandError, match="JOB_NOT_FOUND"):
        await command("replay", "job-9")
    with pytest.raises(UsageError):
        await command("replay", "job-1", "--reason", "INTERNAL")
