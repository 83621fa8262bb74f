"""Jobs while workers die and freeze, the broker goes away and loses everything, and Postgres restarts."""

import asyncio
import os
import secrets
import signal
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from loremesh_cli.mesh import postgres
from loremesh_cli.mesh.ports import free_ports
from loremesh_cli.mesh.running import running
from loremesh_kit.events import connect, stream_of
from loremesh_kit.postgres import open_database
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import fresh_database

pytestmark = pytest.mark.steelthread


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("loremesh_kit.worker._FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr("loremesh_kit.sweeper._SECONDS", 0.1)
    monkeypatch.setattr("loremesh_kit.sweeper._PATIENCE", 1.0)


class WorkerProcess:
    def __init__(self, process):
        self._process = process

    async def says(self, word, seconds=20.0):
        """Wait for a line that begins so; the rest of the line."""
        async with asyncio.timeout(seconds):
            while line := (await self._process.stdout.readline()).decode():
                if line.startswith(word):
                    return line.split()[1]
        raise AssertionError(word)

    def send(self, number):
        self._process.send_signal(number)

    async def end(self):
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@pytest.fixture
async def start_worker(database_urls, nats_url, service):
    """Start a worker process with a lease of so many seconds."""
    started = []

    async def start(lease):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).parent / "worker_process.py"),
            env={
                **os.environ,
                "DATABASE_URL": database_urls.plain,
                "NATS_URL": nats_url,
                "SERVICE": service,
                "LEASE": str(lease),
            },
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(WorkerProcess(process))
        return started[-1]

    yield start
    for worker in started:
        await worker.end()


async def test_a_killed_workers_job_is_taken_over_when_its_lease_ends(workshop, start_worker):
    first = await start_worker(lease=1.5)
    async with workshop.open():
        job_id = await workshop.enqueue(payload={"seconds": 60})
        assert await first.says("claimed") == job_id
        first.send(signal.SIGKILL)
        killed_at = time.monotonic()
        async with workshop.open(workshop.worker(lease=1.5), relay=False):
            await workshop.until("SUCCEEDED")

    assert time.monotonic() - killed_at < 30  # the job itself takes a minute
    assert [row["consumer"] for row in await workshop.effects()] == ["attempt 2"]


async def test_a_job_that_kills_every_worker_is_given_up(workshop, start_worker):
    async with workshop.open():
        await workshop.enqueue(payload={"seconds": 60}, max_attempts=2)
        for _ in range(2):
            victim = await start_worker(lease=0.6)
            await victim.says("claimed")
            await victim.end()
        async with workshop.open(workshop.worker(), relay=False):
            await workshop.until("FAILED")

    ((_, error),) = workshop.dead
    assert error.reason == "ATTEMPTS_EXHAUSTED"


async def test_a_frozen_worker_that_wakes_up_late_changes_nothing(workshop, start_worker):
    frozen = await start_worker(lease=1.0)
    async with workshop.open():
        job_id = await workshop.enqueue(payload={"seconds": 1})
        await frozen.says("claimed")
        frozen.send(signal.SIGSTOP)
        async with workshop.open(workshop.worker(), relay=False):
            await workshop.until("SUCCEEDED")
        frozen.send(signal.SIGCONT)
        await asyncio.sleep(2)

    assert [row["consumer"] for row in await workshop.effects()] == ["attempt 2"]
    assert (await workshop.job(job_id))["state"] == "SUCCEEDED"


async def test_a_stopping_worker_finishes_what_it_can_and_hands_back_the_rest(workshop):
    entered, quick, slow = [], asyncio.Event(), asyncio.Event()

    async def handler(job):
        entered.append(job)
        (slow if job.payload.get("slow") else quick).set()
        if len(entered) <= 2:
            await asyncio.sleep(60 if job.payload.get("slow") else 0.3)
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    async with workshop.open():
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(workshop.worker(grace=0.8, lease=60.0).run(stop))
            quick_id = await workshop.enqueue()
            slow_id = await workshop.enqueue(payload={"slow": True})
            await asyncio.gather(quick.wait(), slow.wait())  # noqa: TID251 - both, in a test
            stop.set()
        assert (await workshop.job(quick_id))["state"] == "SUCCEEDED"
        assert (await workshop.job(slow_id))["state"] == "QUEUED"
        async with workshop.open(workshop.worker(), relay=False):
            await workshop.until("SUCCEEDED", 2, seconds=5)

    assert (await workshop.job(slow_id))["attempt"] == 1, "handed back attempts do not count"


