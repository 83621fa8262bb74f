"""Jobs on a real Postgres and NATS, nothing failing but the handlers."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from loremesh_kit import deadline, identity
from loremesh_kit.errors import Code, DependencyUnavailable, Overloaded, ServiceError
from loremesh_kit.jobs import FenceLost, cancel, complete, enqueue, park, unpark, waiting
from loremesh_kit.leases import Leases
from loremesh_kit.outbox import OUTBOX
from loremesh_kit.postgres import Connection
from loremesh_kit.testing import caller
from psycopg import AsyncPipeline

pytestmark = pytest.mark.steelthread


class DocumentCorrupt(ServiceError):
    code = Code.INVALID_ARGUMENT
    reason = "DOCUMENT_CORRUPT"


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr("loremesh_kit.worker._FIRST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr("loremesh_kit.sweeper._SECONDS", 0.1)


async def test_an_accepted_job_is_done_under_its_callers_identity(workshop):
    seen = []

    async def handler(job):
        seen.append((job, identity.current()))
        await workshop.complete(job)

    workshop.handlers["index"] = handler
    async with workshop.open(workshop.worker()):
        job_id = await workshop.enqueue("index", payload={"document_id": "d"}, subject_id="d")
        await workshop.until("SUCCEEDED")

    ((job, who),) = seen
    assert (job.id, job.kind, job.payload, job.subject_id) == (job_id, "index", {"document_id": "d"}, "d")
    assert (job.attempt, job.fence) == (1, 1)
    assert who == identity.Identity(tenant="acme", principal="ada", request_id="request-1")
    assert [row["message_id"] for row in await workshop.effects()] == [job_id]
    assert await workshop.rows("SELECT * FROM outbox") == []


async def test_a_job_for_a_worker_of_this_process_is_begun_without_a_message_while_it_has_room(workshop):
    stop, announced = asyncio.Event(), []

    async def handler(job):
        await stop.wait()
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    worker = workshop.worker()
    async with workshop.open(worker):
        await workshop.idle(worker)
        workshop.database.listen(lambda topic: announced.append(topic) if topic == OUTBOX else None)
        room = worker._room()
        for _ in range(room + 2):
            await workshop.enqueue()
        assert worker._room() == 0
        assert len(announced) == 2
        stop.set()
        await workshop.until("SUCCEEDED", room + 2)


async def test_a_job_whose_taker_died_before_it_began_is_found(workshop):
    class Dying:
        lease = 0.5

        def reserve(self):
            return True

        def take(self, job):
            self.told = job

    dying = Dying()
    detach = workshop.database.attach(dying)
    job_id = await workshop.enqueue()
    detach()
    assert dying.told.id == job_id
    assert (await workshop.job(job_id))["state"] == "RUNNING"
    assert await workshop.rows("SELECT * FROM outbox") == []
    async with workshop.open(workshop.worker()):
        await workshop.until("SUCCEEDED")


async def test_whoever_waits_comes_before_a_job_that_could_be_begun_at_once(workshop):
    free, done = asyncio.Event(), []

    async def handler(job):
        if job.subject_id == "first":
            await free.wait()
        done.append(job.subject_id)
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    worker = workshop.worker(concurrency=1)
    async with workshop.open(worker):
        await workshop.idle(worker)
        await workshop.enqueue(subject_id="first")
        await workshop.enqueue(subject_id="waits")
        free.set()
        async with asyncio.timeout(5):
            while worker._room() == 0:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
        # There is room again, and nobody has looked yet who waits.
        await workshop.enqueue(subject_id="late")
        await workshop.until("SUCCEEDED", 3)
    assert done == ["first", "waits", "late"]


async def test_a_worker_that_was_busy_learns_that_nobody_waits_any_more(workshop):
    worker = workshop.worker(concurrency=2)
    async with workshop.open(worker):
        await workshop.idle(worker)
        worker._idle = False
        await workshop.enqueue()
        await workshop.until("SUCCEEDED", 1)
        assert worker._idle


async def test_a_job_of_a_savepoint_that_was_undone_is_not_begun(workshop):
    begun = []

    async def handler(job):
        begun.append(job.subject_id)
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    worker = workshop.worker()
    async with workshop.open(worker):
        await workshop.idle(worker)
        room = worker._room()
        with caller():
            async with workshop.database.transaction() as connection:
                with suppress(RuntimeError):
                    async with connection.transaction():
                        await enqueue(connection, kind="noop", payload={}, subject_id="undone")
                        assert worker._room() == room - 1
                        raise RuntimeError
                assert worker._room() == room
                await enqueue(connection, kind="noop", payload={}, subject_id="done")
        await workshop.until("SUCCEEDED")
        await asyncio.sleep(0.2)
    assert begun == ["done"]


async def test_a_job_that_is_begun_at_once_has_neither_the_deadline_nor_the_identity_of_its_caller(workshop):
    seen = []

    async def handler(job):
        seen.append((deadline.remaining() > 60, identity.current().request_id))
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    worker = workshop.worker()
    async with workshop.open(worker):
        await workshop.idle(worker)
        with deadline.scope(5):
            await workshop.enqueue()
        await workshop.until("SUCCEEDED")
    assert seen == [(True, "request-1")]


async def test_a_job_of_a_transaction_that_failed_was_never_accepted(workshop):
    worker = workshop.worker()
    async with workshop.open(worker):
        await workshop.idle(worker)
        with caller(), pytest.raises(RuntimeError):
            await _enqueue_and_fail(workshop)
        await asyncio.sleep(0.5)
        assert worker._room() == worker._concurrency

    assert await workshop.states() == {}
    assert await workshop.effects() == []


async def _enqueue_and_fail(workshop):
    async with workshop.database.transaction() as connection:
        await enqueue(connection, kind="noop", payload={}, subject_id="d")
        raise RuntimeError


async def test_each_of_many_jobs_is_done_once_by_one_of_two_workers(workshop):
    async with workshop.open(workshop.worker(), workshop.worker()):
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(workshop.enqueue())
        await workshop.until("SUCCEEDED", 100)

    effects = await workshop.effects()
    assert len(effects) == 100
    assert {row["consumer"] for row in effects} == {"attempt 1"}


async def test_a_passing_failure_is_tried_again(workshop):
    attempts = []

    async def handler(job):
        attempts.append(job.attempt)
        if job.attempt < 3:
            raise DependencyUnavailable("embedding")
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    async with workshop.open(workshop.worker()):
        job_id = await workshop.enqueue()
        await workshop.until("SUCCEEDED")

    assert attempts == [1, 2, 3]
    assert (await workshop.job(job_id))["error_reason"] == "DEPENDENCY_UNAVAILABLE"
    assert workshop.dead == []


async def test_an_unknown_exception_is_tried_again(workshop):
    async def handler(job):
        if job.attempt == 1:
            raise KeyError("canary")
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    async with workshop.open(workshop.worker()):
        job_id = await workshop.enqueue()
        await workshop.until("SUCCEEDED")

    assert (await workshop.job(job_id))["error_reason"] == "INTERNAL"


async def test_a_lasting_failure_is_given_up_at_once_with_its_reason(workshop):
    async def handler(_):
        raise DocumentCorrupt("The document is truncated.")

    workshop.handlers["noop"] = handler
    async with workshop.open(workshop.worker()):
        job_id = await workshop.enqueue(subject_id="d")
        await workshop.until("FAILED")

    ((job, error),) = workshop.dead
    (letter,) = await workshop.rows("SELECT * FROM dead_letters")
    assert (job.id, error.reason) == (job_id, "DOCUMENT_CORRUPT")
    assert (letter["id"], letter["subject_id"], letter["attempt"]) == (job_id, "d", 1)
    assert (letter["reason"], letter["message"]) == ("DOCUMENT_CORRUPT", "The document is truncated.")


async def test_attempts_end(workshop):
    async def handler(_):
        raise Overloaded(retry_after=0.01)

    workshop.handlers["noop"] = handler
    async with workshop.open(workshop.worker()):
        await workshop.enqueue(max_attempts=3)
        await workshop.until("FAILED")

    ((job, error),) = workshop.dead
    assert (job.attempt, error.reason) == (3, "OVERLOADED")


async def test_waiting_for_what_is_away_is_no_attempt_at_the_work(workshop):
    errors = [DependencyUnavailable("embedding"), Overloaded(retry_after=0.01)]

    async def handler(_):
        raise errors.pop(0) if errors else DocumentCorrupt("no")

    workshop.handlers["noop"] = handler
    async with workshop.open(workshop.worker()):
        await workshop.enqueue(max_attempts=2)
        await workshop.until("FAILED")

    ((job, error),) = workshop.dead
    assert (job.attempt, error.reason) == (3, "DOCUMENT_CORRUPT")


async def test_the_dead_letter_and_what_it_means_are_written_together(workshop):
    calls = []

    async def on_dead(connection, job, _):
        calls.append(1)
        await workshop.effect(connection, job)
        if len(calls) == 1:
            raise DependencyUnavailable("ledger")

    async def handler(_):
        raise DocumentCorrupt("no")

    workshop.handlers["noop"] = handler
    async with workshop.open(workshop.worker(on_dead=on_dead, lease=0.6)):
        await workshop.enqueue()
        await workshop.until("FAILED")

    assert len(calls) == 2
    assert [row["consumer"] for row in await workshop.effects()] == ["attempt 2"]
    assert len(await workshop.rows("SELECT * FROM dead_letters")) == 1


async def test_a_defect_in_what_a_dead_letter_means_does_not_end_the_worker(workshop):
    async def on_dead(_, job, __):
        if job.attempt == 1:
            raise ValueError("a defect")

    async def handler(_):
        raise DocumentCorrupt("no")

    workshop.handlers["noop"] = handler
    async with workshop.open(workshop.worker(on_dead=on_dead, lease=0.6)):
        job_id = await workshop.enqueue()
        await workshop.until("FAILED")

    assert (await workshop.job(job_id))["attempt"] == 2


async def test_returning_without_completing_is_a_failed_attempt(workshop):
    async def handler(job):
        if job.attempt == 2:
            await workshop.complete(job)

    workshop.handlers["noop"] = handler
    async with workshop.open(workshop.worker()):
        job_id = await workshop.enqueue()
        await workshop.until("SUCCEEDED")

    assert (await workshop.job(job_id))["attempt"] == 2


async def test_an_unknown_kind_is_given_up_in_the_end(workshop):
    async with workshop.open(workshop.worker()):
        await workshop.enqueue("nobody_knows", max_attempts=2)
        await workshop.until("FAILED")

    assert workshop.dead[0][1].reason == "INTERNAL"


async def test_a_delayed_job_waits(workshop):
    async with workshop.open(workshop.worker()):
        job_id = await workshop.enqueue(delay=0.7)
        await workshop.until("SUCCEEDED")

    row = await workshop.job(job_id)
    assert row["finished_at"] - row["created_at"] >= timedelta(seconds=0.7)


async def test_a_job_past_its_deadline_is_given_up(workshop):
    async with workshop.open(workshop.worker()):
        await workshop.enqueue(deadline=datetime.now(UTC) - timedelta(seconds=1))
        await workshop.until("FAILED")

    assert workshop.dead[0][1].reason == "DEADLINE_EXCEEDED"


async def test_an_attempt_ends_with_its_time(workshop):
    async def handler(job):
        assert deadline.remaining() is not None
        if job.attempt == 1:
            await asyncio.sleep(30)
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    async with workshop.open(workshop.worker(attempt_seconds=0.2)):
        job_id = await workshop.enqueue()
        await workshop.until("SUCCEEDED")

    assert (await workshop.job(job_id))["error_reason"] == "DEADLINE_EXCEEDED"


async def test_a_long_job_keeps_its_lease(workshop):
    async def handler(job):
        await asyncio.sleep(2.0)
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    async with workshop.open(workshop.worker(lease=0.6), workshop.worker(lease=0.6)):
        await workshop.enqueue()
        await workshop.until("SUCCEEDED")

    assert [row["consumer"] for row in await workshop.effects()] == ["attempt 1"]


async def test_a_cancelled_job_is_not_begun_or_is_stopped_and_cannot_commit(workshop):
    entered, stopped, outcome = asyncio.Event(), asyncio.Event(), []

    async def handler(job):
        entered.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            stopped.set()
            try:
                await workshop.complete(job)
            except FenceLost:
                outcome.append("lost")
            raise

    workshop.handlers["noop"] = handler
    queued = await workshop.enqueue("noop", delay=60)
    async with workshop.open(workshop.worker(lease=0.6)):
        running = await workshop.enqueue()
        await entered.wait()
        with caller():
            async with workshop.database.transaction() as connection:
                assert await cancel(connection, running)
                assert await cancel(connection, queued)
                assert not await cancel(connection, "unknown")
        await asyncio.wait_for(stopped.wait(), 5)
        await workshop.until("CANCELLED", 2)

    assert outcome == ["lost"]
    assert await workshop.effects() == []


async def test_another_tenants_job_cannot_be_cancelled(workshop):
    job_id = await workshop.enqueue(tenant="acme", delay=60)

    with caller(tenant="globex"):
        async with workshop.database.transaction() as connection:
            assert not await cancel(connection, job_id)


async def test_a_cancelled_job_is_stopped_at_once_though_its_lease_is_long(workshop):
    entered, stopped = asyncio.Event(), asyncio.Event()

    async def handler(job):
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    workshop.handlers["noop"] = handler
    workshop.database.listen(workshop.bus.nudge)
    async with workshop.open(workshop.worker(lease=60)):
        job_id = await workshop.enqueue()
        await entered.wait()
        with caller():
            async with workshop.database.transaction() as connection:
                assert await cancel(connection, job_id)
        await asyncio.wait_for(stopped.wait(), 5)


# parked jobs


def parking(workshop, claims):
    """A handler that parks a job when it has it first."""

    async def handler(job):
        claims.append(job)
        if len(claims) > 1:
            await workshop.complete(job)
            return
        async with workshop.database.transaction() as connection:
            await park(connection, job)

    return handler


async def test_a_parked_job_is_nobodys_until_it_is_unparked(workshop):
    claims = []
    workshop.handlers["noop"] = parking(workshop, claims)
    async with workshop.open(workshop.worker(lease=0.3)):
        job_id = await workshop.enqueue(deadline=datetime.now(UTC) + timedelta(seconds=1))
        await workshop.until("PARKED")
        await asyncio.sleep(1.2)
        assert len(claims) == 1
        deadline = datetime.now(UTC) + timedelta(seconds=60)
        with caller():
            async with workshop.database.transaction() as connection:
                assert await waiting(connection, limit=10) == 0
                assert await unpark(connection, job_id, deadline=deadline)
                assert not await unpark(connection, job_id, deadline=deadline)
        await workshop.until("SUCCEEDED")
    assert [(job.attempt, job.fence) for job in claims] == [(1, 1), (1, 2)]
    assert claims[1].deadline == deadline


async def test_a_job_may_be_parked_from_the_first(workshop):
    job_id = await workshop.enqueue(parked=True)
    assert (await workshop.states(), await workshop.rows("SELECT * FROM outbox")) == ({"PARKED": 1}, [])
    async with workshop.open(workshop.worker()):
        with caller():
            async with workshop.database.transaction() as connection:
                assert await unpark(connection, job_id, deadline=None)
        await workshop.until("SUCCEEDED")


async def test_only_the_holder_parks_a_job_and_only_its_tenant_unparks_it(workshop):
    job_id = await workshop.enqueue()
    leases, (job,) = await claim(workshop, job_id)
    with caller():
        await leases.retry(job, DependencyUnavailable("x"), delay=60)
        with pytest.raises(FenceLost):
            async with workshop.database.transaction() as connection:
                await park(connection, job)
        parked = await workshop.enqueue(parked=True)
    with caller(tenant="globex"):
        async with workshop.database.transaction() as connection:
            assert not await unpark(connection, parked, deadline=None)
    with caller():
        async with workshop.database.transaction() as connection:
            assert await cancel(connection, parked)


async def test_who_unparks_while_a_worker_parks_waits_for_it(workshop):
    job_id = await workshop.enqueue()
    _, (job,) = await claim(workshop, job_id)

    async def resume():
        with caller():
            async with workshop.database.transaction() as connection:
                return await unpark(connection, job_id, deadline=None)

    with caller():
        async with workshop.database.transaction() as connection:
            await park(connection, job)
            resuming = asyncio.ensure_future(resume())
            await asyncio.sleep(0.3)
            assert not resuming.done()
        assert await asyncio.wait_for(resuming, 5)


# leases, without the machinery around them


async def claim(workshop, job_id, seconds=60.0):
    leases = Leases(database=workshop.database, seconds=seconds)
    jobs = await leases.claim(1)
    assert {job.id for job in jobs} <= {job_id}
    return leases, jobs


async def test_one_of_two_claims_wins(workshop):
    job_id = await workshop.enqueue()

    async with asyncio.TaskGroup() as group:
        claims = [group.create_task(claim(workshop, job_id)) for _ in range(5)]

    assert sorted(len(done.result()[1]) for done in claims) == [0, 0, 0, 0, 1]


async def test_a_late_worker_cannot_commit_and_its_effect_is_undone(workshop):
    job_id = await workshop.enqueue()
    _, (late,) = await claim(workshop, job_id, seconds=0.01)
    await asyncio.sleep(0.1)
    await workshop.worker()._sweeper.sweep()
    _, (current,) = await claim(workshop, job_id)

    assert (late.fence, current.fence) == (1, 2)
    with caller():
        with pytest.raises(FenceLost):
            await workshop.complete(late)
        await workshop.complete(current)
    assert [row["consumer"] for row in await workshop.effects()] == ["attempt 2"]


async def test_a_late_failure_changes_nothing_either(workshop):
    job_id = await workshop.enqueue()
    leases, (late,) = await claim(workshop, job_id, seconds=0.01)
    await asyncio.sleep(0.1)
    await workshop.worker()._sweeper.sweep()
    _, (current,) = await claim(workshop, job_id)

    with caller():
        with pytest.raises(FenceLost):
            await leases.retry(late, DependencyUnavailable("x"), delay=1)
        with pytest.raises(FenceLost):
            await leases.give_up(late, DocumentCorrupt("x"), workshop.on_dead)
    await leases.hand_back([late])
    assert await leases.extend([late]) == set()
    assert await leases.extend([current]) == {current.id}
    assert (await workshop.job(job_id))["state"] == "RUNNING"
    assert workshop.dead == []


async def test_completing_twice_is_refused(workshop):
    job_id = await workshop.enqueue()
    _, (job,) = await claim(workshop, job_id)

    with caller():
        await workshop.complete(job)
        with pytest.raises(FenceLost):
            async with workshop.database.transaction() as connection:
                await complete(connection, job)


async def test_a_heartbeat_does_not_wait_for_a_handlers_commit(workshop):
    ids = [await workshop.enqueue() for _ in range(2)]
    leases = Leases(database=workshop.database, seconds=60)
    jobs = await leases.claim(2)

    with caller():
        async with workshop.database.transaction() as connection:
            await complete(connection, jobs[0])
            async with asyncio.timeout(2):
                assert await leases.extend(jobs) == set(ids)


async def test_a_job_costs_few_round_trips(workshop, monkeypatch):
    """The goal is hundreds of jobs a second: claims, relays and acks are batched, statements pipelined."""
    trips, done, all_done = [], [], asyncio.Event()
    wait, leave = Connection.wait, AsyncPipeline.__aexit__

    async def counted_wait(self, *args: object, **kwargs: object):
        trips.extend([1] if self._pipeline is None else [])
        return await wait(self, *args, **kwargs)

    async def counted_leave(self, *args: object):
        trips.append(1)
        return await leave(self, *args)

    async def handler(job):
        async with workshop.database.transaction() as connection:
            await complete(connection, job)
        done.append(job.id)
        if len(done) == 100:
            all_done.set()

    workshop.handlers["noop"] = handler
    with caller():
        async with workshop.database.transaction() as connection:
            for _ in range(100):
                await enqueue(connection, kind="noop", payload={}, subject_id="d")
    monkeypatch.setattr(Connection, "wait", counted_wait)
    monkeypatch.setattr(AsyncPipeline, "__aexit__", counted_leave)
    async with workshop.open(workshop.worker()):
        await asyncio.wait_for(all_done.wait(), 20)

    assert 300 <= len(trips) <= 600
