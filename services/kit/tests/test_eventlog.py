"""The event log on a real Postgres, its nudges on a real NATS."""

import asyncio
import time
from contextlib import aclosing

import pytest
from loremesh_kit import eventlog
from loremesh_kit.errors import AfterSeqOutOfRange
from loremesh_kit.eventlog import Event, Heartbeat
from loremesh_kit.events import connect
from loremesh_kit.testing import caller

pytestmark = pytest.mark.steelthread


@pytest.fixture(autouse=True)
def _as_somebody():
    with caller():
        yield


async def append(database, run_id="run", count=1, **options: object):
    seqs = []
    for _ in range(count):
        async with database.transaction() as connection:
            seqs.append(
                await eventlog.append(connection, **{"run_id": run_id, "kind": "delta", "payload": {"n": 1}, **options})
            )
    return seqs


async def read(database, after_seq=0, limit=100, run_id="run"):
    async with database.transaction() as connection:
        return await eventlog.read(connection, run_id=run_id, after_seq=after_seq, limit=limit)


async def test_events_are_numbered_from_one_in_each_run(database):
    assert await append(database, "a", 3) == [1, 2, 3]
    assert await append(database, "b", 1, kind="start", payload={"x": "ไทย"}, attempt=2, path=["task", "1"]) == [1]

    (event,) = await read(database, run_id="b")
    assert (event.kind, event.payload, event.attempt, event.path) == ("start", {"x": "ไทย"}, 2, ["task", "1"])


async def test_events_of_one_moment_follow_each_other(database):
    async def at_once(count):
        entries = [
            eventlog.Entry(kind="delta", payload={"n": n, "x": "ไทย"}, attempt=2, path=["task"]) for n in range(count)
        ]
        async with database.transaction() as connection:
            await eventlog.append_all(connection, run_id="run", entries=entries)

    for count in (2, 0, 3):
        await at_once(count)
    assert await append(database) == [6]
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(at_once(3))
    events = await read(database)
    assert [event.seq for event in events] == list(range(1, 19))
    assert [event.payload["n"] for event in events] == [0, 1, 0, 1, 2, 1] + [0, 1, 2] * 4
    assert (events[0].kind, events[0].payload["x"], events[0].attempt, events[0].path) == ("delta", "ไทย", 2, ["task"])


async def test_reading_goes_on_where_it_stopped(database):
    await append(database, count=5)

    assert [event.seq for event in await read(database, limit=2)] == [1, 2]
    assert [event.seq for event in await read(database, after_seq=2)] == [3, 4, 5]
    assert await read(database, after_seq=5) == []


async def test_a_failed_transaction_leaves_no_gap(database):
    await append(database)
    with pytest.raises(RuntimeError):
        await _append_and_fail(database)

    assert await append(database) == [2]


async def _append_and_fail(database):
    async with database.transaction() as connection:
        await eventlog.append(connection, run_id="run", kind="lost", payload={})
        raise RuntimeError


async def test_numbers_become_visible_in_order(database):
    """A reader who has seen 2 will never find a new 1."""
    async with database.transaction() as slow:
        assert await eventlog.append(slow, run_id="run", kind="slow", payload={}) == 1
        quick = asyncio.create_task(append(database))
        await asyncio.sleep(0.2)
        assert not quick.done()
        assert await read(database) == []
    assert await quick == [2]


async def test_appenders_at_once_share_no_number(database):
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(append(database, count=10)) for _ in range(5)]

    assert sorted(seq for task in tasks for seq in task.result()) == list(range(1, 51))


async def test_another_tenant_sees_nothing(database):
    await append(database)
    with caller(tenant="globex"):
        assert await read(database) == []
        assert await append(database) == [1]


async def collect(database, bus, until, after_seq=0, heartbeat=30.0):
    events = []
    async with (
        aclosing(eventlog.tail(database, bus, run_id="run", after_seq=after_seq, heartbeat=heartbeat)) as tail,
        asyncio.timeout(20),
    ):
        async for event in tail:
            events.append(event)
            if isinstance(event, Event) and event.seq == until:
                break
    return events


