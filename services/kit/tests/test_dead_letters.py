"""Dead letters: found, taken up again, struck off, and forgotten in the end."""

import pytest
from loremesh_kit import dead_letters, job_list
from loremesh_kit.dead_letters import JobNotDead, JobUnknown, Which
from loremesh_kit.errors import Code, DependencyUnavailable, ServiceError
from loremesh_kit.jobs import FenceLost
from loremesh_kit.leases import Leases
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread


class DocumentCorrupt(ServiceError):
    code = Code.INVALID_ARGUMENT
    reason = "DOCUMENT_CORRUPT"


@pytest.fixture(autouse=True)
def _as_somebody():
    with caller():
        yield


@pytest.fixture
def leases(workshop):
    return Leases(database=workshop.database, seconds=60)


async def give_up(workshop, leases, error=None, **options):
    job_id = await workshop.enqueue(**options)
    (job,) = await leases.claim(1)
    assert job.id == job_id
    with caller(tenant=job.tenant):
        await leases.give_up(job, error or DocumentCorrupt("Broken."), workshop.on_dead)
    return job


async def requeue(workshop, *ids):
    async with workshop.database.transaction() as connection:
        await dead_letters.requeue(connection, ids)


async def listed(workshop, **which):
    return [letter.id for letter in await dead_letters.page(workshop.database, Which(**which), limit=10)]


async def test_letters_are_listed_the_latest_first_by_pages_and_by_what_they_are(workshop, leases):
    first = await give_up(workshop, leases, payload={"version": 3}, subject_id="d1")
    second = await give_up(workshop, leases, DependencyUnavailable("s3"), kind="purge", subject_id="d2")
    await give_up(workshop, leases, tenant="globex")

    assert await listed(workshop) == [second.id, first.id]
    assert await listed(workshop, kind="purge") == [second.id]
    assert await listed(workshop, reason="DOCUMENT_CORRUPT") == [first.id]
    assert await listed(workshop, subject_id="d2", kind="noop") == []
    (latest,) = await dead_letters.page(workshop.database, Which(), limit=1)
    (older,) = await dead_letters.page(workshop.database, Which(), before=(latest.died_at, latest.id), limit=5)
    assert (older.id, older.payload, older.attempt, older.message) == (first.id, {"version": 3}, 1, "Broken.")


async def test_a_job_taken_up_again_starts_over_and_is_done(workshop, leases, monkeypatch):
    monkeypatch.setattr("loremesh_kit.sweeper._SECONDS", 0.1)
    dead = await give_up(workshop, leases, max_attempts=1)
    await requeue(workshop, dead.id)

    row = await workshop.job(dead.id)
    assert (row["state"], row["attempt"], row["fence"], row["finished_at"]) == ("QUEUED", 0, dead.fence + 1, None)
    assert await listed(workshop) == []
    with pytest.raises(FenceLost):
        await workshop.complete(dead)
    async with workshop.open(workshop.worker()):
        await workshop.until("SUCCEEDED")
    assert [row["consumer"] for row in await workshop.effects()] == ["attempt 1"]


async def test_only_what_is_dead_can_be_taken_up_and_all_or_nothing(workshop, leases):
    dead = await give_up(workshop, leases)
    foreign = await give_up(workshop, leases, tenant="globex")
    alive = await workshop.enqueue(delay=60)

    with pytest.raises(JobUnknown):
        await requeue(workshop, dead.id, "nobody")
    with pytest.raises(JobUnknown):
        await requeue(workshop, dead.id, foreign.id)
    with pytest.raises(JobNotDead) as raised:
        await requeue(workshop, dead.id, alive)
    assert (raised.value.job_id, raised.value.state) == (alive, "QUEUED")
    assert await listed(workshop) == [dead.id]
    await requeue(workshop, dead.id)
    with pytest.raises(JobNotDead):
        await requeue(workshop, dead.id)


async def test_a_letter_struck_off_leaves_the_job_undone(workshop, leases):
    dead = await give_up(workshop, leases)
    async with workshop.database.transaction() as connection:
        (held,) = await dead_letters.hold(connection, Which(), limit=5)
        await dead_letters.strike_off(connection, [held.id])

    assert await listed(workshop) == []
    assert (await workshop.job(dead.id))["state"] == "FAILED"


async def test_a_dead_job_is_kept_as_long_as_its_letter(workshop, leases):
    await give_up(workshop, leases)
    struck_off = await give_up(workshop, leases)
    done = await workshop.enqueue()
    await workshop.complete((await leases.claim(1))[0])
    async with workshop.database.transaction() as connection:
        await dead_letters.strike_off(connection, [struck_off.id])
        await connection.execute("UPDATE jobs SET finished_at = now() - interval '8 days'")
    await workshop.worker()._sweeper._purge()

    assert await workshop.states() == {"FAILED": 1}
    assert await job_list.get(workshop.database, done) is None
    await workshop.database.fetch("UPDATE dead_letters SET died_at = now() - interval '31 days'")
    for _ in range(2):
        await workshop.worker()._sweeper._purge()
    assert await workshop.states() == {}
    assert await listed(workshop) == []


async def test_jobs_are_listed_newest_first_by_pages_and_by_what_they_are(workshop, leases):
    ids = [await workshop.enqueue(subject_id=f"d{number}") for number in range(3)]
    purge = await workshop.enqueue("purge", delay=60)
    await workshop.enqueue(tenant="globex")
    (running,) = await leases.claim(1)

    async def found(**which):
        return [job.id for job in await job_list.page(workshop.database, **{"limit": 10, **which})]

    assert await found() == [purge, *reversed(ids)]
    assert await found(limit=2) == [purge, ids[2]]
    assert await found(before=ids[2]) == [ids[1], ids[0]]
    assert await found(kind="purge") == [purge]
    assert await found(subject_id="d1") == [ids[1]]
    assert await found(state="RUNNING") == [running.id]
    job = await job_list.get(workshop.database, running.id)
    assert job is not None
    assert (job.state, job.attempt, job.max_attempts, job.kind) == ("RUNNING", 1, 8, "noop")
    with caller(tenant="globex"):
        assert await job_list.get(workshop.database, running.id) is None
