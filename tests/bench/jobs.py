"""What durable work costs beyond the work itself, on servers of its own: `python -m tests.bench.jobs`."""

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from loremesh_cli.mesh import nats, postgres
from loremesh_cli.mesh.ports import free_ports
from loremesh_cli.mesh.running import running
from loremesh_kit.events import connect
from loremesh_kit.ids import new_id
from loremesh_kit.jobs import Handler, Job, complete
from loremesh_kit.outbox import Relay
from loremesh_kit.postgres import Connection, Database, open_database
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.telemetry import logs
from loremesh_kit.testing import caller, fresh_database
from loremesh_kit.worker import JobWorker
from psycopg import AsyncPipeline

from tests.bench.measure import row

SERVICE = "bench"
SECONDS = 300.0

_ENQUEUE = """
WITH job AS (
    INSERT INTO jobs (
        tenant, id, kind, subject_id, principal, request_id, payload, max_attempts, announced_at, announcements
    )
    SELECT 'bench', id, 'work', 's', 'p', 'r', jsonb_build_object('seconds', %(seconds)s::float), 8, now(), 1
    FROM unnest(%(ids)s::text[]) AS id
)
INSERT INTO outbox (tenant, id, subject, data, keep)
SELECT 'bench', id || '.1', 'jobs.work', jsonb_build_object('tenant', 'bench', 'job_id', id), false
FROM unnest(%(ids)s::text[]) AS id
"""

# Between the first end and the last, so that nobody's start counts.
_SPAN = """
SELECT count(*) AS jobs, extract(epoch FROM max(finished_at) - min(finished_at))::float AS seconds FROM jobs
WHERE state = 'SUCCEEDED'
"""


@dataclass(frozen=True)
class Servers:
    """Where Postgres, with the kit's tables, and NATS are, and the name under which to use them."""

    database_url: str
    nats_url: str
    service: str


def main() -> None:
    """Measure everything and print a line for each target."""
    # As a service logs, where nobody reads it.
    logs.configure(service=SERVICE, settings=ServiceSettings(log_level="WARNING"))
    with tempfile.TemporaryDirectory(prefix="loremesh-bench-") as place, servers(Path(place)) as (superuser_url, bus):
        uvloop.run(_measure(superuser_url, bus))


@contextmanager
def servers(place: Path) -> Iterator[tuple[str, str]]:
    """A durable PostgreSQL and a NATS; the URLs of its superuser, and of the broker."""
    password, (first, second) = secrets.token_urlsafe(), free_ports(2)
    # PostgreSQL may run as an account that has no way into a private folder.
    place.chmod(0o755)
    postgres.create(place / "postgres", password=password)
    with ExitStack() as stack:
        stack.enter_context(running(postgres.program(place / "postgres", port=first), log=place / "postgres.log"))
        stack.enter_context(
            running(nats.program(place / "nats", port=second, password=password), log=place / "nats.log")
        )
        yield postgres.url(first, user=postgres.SUPERUSER, password=password), nats.url(second, password=password)


async def _measure(superuser_url: str, nats_url: str) -> None:
    async with fresh_database(superuser_url, schema=SERVICE) as urls:
        await cost(Servers(urls.plain, nats_url, SERVICE))
    rate = await drained(superuser_url, nats_url, jobs=10_000, workers=2, concurrency=16, seconds=0)
    row("10,000 queued jobs without work, 2 workers", f"{rate:.0f} jobs/s", ">= 300 jobs/s", met=rate >= 300)
    one = await drained(superuser_url, nats_url, jobs=200, workers=1, concurrency=4, seconds=0.1)
    four = await drained(superuser_url, nats_url, jobs=800, workers=4, concurrency=4, seconds=0.1)
    row("jobs of 100 ms, 4 workers against one", f"{four / one:.2f} x", ">= 3.8 x", met=four >= 3.8 * one)


async def drained(
    superuser_url: str, nats_url: str, *, jobs: int, workers: int, concurrency: int, seconds: float
) -> float:
    """Jobs a second that so many worker processes do, all jobs being queued before; each takes `seconds`."""
    async with (
        fresh_database(superuser_url, schema=SERVICE) as urls,
        open_database(ServiceSettings(database_url=urls.plain)) as database,
    ):
        await _enqueue(database, jobs, seconds=seconds)
        place = Servers(urls.plain, nats_url, f"{SERVICE}-{jobs}-{workers}")
        with ExitStack() as stack:
            for _ in range(workers):
                stack.enter_context(_process(place, concurrency))
            async with asyncio.timeout(SECONDS):
                while (span := (await database.fetch_across_tenants(_SPAN))[0])["jobs"] < jobs:  # noqa: ASYNC110
                    await asyncio.sleep(0.25)
    return float(jobs / span["seconds"])


