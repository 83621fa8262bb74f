"""Runs decided on a real Postgres, by one and by several at once."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from loremesh_crew.adapters.memory_tasks import MemoryTasks
from loremesh_crew.domain.definitions import Crew, CrewWork, Flow, FlowState
from loremesh_crew.domain.machine import (
    CancelAsked,
    PauseAsked,
    ResumeAsked,
    RunStatus,
    TaskEnded,
    TaskOutcome,
    TaskStatus,
)
from loremesh_crew.errors import RunNotFound, TaskRefused
from loremesh_kit import identity
from loremesh_kit.clock import SystemClock
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.jobs import FenceLost
from loremesh_kit.testing import DatabaseUrls, caller

from .run_doubles import Parts, done, parts, until

pytestmark = [pytest.mark.steelthread, pytest.mark.usefixtures("who")]


@pytest.fixture
async def these(database_urls: DatabaseUrls, nats_url: str, who: identity.Identity) -> AsyncIterator[Parts]:
    del who
    async with parts(database_urls.plain, nats_url, MemoryTasks()) as made:
        yield made


def ended(task_id: str, outcome: TaskOutcome | None = None) -> TaskEnded:
    return TaskEnded(time=SystemClock().now(), task_id=task_id, outcome=outcome or done())


async def test_a_run_is_decided_event_by_event_to_its_end(these):
    run_id = await these.begin(tasks=2)
    await these.do("start-task")
    await these.running.apply(run_id, [ended(f"{run_id}.1", done("one"))])
    await these.running.apply(run_id, [ended(f"{run_id}.2", done("two"))])

    run = await these.views.get(run_id)
    assert (run.status, run.decisions, run.last_seq) == (RunStatus.COMPLETED, 3, 6)
    assert run.finish_time is not None
    assert await these.kinds(run_id) == [
        "run_started", "task_started", "task_finished", "task_started", "task_finished", "completed",
    ]  # fmt: skip
    (listed,) = await these.views.page(after=None, limit=9, definition_id="c", status=None, children=False)
    assert (listed.output, listed.usage.input_tokens) == ("one two", 6)
    assert await these.database.fetch("SELECT id FROM run_tasks") == []


async def test_ten_tasks_that_end_at_once_are_all_counted(these):
    run_id = await these.begin(tasks=10, at_once=10)
    assert await these.owed() == ["start-task"] * 10
    async with asyncio.TaskGroup() as group:
        for n in range(1, 11):
            group.create_task(these.running.apply(run_id, [ended(f"{run_id}.{n}", done(str(n)))]))

    run = await these.views.get(run_id)
    assert run.status is RunStatus.COMPLETED
    assert len(run.state.done) == 10
    assert (await these.kinds(run_id)).count("completed") == 1
    assert [each.number for each in await these.views.history(run_id, after=0, limit=99)] == list(range(1, 12))


async def test_what_comes_to_a_run_at_once_is_decided_together(these):
    run_id = await these.begin(tasks=10, at_once=10)
    async with asyncio.TaskGroup() as group:
        for n in range(1, 11):
            group.create_task(these.running.apply(run_id, [ended(f"{run_id}.{n}", done(str(n)))]))

    query = "SELECT count(DISTINCT xmin::text) AS n FROM run_history WHERE run_id = %s AND number > 1"
    # The first alone, and all who waited for it.
    assert (await these.database.fetch(query, [run_id]))[0]["n"] == 2


async def test_a_lost_job_takes_nothing_with_it_of_what_was_decided_together(these):
    run_id = await these.begin(tasks=3, at_once=3)
    stale, _ = await these.job("start-task"), await these.job("start-task")
    async with asyncio.TaskGroup() as group:
        telling = [
            group.create_task(quietly(these.running.apply(run_id, [ended(f"{run_id}.{n}")], job=job)))
            for n, job in ((1, None), (2, stale), (3, None))
        ]

    assert [type(each.result()) for each in telling] == [type(None), FenceLost, type(None)]
    assert set((await these.views.get(run_id)).state.done) == {f"{run_id}.1", f"{run_id}.3"}


async def test_an_event_that_cannot_be_decided_takes_nothing_with_it_of_what_came_at_once(these):
    run_id = await these.begin(tasks=3, at_once=3)
    senseless = TaskEnded(time=SystemClock().now(), task_id=f"{run_id}.2", outcome=None)
    events = [ended(f"{run_id}.1"), senseless, ended(f"{run_id}.3")]
    telling = [asyncio.ensure_future(these.running.apply(run_id, [event])) for event in events]
    await asyncio.wait(telling)

    assert [each.exception() is None for each in telling] == [True, False, True]
    assert set((await these.views.get(run_id)).state.done) == {f"{run_id}.1", f"{run_id}.3"}


async def test_who_leaves_before_their_turn_tells_nothing(these):
    run_id = await these.begin(tasks=3, at_once=3)
    async with these.database.transaction() as connection:
        await these.store.lock(connection, run_id)
        telling = [asyncio.ensure_future(these.running.apply(run_id, [ended(f"{run_id}.{n}")])) for n in range(1, 4)]
        await asyncio.sleep(0.05)
        telling[1].cancel()
        await asyncio.sleep(0.05)
    await asyncio.wait(telling)

    assert set((await these.views.get(run_id)).state.done) == {f"{run_id}.1", f"{run_id}.3"}


async def test_who_leaves_while_telling_a_run_leaves_what_others_tell(these):
    run_id = await these.begin(tasks=3, at_once=3)
    async with these.database.transaction() as connection:
        await these.store.lock(connection, run_id)
        telling = [asyncio.ensure_future(these.running.apply(run_id, [ended(f"{run_id}.{n}")])) for n in range(1, 4)]
        await asyncio.sleep(0.05)
        telling[0].cancel()
    await asyncio.wait(telling)

    assert [each.exception() for each in telling[1:]] == [None, None]
    assert set((await these.views.get(run_id)).state.done) == {f"{run_id}.2", f"{run_id}.3"}


async def quietly(work):
    try:
        await work
    except FenceLost as lost:
        return lost


async def test_an_event_twice_is_an_event_once(these):
    run_id = await these.begin(tasks=2)
    for _ in range(2):
        await these.running.apply(run_id, [ended(f"{run_id}.1")])

    run = await these.views.get(run_id)
    assert (run.decisions, run.state.done) == (2, (f"{run_id}.1",))
    assert await these.owed() == ["start-task"] * 2


async def test_nothing_comes_after_the_end(these):
    run_id = await these.begin(tasks=1)
    await these.running.apply(run_id, [ended(f"{run_id}.1")])
    before = await these.views.get(run_id)
    await these.running.apply(run_id, [CancelAsked(time=SystemClock().now()), ended(f"{run_id}.1")])

    assert await these.views.get(run_id) == before


async def test_a_start_whose_worker_died_before_its_end_is_done_again_and_is_one_task(these):
    run_id = await these.begin(tasks=1)
    first = await these.job("start-task")
    second = await these.job("start-task")
    with pytest.raises(FenceLost):
        await these.errands.handlers()["start-task"](first)
    await these.errands.handlers()["start-task"](second)

    assert list(these.tasks.requests) == [f"{run_id}.1"]
    assert these.tasks.created == 2
    assert these.tasks.roots == {f"{run_id}.1": run_id}


async def test_what_is_done_at_once_needs_no_fact(these):
    these.tasks.script = lambda task_id, request: done(request.message)
    run_id = await these.begin(tasks=1, topic="tea")
    await these.do("start-task")

    assert (await these.views.get(run_id)).state.end.output == "tea 1"


async def test_a_task_that_is_refused_has_failed(these):
    these.tasks.script = lambda task_id, request: TaskRefused("AGENT_NOT_FOUND", "There is none.")
    run_id = await these.begin(tasks=1)
    await these.do("start-task")

    assert (await these.views.get(run_id)).state.outputs == {f"{run_id}.1": "AGENT_NOT_FOUND"}


async def test_a_start_that_finds_nobody_is_tried_again(these):
    await these.begin(tasks=1)
    these.tasks.failures.append(DependencyUnavailable("agent"))
    with pytest.raises(DependencyUnavailable):
        await these.do("start-task")
    await these.do("start-task")

    assert these.tasks.created == 2


async def test_a_task_cancelled_before_it_began_never_begins(these):
    run_id = await these.begin(tasks=1)
    await these.running.apply(run_id, [CancelAsked(time=SystemClock().now(), comment="enough")])
    assert (await these.views.get(run_id)).status is RunStatus.CANCELLING
    await these.do("cancel-task")
    assert (await these.views.get(run_id)).status is RunStatus.CANCELLED
    await these.do("start-task")

    assert these.tasks.requests == {}
    assert await these.kinds(run_id) == ["run_started", "task_started", "cancelling", "task_finished", "cancelled"]


async def test_a_task_cancelled_while_it_is_begun_is_stopped(these):
    run_id = await these.begin(tasks=1)
    create = these.tasks.create

    async def slowly(task_id, request, **how):
        await these.running.apply(run_id, [CancelAsked(time=SystemClock().now())])
        await these.do("cancel-task")
        return await create(task_id, request, **how)

    these.tasks.create = slowly
    await these.do("start-task")

    assert these.tasks.standings[f"{run_id}.1"].outcome == TaskOutcome(status=TaskStatus.CANCELLED)
    assert (await these.views.get(run_id)).status is RunStatus.CANCELLED


async def test_a_paused_run_begins_nothing_new_until_it_goes_on(these):
    run_id, now = await these.begin(tasks=2), SystemClock().now()
    await these.running.apply(run_id, [PauseAsked(time=now), ended(f"{run_id}.1")])
    assert await these.owed() == ["start-task"]
    await these.running.apply(run_id, [ResumeAsked(time=now)])

    assert await these.owed() == ["start-task"] * 2


async def test_a_child_run_is_begun_once_and_its_end_told(these):
    run_id = await these.begin(tasks=0, child={"tasks": 1})
    first = await these.job("start-child")
    again = await these.job("start-child")
    with pytest.raises(FenceLost):
        await these.errands.handlers()["start-child"](first)
    await these.errands.handlers()["start-child"](again)
    child_id = f"{run_id}.1"
    child = await these.views.get(child_id)
    assert (child.parent_run_id, child.pinned.root_run_id, child.parent_state) == (run_id, run_id, "s")
    await these.running.apply(child_id, [ended(f"{child_id}.1", done("from below"))])
    await these.do("tell-parent")

    parent = await these.views.get(run_id)
    assert (parent.status, parent.state.end.output) == (RunStatus.COMPLETED, "from below")
    assert await these.owed() == ["start-task"]
    assert [each.id for each in await these.views.tree(run_id, limit=9)] == [run_id, child_id]


async def test_a_child_of_a_cancelled_run_is_cancelled_whichever_comes_first(these):
    for order in (["start-child", "steer-child"], ["steer-child", "start-child"]):
        run_id = await these.begin(tasks=0, child={"tasks": 1})
        await these.running.apply(run_id, [CancelAsked(time=SystemClock().now())])
        for kind in order:
            await these.do(kind)
        await these.do("cancel-task")
        await these.do("tell-parent")

        assert (await these.views.get(f"{run_id}.1")).status is RunStatus.CANCELLED
        assert (await these.views.get(run_id)).status is RunStatus.CANCELLED


async def test_a_child_that_begins_while_its_parent_is_cancelled_is_cancelled(these):
    run_id = await these.begin(tasks=0, child={"tasks": 1})
    standing, has_read, go_on = these.views.standing, asyncio.Event(), asyncio.Event()

    async def slowly(id_):
        found = await standing(id_)
        has_read.set()
        await go_on.wait()
        return found

    these.views.standing = slowly
    async with asyncio.TaskGroup() as group:
        group.create_task(these.do("start-child"))
        await has_read.wait()
        await these.running.apply(run_id, [CancelAsked(time=SystemClock().now())])
        steering = group.create_task(these.do("steer-child"))

        async def is_held_up():
            return steering.done() or await these.database.fetch(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            )

        await until(is_held_up)
        go_on.set()

    assert (await these.views.get(f"{run_id}.1")).status is RunStatus.CANCELLING


async def test_a_timer_fires_as_a_job_that_waits(these):
    run_id = await these.begin(tasks=1, pause=3600)
    (row,) = await these.database.fetch("SELECT due_at > now() + interval '50 min' AS later FROM jobs")
    assert row["later"]
    await these.do("timer")

    assert await these.owed() == ["start-task"]
    assert (await these.views.get(run_id)).state.begun == 1


async def test_what_is_owed_is_owed_to_whose_run_it_is(these):
    run_id = await these.begin(tasks=2, principal="ada")
    with caller(principal="bob"):
        await these.running.apply(run_id, [ended(f"{run_id}.1")])

    rows = await these.database.fetch("SELECT DISTINCT principal FROM jobs")
    assert [row["principal"] for row in rows] == ["ada"]


async def test_another_tenant_has_no_such_run(these):
    run_id = await these.begin(tasks=1)
    with caller(tenant="other"):
        await these.running.apply(run_id, [CancelAsked(time=SystemClock().now())])
        with pytest.raises(RunNotFound):
            await these.views.get(run_id)

    assert (await these.views.get(run_id)).decisions == 1


async def test_memories_of_a_run_are_forgotten_at_its_end(these):
    run_id = await these.begin(tasks=1, crew=Crew(id="c", memory=True))
    await these.running.apply(run_id, [ended(f"{run_id}.1")])
    await these.do("forget-run")

    assert these.tasks.forgotten == [(run_id, ("crew.c",))]


async def test_memories_of_all_crews_below_a_flow_are_forgotten_at_its_end(these):
    flow = Flow(id="f", states=(FlowState(id="s", crew=CrewWork(crew_id="below")),))
    run_id = await these.begin(flow=flow, tasks=0, child={"tasks": 1, "memory": True})
    await these.do("start-child")
    await these.running.apply(f"{run_id}.1", [ended(f"{run_id}.1.1")])
    await these.do("tell-parent")
    await these.do("forget-run")

    assert these.tasks.forgotten == [(run_id, ("crew-below-ann", "kept"))]


async def test_runs_are_purged_when_their_days_are_over(these):
    run_id, other = await these.begin(tasks=1), await these.begin(tasks=1)
    await these.running.apply(run_id, [ended(f"{run_id}.1")])
    assert await these.views.purge() == 0
    await these.database.fetch("UPDATE runs SET finish_time = now() - interval '31 days' WHERE id = %s", [run_id])

    assert await these.views.purge() == 1
    with pytest.raises(RunNotFound):
        await these.views.get(run_id)
    assert await these.views.events(run_id, after_seq=0, limit=9) == []
    assert (await these.views.get(other)).id == other


async def test_a_child_run_is_purged_with_the_run_above_it_and_not_before(these):
    run_id = await these.begin(tasks=0, child={"tasks": 1})
    await these.do("start-child")
    child_id = f"{run_id}.1"
    await these.running.apply(child_id, [ended(f"{child_id}.1")])
    aged = "UPDATE runs SET finish_time = now() - interval '31 days' WHERE id = %s"
    await these.database.fetch(aged, [child_id])
    assert await these.views.purge() == 0
    assert len(await these.views.tree(run_id, limit=9)) == 2
    await these.do("tell-parent")
    await these.database.fetch(aged, [run_id])

    assert await these.views.purge() == 1
    assert await these.views.tree(run_id, limit=9) == []
    assert await these.views.events(child_id, after_seq=0, limit=9) == []


async def test_a_task_that_the_agent_service_lost_has_failed(these):
    run_id = await these.begin(tasks=1)
    await these.do("start-task")
    these.tasks.standings.clear()
    assert await these.inquiry.ask() == 0
    await these.database.fetch("UPDATE run_tasks SET asked_time = now() - interval '61 s'")
    assert await these.inquiry.ask() == 1

    assert (await these.views.get(run_id)).state.outputs == {f"{run_id}.1": "DEPENDENCY_UNAVAILABLE"}
    assert await these.inquiry.ask() == 0


async def test_a_task_that_waited_when_it_was_begun_is_asked_after_too(these):
    run_id = await these.begin(tasks=1)
    create = these.tasks.create

    async def and_wait(task_id, request, **how):
        await create(task_id, request, **how)
        these.tasks.wait(task_id, approval_id="a")
        return these.tasks.standings[task_id]

    these.tasks.create = and_wait
    await these.do("start-task")
    these.tasks.finish(f"{run_id}.1", done())
    await these.database.fetch("UPDATE run_tasks SET asked_time = now() - interval '61 s'")
    assert await these.inquiry.ask() == 1

    assert (await these.views.get(run_id)).status is RunStatus.COMPLETED


async def test_a_task_that_is_silent_and_at_work_stays_so(these):
    run_id = await these.begin(tasks=1)
    await these.do("start-task")
    await these.database.fetch("UPDATE run_tasks SET asked_time = now() - interval '61 s'")

    assert (await these.inquiry.ask(), await these.inquiry.ask()) == (1, 0)
    assert (await these.views.get(run_id)).decisions == 1