async def test_messages_lost_by_the_broker_are_announced_again(workshop, bus, service):
    jobs = [await workshop.enqueue() for _ in range(20)]
    async with workshop.open():
        async with asyncio.timeout(10):
            while await workshop.rows("SELECT 1 FROM outbox"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    await bus.require_connection().jetstream().purge_stream(stream_of(service))

    async with workshop.open(workshop.worker()):
        await workshop.until("SUCCEEDED", len(jobs))


async def test_a_waiting_job_is_not_announced_over_and_over(workshop):
    """A long queue must not fill the stream with copies of itself."""

    async def handler(job):
        await asyncio.sleep(1.2)  # two sweeps and more for all, and less than a message may be on its way
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    for _ in range(3):
        await workshop.enqueue()
    async with workshop.open(workshop.worker(concurrency=1, lease=10.0)):
        await workshop.until("SUCCEEDED", 3, seconds=30)

    assert {row["announcements"] for row in await workshop.rows("SELECT announcements FROM jobs")} == {1}


@asynccontextmanager
async def workshop_on(broker, workshop):
    """The same workshop, on a broker of its own."""
    async with connect(broker.url, service=workshop.service, on_closed=lambda: None) as own:
        workshop.bus = own
        yield workshop


async def test_a_broker_that_comes_late_is_waited_for(workshop, broker):
    async with workshop_on(broker, workshop):
        # Before there is a worker in this process, which would begin it at once.
        await workshop.enqueue()
        async with workshop.open(workshop.worker()):
            await asyncio.sleep(1)
            assert await workshop.states() == {"QUEUED": 1}
            broker.start()
            await workshop.until("SUCCEEDED")


async def test_a_broker_wiped_in_the_midst_of_work_loses_nothing(workshop, broker):
    broker.start()

    async def handler(job):
        await asyncio.sleep(0.05)
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    async with workshop_on(broker, workshop), workshop.open(workshop.worker(concurrency=2)):
        for index in range(60):
            await workshop.enqueue()
            if index == 30:
                await asyncio.to_thread(broker.stop)
                broker.wipe()
                await asyncio.to_thread(broker.start)
        await workshop.until("SUCCEEDED", 60, seconds=60)

    effects = await workshop.effects()
    assert len(effects) == len({row["message_id"] for row in effects}) == 60


async def test_a_postgres_that_restarts_in_the_midst_of_work_is_come_back_to(tmp_path, nats_url, workshop, service):
    directory, password, (port,) = tmp_path / "postgres", secrets.token_urlsafe(), free_ports(1)
    postgres.create(directory, password=password)
    program = postgres.program(directory, port=port)
    url = postgres.url(port, user=postgres.SUPERUSER, password=password)
    log = tmp_path / "postgres.log"

    async def handler(job):
        await asyncio.sleep(0.05)
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    start = running(program, log=log)
    process = await asyncio.to_thread(start.__enter__)
    try:
        async with (
            fresh_database(url, schema="agent") as urls,
            open_database(ServiceSettings(database_url=urls.plain)) as own,
        ):
            workshop.database = own
            async with workshop.open(workshop.worker(concurrency=2)):
                for _ in range(40):
                    await workshop.enqueue()
                process.send_signal(signal.SIGKILL)
                await asyncio.to_thread(process.wait)
                start = running(program, log=log)
                process = await asyncio.to_thread(start.__enter__)
                await workshop.until("SUCCEEDED", 40, seconds=60)
            effects = await workshop.effects()
    finally:
        await asyncio.to_thread(start.__exit__, None, None, None)

    assert len(effects) == len({row["message_id"] for row in effects}) == 40