@contextmanager
def _process(place: Servers, concurrency: int) -> Iterator[None]:
    environment = {
        **os.environ,
        "DATABASE_URL": place.database_url,
        "NATS_URL": place.nats_url,
        "SERVICE": place.service,
        "CONCURRENCY": str(concurrency),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.jobs", "worker"], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


async def work_in_this_process() -> None:
    """A worker as a service runs it, until it is killed."""
    place = Servers(os.environ["DATABASE_URL"], os.environ["NATS_URL"], os.environ["SERVICE"])
    logs.configure(service=place.service, settings=ServiceSettings())
    async with open_database(ServiceSettings(database_url=place.database_url)) as database:

        async def handler(job: Job) -> None:
            await asyncio.sleep(job.payload["seconds"])
            await _nothing(database, job)

        async with _worker(place, database, handler, concurrency=int(os.environ["CONCURRENCY"])):
            await asyncio.sleep(SECONDS)


@asynccontextmanager
async def _worker(place: Servers, database: Database, handler: Handler, *, concurrency: int) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with (
        connect(place.nats_url, service=place.service, on_closed=lambda: None) as bus,
        asyncio.TaskGroup() as group,
    ):
        worker = JobWorker(
            database=database,
            bus=bus,
            service=place.service,
            handlers={"work": handler},
            on_dead=_never,
            concurrency=concurrency,
        )
        group.create_task(worker.run(stop))
        group.create_task(Relay(database=database, bus=bus, service=place.service).run(stop))
        yield
        stop.set()


async def cost(place: Servers, *, jobs: int = 500) -> None:
    """One job after another: how long each takes beyond the same work done bare, and its way to Postgres and back."""
    async with open_database(ServiceSettings(database_url=place.database_url)) as database:
        with caller(tenant=SERVICE):
            bare = await _bare(database, jobs)
        await _enqueue(database, jobs, seconds=0)
        done, all_done = [0.0], asyncio.Event()

        async def handler(job: Job) -> None:
            await _nothing(database, job)
            done.append(time.perf_counter())
            if len(done) > jobs:
                all_done.set()

        async with AsyncExitStack() as stack:
            trips = stack.enter_context(_counted())
            await stack.enter_async_context(_worker(place, database, handler, concurrency=1))
            async with asyncio.timeout(SECONDS):
                await all_done.wait()
            per_job = len(trips) / jobs
    beyond = ((done[-1] - done[1]) / (jobs - 1) - bare) * 1000
    row("round trips to Postgres a job", f"{per_job:.2f}", "<= 6", met=per_job <= 6)
    row("a job beyond its work done bare", f"{beyond:.2f} ms", "<= 5 ms", met=beyond <= 5)


async def _bare(database: Database, times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        async with database.transaction() as connection:
            await connection.execute("SELECT 1")
    return (time.perf_counter() - started) / times


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Counts the waits for Postgres: each of a single statement, one of a pipeline."""
    trips: list[int] = []
    wait, leave = Connection.wait, AsyncPipeline.__aexit__

    async def counted_wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        trips.extend([1] if self._pipeline is None else [])
        return await wait(self, *args, **kwargs)

    async def counted_leave(self: Any, *args: Any) -> Any:
        trips.append(1)
        return await leave(self, *args)

    patched: Any = (Connection, AsyncPipeline)
    patched[0].wait, patched[1].__aexit__ = counted_wait, counted_leave
    try:
        yield trips
    finally:
        patched[0].wait, patched[1].__aexit__ = wait, leave


async def _nothing(database: Database, job: Job) -> None:
    async with database.transaction() as connection:
        await complete(connection, job)


async def _enqueue(database: Database, jobs: int, *, seconds: float) -> None:
    await database.fetch(_ENQUEUE, {"ids": [new_id() for _ in range(jobs)], "seconds": seconds}, tenant=SERVICE)


async def _never(*_: object) -> None:
    message = "no job of a benchmark dies"
    raise AssertionError(message)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        uvloop.run(work_in_this_process())
    else:
        main()
