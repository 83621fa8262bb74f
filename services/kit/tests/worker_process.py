# ruff: noqa: T201 - its test reads what it prints
"""A worker as a process of its own, for tests to kill and to freeze; prints what its handler does."""

import asyncio
import os
from contextlib import AsyncExitStack

from loremesh_kit.events import connect
from loremesh_kit.jobs import FenceLost, Job, complete
from loremesh_kit.postgres import open_database
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.worker import JobWorker


async def main() -> None:
    settings = ServiceSettings()
    service = os.environ["SERVICE"]
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        bus = await stack.enter_async_context(connect(settings.nats_url, service=service))

        async def handler(job: Job) -> None:
            print("claimed", job.id, flush=True)
            await asyncio.sleep(job.payload.get("seconds", 0))
            try:
                async with database.transaction() as connection:
                    await connection.execute(
                        "INSERT INTO inbox (tenant, consumer, message_id) VALUES (%s, %s, %s)",
                        [job.tenant, f"attempt {job.attempt}", job.id],
                    )
                    await complete(connection, job)
            except FenceLost:
                print("lost", job.id, flush=True)
                raise
            print("done", job.id, flush=True)

        async def on_dead(*_: object) -> None:
            print("dead", flush=True)

        worker = JobWorker(
            database=database,
            bus=bus,
            service=service,
            handlers={"noop": handler},
            on_dead=on_dead,
            concurrency=4,
            lease=float(os.environ["LEASE"]),
        )
        await worker.run(asyncio.Event())


asyncio.run(main())
