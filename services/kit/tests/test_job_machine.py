"""The life of jobs as a state machine: whatever happens in whatever order, the table is what the model says."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test
from loremesh_kit import dead_letters
from loremesh_kit.dead_letters import JobNotDead
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.jobs import FenceLost, Job, cancel, complete, enqueue
from loremesh_kit.leases import Leases
from loremesh_kit.postgres import Database, open_database
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.sweeper import Sweeper
from loremesh_kit.testing import caller, fresh_database

pytestmark = pytest.mark.steelthread


@dataclass
class Model:
    """What a job's row has to say."""

    priority: int
    state: str = "QUEUED"
    attempt: int = 0
    fence: int = 0
    announced: bool = True

    def is_held_by(self, job: Job) -> bool:
        return self.state == "RUNNING" and self.fence == job.fence

    def leave(self, state: str) -> None:
        self.state, self.announced = state, state != "QUEUED" and self.announced


class BrokerWithEveryMessage:
    """No message is lost here."""

    async def backlog(self, *_: object) -> int:
        return 1000


class Idle:
    """A worker of this process which has room, and of which nothing is heard any more."""

    lease = 60.0

    def reserve(self) -> bool:
        return True

    def take(self, job: Job | None) -> None:
        pass


class JobLife(RuleBasedStateMachine):
    """Workers, the sweeper and operators at the same jobs; claims are kept, so that late ones are tried too."""

    runner: asyncio.Runner
    database: Database
    ids = Bundle("ids")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, Model] = {}
        self.leases = Leases(database=self.database, seconds=60)
        bus: Any = BrokerWithEveryMessage()
        self.sweeper = Sweeper(database=self.database, bus=bus, service="test")
        for table in ("jobs", "outbox", "dead_letters"):
            self.run(self.database.fetch_across_tenants(f"DELETE FROM {table}"))  # type: ignore[arg-type] # noqa: S608

    def run(self, work: Any) -> Any:
        with caller():
            return self.runner.run(work, context=copy_context())

    async def in_transaction(self, act: Any, *arguments: Any, **options: Any) -> Any:
        async with self.database.transaction() as connection:
            return await act(connection, *arguments, **options)

    @rule(target=ids, priority=st.integers(0, 1))
    def enqueue(self, priority: int) -> str:
        job_id, _ = self.run(self.in_transaction(enqueue, kind="k", payload={}, subject_id="s", priority=priority))
        self.model[job_id] = Model(priority=priority)
        return str(job_id)

    @rule(target=claims)
    def begin(self) -> Any:
        detach = self.database.attach(Idle())
        _, claim = self.run(self.in_transaction(enqueue, kind="k", payload={}, subject_id="s"))
        detach()
        self.model[claim.id] = Model(priority=0, state="RUNNING", attempt=1, fence=1)
        return claim

    @rule(target=claims, limit=st.integers(1, 2))
    def claim(self, limit: int) -> Any:
        waiting = {id_: job for id_, job in self.model.items() if job.state == "QUEUED" and job.announced}
        jobs = self.run(self.leases.claim(limit))
        assert len(jobs) == min(limit, len(waiting))
        priorities = sorted((job.priority for job in waiting.values()), reverse=True)
        assert [waiting[job.id].priority for job in jobs] == priorities[: len(jobs)]
        for job in jobs:
            held = self.model[job.id]
            held.state, held.attempt, held.fence = "RUNNING", held.attempt + 1, held.fence + 1
            assert (job.attempt, job.fence) == (held.attempt, held.fence)
        return multiple(*jobs)

    def _end(self, job: Job, work: Any, state: str) -> None:
        """Only the holder of the latest claim has any effect."""
        held = self.model[job.id]
        if held.is_held_by(job):
            self.run(work)
            held.leave(state)
        else:
            with pytest.raises(FenceLost):
                self.run(work)

    @rule(job=claims)
    def complete(self, job: Job) -> None:
        self._end(job, self.in_transaction(complete, job), "SUCCEEDED")

    @rule(job=claims)
    def retry(self, job: Job) -> None:
        self._end(job, self.leases.retry(job, DependencyUnavailable("x"), delay=0), "QUEUED")

    @rule(job=claims)
    def give_up(self, job: Job) -> None:
        async def on_dead(*_: object) -> None:
            pass

        self._end(job, self.leases.give_up(job, DependencyUnavailable("x"), on_dead), "FAILED")

    @rule(job=claims)
    def hand_back(self, job: Job) -> None:
        self.run(self.leases.hand_back([job]))
        held = self.model[job.id]
        if held.is_held_by(job):
            held.leave("QUEUED")
            held.attempt -= 1

    @rule(job=claims)
    def heartbeat(self, job: Job) -> None:
        assert bool(self.run(self.leases.extend([job]))) == self.model[job.id].is_held_by(job)

    @rule(job_id=ids)
    def expire(self, job_id: str) -> None:
        query = "UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = %s AND state = 'RUNNING'"
        self.run(self.database.fetch_across_tenants(query, [job_id]))
        self.sweep()
        if self.model[job_id].state == "RUNNING":
            self.model[job_id].state = "QUEUED"

    @rule()
    def sweep(self) -> None:
        self.run(self.sweeper.sweep())
        for job in self.model.values():
            job.announced = True

    @rule(job_id=ids)
    def cancel(self, job_id: str) -> None:
        job = self.model[job_id]
        is_open = job.state in ("QUEUED", "RUNNING")
        assert self.run(self.in_transaction(cancel, job_id)) == is_open
        if is_open:
            job.state, job.fence = "CANCELLED", job.fence + 1

    @rule(job_id=ids)
    def take_up_again(self, job_id: str) -> None:
        job = self.model[job_id]
        if job.state != "FAILED":
            with pytest.raises(JobNotDead):
                self.run(self.in_transaction(dead_letters.requeue, [job_id]))
            return
        self.run(self.in_transaction(dead_letters.requeue, [job_id]))
        job.leave("QUEUED")
        job.attempt, job.fence = 0, job.fence + 1

    @invariant()
    def the_table_is_the_model(self) -> None:
        rows = self.run(self.database.fetch("SELECT id, state, attempt, fence FROM jobs"))
        found = {row["id"]: (row["state"], row["attempt"], row["fence"]) for row in rows}
        assert found == {id_: (job.state, job.attempt, job.fence) for id_, job in self.model.items()}
        letters = self.run(dead_letters.page(self.database, dead_letters.Which(), limit=100))
        assert {letter.id for letter in letters} == {id_ for id_, job in self.model.items() if job.state == "FAILED"}


@pytest.fixture
def machine(postgres_url: str) -> Iterator[type[JobLife]]:
    """The machine on a database of its own; its loop is not that of an asynchronous test."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        urls = runner.run(stack.enter_async_context(fresh_database(postgres_url, schema="agent")))
        opened = open_database(ServiceSettings(database_url=urls.plain))
        JobLife.runner, JobLife.database = runner, runner.run(stack.enter_async_context(opened))
        yield JobLife
        runner.run(stack.aclose())


def test_whatever_happens_the_table_is_what_the_model_says(machine: type[JobLife]) -> None:
    few = settings(
        max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    run_state_machine_as_test(machine, settings=few)