async def test_a_tail_gives_what_was_and_what_comes_without_gap_or_double(database, bus):
    database.listen(bus.nudge)
    await append(database, count=150)
    tailing = asyncio.create_task(collect(database, bus, until=200))
    await append(database, count=50)

    assert [event.seq for event in await tailing] == list(range(1, 201))


async def test_a_tail_resumes_anywhere(database, bus):
    await append(database, count=10)

    for seq in range(10):
        events = await collect(database, bus, until=10, after_seq=seq)
        assert [event.seq for event in events] == list(range(seq + 1, 11))


async def test_a_nudge_wakes_a_tail_at_once(database, bus, monkeypatch):
    monkeypatch.setattr(eventlog, "_POLL_SECONDS", 60.0)
    database.listen(bus.nudge)
    tailing = asyncio.create_task(collect(database, bus, until=1))
    await asyncio.sleep(0.5)
    started = time.monotonic()
    await append(database)
    await tailing

    assert time.monotonic() - started < 2


async def test_who_listens_before_there_is_a_connection_hears_nudges_once_there_is_one(nats_url, service):
    async with connect(nats_url, service=service) as bus, bus.nudges("topic") as nudged:
        assert not bus.is_connected
        # What was missed meanwhile is looked for.
        await asyncio.wait_for(nudged.wait(), 10)
        nudged.clear()
        bus.nudge("topic")
        await asyncio.wait_for(nudged.wait(), 10)


async def test_without_nudges_a_tail_polls(database):
    tailing = asyncio.create_task(collect(database, None, until=1))
    await asyncio.sleep(0.2)
    await append(database)

    assert [event.seq for event in await tailing] == [1]


async def test_a_quiet_run_beats(database, bus):
    tailing = asyncio.create_task(collect(database, bus, until=1, heartbeat=0.2))
    await asyncio.sleep(0.7)
    await append(database)
    events = await tailing

    assert isinstance(events[0], Heartbeat)
    assert 2 <= len(events[:-1]) <= 5


async def poll(database, after_seq=0, limit=100):
    return await eventlog.poll(database, run_id="run", after_seq=after_seq, limit=limit)


async def test_polling_tells_what_there_is(database):
    await append(database, count=5)

    page = await poll(database, after_seq=2, limit=2)
    assert ([event.seq for event in page.events], page.last_seq, page.cut) == ([3, 4], 5, False)
    page = await poll(database, after_seq=5)
    assert ([*page.events], page.last_seq, page.cut) == ([], 5, False)
    assert (await poll(database, limit=0)).events == []


async def test_nobody_can_have_seen_what_did_not_happen(database):
    with pytest.raises(AfterSeqOutOfRange):
        await poll(database, after_seq=1)
    await append(database, count=5)

    with pytest.raises(AfterSeqOutOfRange) as raised:
        await poll(database, after_seq=6)
    assert raised.value.metadata == {"last_seq": "5"}


async def test_events_of_a_quiet_run_are_forgotten_and_their_numbers_are_not(workshop):
    database = workshop.database
    await append(database, count=3)
    await append(database, run_id="lively", count=2)
    await database.fetch("UPDATE event_heads SET last_at = now() - interval '31 days' WHERE run_id = 'run'")
    await database.fetch("UPDATE events SET time = now() - interval '31 days'")
    await workshop.worker()._sweeper._purge()

    page = await poll(database)
    assert ([*page.events], page.last_seq, page.cut) == ([], 3, True)
    assert len(await read(database, run_id="lively")) == 2
    assert await append(database) == [4]
    assert (await poll(database, after_seq=1)).cut
    page = await poll(database, after_seq=3)
    assert ([event.seq for event in page.events], page.cut) == ([4], False)


@pytest.mark.parametrize(
    ("after_seq", "header", "effective"),
    [(0, "7", 7), (3, "7", 3), (0, "seven", 0), (0, "-1", 0), (0, "", 0), (0, "9" * 30, 0), (0, "\u0663", 0)],
)
def test_a_browser_that_reconnects_goes_on_where_it_was(after_seq, header, effective):
    metadata = (("x-other", "5"), ("last-event-id", header), ("bin-bin", b"9"))

    assert eventlog.resume_after(after_seq, metadata) == effective
    assert eventlog.resume_after(after_seq, None) == after_seq
