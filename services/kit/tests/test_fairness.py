"""Whose turn it is: tenants in rounds, the urgent before the old, and no message too few."""

import asyncio

import pytest
from loremesh_kit.jobs import cancel, waiting
from loremesh_kit.leases import Leases
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread

_MANY = """
INSERT INTO jobs (
    tenant, id, kind, subject_id, principal, request_id, payload, max_attempts, announced_at, announcements, due_at
)
SELECT %(tenant)s, %(tenant)s || '-' || to_char(n, 'FM000000'), 'noop', 'd', 'ada', 'r', '{}', 8, now(), 1,
    now() - interval '1 minute' + n * interval '1 millisecond'
FROM generate_series(1, %(count)s) AS n
"""


async def fill(workshop, tenant, count):
    """Announced jobs, in order of their ids, without messages."""
    await workshop.database.fetch(_MANY, {"tenant": tenant, "count": count}, tenant=tenant)


@pytest.fixture
def leases(workshop):
    return Leases(database=workshop.database, seconds=60)


async def test_one_job_does_not_wait_for_two_thousand_of_another_tenant(workshop, leases):
    await fill(workshop, "acme", 2000)
    await leases.claim(4)
    await fill(workshop, "globex", 1)

    claimed = [job.tenant for _ in range(2) for job in await leases.claim(4)]

    assert claimed.count("globex") == 1
    assert claimed.count("acme") == 7


async def test_tenants_take_turns_wherever_the_last_claim_stopped(workshop, leases):
    for tenant in ("a", "b", "c"):
        await fill(workshop, tenant, 3)

    assert [job.tenant for _ in range(9) for job in await leases.claim(1)] == ["a", "b", "c"] * 3
    for tenant in ("a", "b", "c"):
        await fill(workshop, f"{tenant}2", 3)
    claimed = [[job.tenant for job in await leases.claim(2)] for _ in range(4)]
    assert claimed == [["c2", "a2"], ["b2", "c2"], ["a2", "b2"], ["c2", "a2"]]


async def test_more_tenants_than_one_claim_reaches_are_all_served(workshop, leases):
    tenants = [f"tenant{number:03}" for number in range(60)]
    for tenant in tenants:
        await fill(workshop, tenant, 2)

    claimed = [job.tenant for _ in range(30) for job in await leases.claim(2)]

    assert sorted(claimed) == tenants


async def test_the_urgent_come_first_and_then_the_oldest(workshop, leases):
    ids = {
        name: await workshop.enqueue(priority=priority)
        for name, priority in (("old", 0), ("low", -1), ("young", 0), ("urgent", 5))
    }

    claimed = [job.id for job in await leases.claim(3)] + [job.id for job in await leases.claim(3)]

    assert claimed == [ids[name] for name in ("urgent", "old", "young", "low")]


async def test_what_is_not_due_or_not_announced_is_left(workshop, leases):
    await workshop.enqueue(delay=60)
    handed_back = await workshop.enqueue()
    await leases.hand_back(await leases.claim(1))

    assert await leases.claim(5) == []
    assert not await leases.any_due()
    await workshop.worker()._sweeper.sweep()
    assert [job.id for job in await leases.claim(5)] == [handed_back]


async def test_claims_at_once_share_nothing_and_miss_nothing(workshop):
    for tenant in ("a", "b"):
        await fill(workshop, tenant, 100)

    async def work():
        own = Leases(database=workshop.database, seconds=60)
        return [job.id for _ in range(25) for job in await own.claim(2)]

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(work()) for _ in range(4)]

    claimed = [job_id for worker in workers for job_id in worker.result()]
    assert len(claimed) == len(set(claimed)) == 200


async def test_a_job_alone_is_done_while_another_tenant_has_a_long_queue(workshop):
    order = []

    async def handler(job):
        order.append(job.tenant)
        await workshop.complete(job)

    workshop.handlers["noop"] = handler
    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(workshop.enqueue(tenant="acme"))
    await workshop.enqueue(tenant="globex")
    async with workshop.open(workshop.worker(concurrency=2)):
        await workshop.until("SUCCEEDED", 101)

    assert order.index("globex") < 10


async def test_a_message_that_is_not_needed_does_no_harm(workshop):
    with caller():
        ids = [await workshop.enqueue() for _ in range(20)]
        async with workshop.database.transaction() as connection:
            for job_id in ids[::2]:
                assert await cancel(connection, job_id)
        async with workshop.open(workshop.worker()):
            async with asyncio.timeout(20):
                while await workshop.states() != {"CANCELLED": 10, "SUCCEEDED": 10}:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)


async def test_a_few_lost_messages_are_missed_although_others_wait(workshop, service, monkeypatch):
    """Twenty jobs, but messages for fifteen: the sweeper announces the difference, and no more."""
    monkeypatch.setattr("loremesh_kit.sweeper._PATIENCE", 0.0)
    await fill(workshop, "acme", 20)
    sweeper = workshop.worker()._sweeper

    async def backlog(*_):
        return 15

    monkeypatch.setattr(workshop.bus, "backlog", backlog)
    assert await sweeper.sweep() == 5
    assert await sweeper.sweep() == 0, "the five are in the outbox"


async def test_waiting_counts_a_tenants_jobs_up_to_a_limit(workshop, leases):
    await fill(workshop, "acme", 30)
    await fill(workshop, "globex", 5)
    await workshop.enqueue(delay=60)
    await leases.claim(1)

    with caller():
        async with workshop.database.transaction() as connection:
            assert await waiting(connection, limit=100) == 30
            assert await waiting(connection, limit=10) == 10


@pytest.mark.parametrize(("tenants", "each"), [(1, 10_000), (100, 100)])
async def test_a_claim_does_not_read_the_whole_queue(workshop, leases, tenants, each):
    for number in range(tenants):
        await fill(workshop, f"tenant{number:03}", each)
    before = await _rows_read(workshop)
    assert len(await leases.claim(8)) == 8

    assert await _rows_read(workshop) - before < 2000


async def _rows_read(workshop):
    (row,) = await workshop.database.fetch_across_tenants(
        "SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot(),"
        " seq_tup_read + idx_tup_fetch AS n FROM pg_stat_user_tables WHERE relname = 'jobs'"
    )
    return row["n"]
