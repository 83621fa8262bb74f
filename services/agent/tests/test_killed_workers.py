"""Workers as processes, killed and frozen amid an answer."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from loremesh.agent.v1 import chat_job_pb2 as pb

from .replicas import ANSWER, Mesh, Replica, check, kinds, text_of, until

pytestmark = pytest.mark.steelthread


@asynccontextmanager
async def worker(mesh: Mesh, *says: str | float) -> AsyncIterator[Process]:
    """A worker whose model says these texts, with these pauses in seconds."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / "worker_process.py"),
        json.dumps(says),
        env={**os.environ, "DATABASE_URL": mesh.urls.plain, "NATS_URL": mesh.nats_url},
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def begun(replica: Replica) -> pb.CreateChatJobResponse:
    """A job of which something was said."""
    made = await replica.create()
    await until(lambda: replica.has_said_something(made.job_id))
    return made


async def test_a_killed_workers_job_is_finished_by_another(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica:
        async with worker(mesh, "It was", 60.0) as dying:
            made = await begun(replica)
            dying.send_signal(signal.SIGKILL)
            await dying.wait()
        async with worker(mesh, ANSWER):
            events = await replica.watch(made.job_id)
        check(events)
        assert (text_of(events, 1), text_of(events, 2)) == ("It was", ANSWER)
        assert (await replica.messages(made.conversation_id))[1].content == ANSWER


async def test_a_frozen_worker_that_goes_on_too_late_changes_nothing(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica, worker(mesh, "It was", 1.0, " wrong.") as frozen:
        made = await begun(replica)
        frozen.send_signal(signal.SIGSTOP)
        async with worker(mesh, ANSWER):
            events = await replica.watch(made.job_id)
        frozen.send_signal(signal.SIGCONT)
        await asyncio.sleep(2)
        assert await replica.watch(made.job_id) == events
        check(events)
        assert kinds(events)[-1] == "completed"
        assert events[-1].completed.response == (await replica.job(made.job_id)).result.response == ANSWER
        assert (await replica.messages(made.conversation_id))[1].content == ANSWER
