"""Jobs that are given up, and runs that cannot be decided: nobody waits for what never comes."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from loremesh_crew.adapters.memory_tasks import MemoryTasks
from loremesh_crew.domain.machine import CancelAsked, RunStatus, TaskEnded, TaskRequest, TaskStatus
from loremesh_kit import identity
from loremesh_kit.clock import SystemClock
from loremesh_kit.errors import AttemptsExhausted
from loremesh_kit.testing import DatabaseUrls

from .run_doubles import Parts, done, parts

pytestmark = [pytest.mark.steelthread, pytest.mark.usefixtures("who")]


@pytest.fixture
async def these(database_urls: DatabaseUrls, nats_url: str, who: identity.Identity) -> AsyncIterator[Parts]:
    del who
    async with parts(database_urls.plain, nats_url, MemoryTasks()) as made:
        yield made


async def give_up(these, kind):
    job = await these.job(kind)
    async with these.database.transaction() as connection:
        await these.errands.give_up(connection, job, AttemptsExhausted(attempts=8))


async def test_a_start_that_is_given_up_has_failed(these):
    run_id = await these.begin(tasks=1)
    await give_up(these, "start-task")

    assert (await these.views.get(run_id)).state.outputs == {f"{run_id}.1": "ATTEMPTS_EXHAUSTED"}


async def test_a_task_whose_start_is_given_up_after_all_is_stopped(these):
    run_id = await these.begin(tasks=1)
    await these.tasks.create(f"{run_id}.1", TaskRequest(name="t"), root_run_id=run_id)
    await give_up(these, "start-task")
    await these.do("cancel-task")

    assert these.tasks.standings[f"{run_id}.1"].outcome.status is TaskStatus.CANCELLED
    assert (await these.views.get(run_id)).state.outputs == {f"{run_id}.1": "ATTEMPTS_EXHAUSTED"}


async def test_a_timer_that_is_given_up_is_over(these):
    run_id = await these.begin(tasks=1, pause=3600)
    await give_up(these, "timer")

    assert (await these.views.get(run_id)).state.begun == 1


async def test_a_cancelled_task_whose_cancelling_is_given_up_holds_up_nobody(these):
    run_id = await these.begin(tasks=1)
    await these.running.apply(run_id, [CancelAsked(time=SystemClock().now())])
    await give_up(these, "cancel-task")

    assert (await these.views.get(run_id)).status is RunStatus.CANCELLED


async def test_a_child_whose_end_nobody_could_tell_is_waited_for_no_longer(these):
    run_id = await these.begin(tasks=0, child={"tasks": 1})
    await these.do("start-child")
    await these.running.apply(
        f"{run_id}.1", [TaskEnded(time=SystemClock().now(), task_id=f"{run_id}.1.1", outcome=done("below"))]
    )
    await give_up(these, "tell-parent")

    assert (await these.views.get(run_id)).state.end.output == "below"


async def test_a_child_that_could_not_be_steered_is_steered_at_last(these):
    run_id = await these.begin(tasks=0, child={"tasks": 1})
    await these.do("start-child")
    await these.running.apply(run_id, [CancelAsked(time=SystemClock().now())])
    await give_up(these, "steer-child")

    assert (await these.views.get(f"{run_id}.1")).status is RunStatus.CANCELLING


async def test_who_waits_for_an_answer_that_is_given_up_has_failed(these):
    run_id = await these.begin(tasks=1, answer=True)
    await give_up(these, "answer-delegation")

    assert (await these.views.get(run_id)).state.outputs == {f"{run_id}.1": "ATTEMPTS_EXHAUSTED"}


@dataclass
class Said:
    """A fact that arrived."""

    task_id: str
    subject: str = "loremesh.agent.events.TaskFinished"
    id: str = "1"
    acknowledged: bool = False
    headers: dict[str, str] = field(default_factory=lambda: {identity.TENANT_HEADER: identity.current().tenant})

    @property
    def data(self) -> bytes:
        return json.dumps({"task_id": self.task_id}).encode()

    async def ack(self) -> None:
        self.acknowledged = True


async def test_what_is_said_of_a_run_that_cannot_be_decided_holds_up_no_other(these):
    broken, other = await these.begin(tasks=1, breaks=True), await these.begin(tasks=1)
    said = [Said(f"{broken}.1"), Said(f"{other}.1")]
    for _ in said:
        await these.do("start-task")
    for each in said:
        these.tasks.finish(each.task_id, done())
    await these.facts.take(said)

    assert [each.acknowledged for each in said] == [True, True]
    assert (await these.views.get(other)).status is RunStatus.COMPLETED


async def test_a_run_that_cannot_be_decided_keeps_no_job_alive_and_no_other_run_waiting(these):
    broken, other = await these.begin(tasks=1, breaks=True), await these.begin(tasks=1)
    job = await these.job("start-task")
    async with these.database.transaction() as connection:
        await these.errands.give_up(connection, job, AttemptsExhausted(attempts=8))
        # The transaction of the dead letter goes on.
        assert await (await connection.execute("SELECT 1 AS one")).fetchone()
    await these.do("start-task")
    await these.do("start-task")
    for task_id in list(these.tasks.requests):
        these.tasks.finish(task_id, done())
    await these.database.fetch("UPDATE run_tasks SET asked_time = now() - interval '61 s'")

    assert await these.inquiry.ask() == 2
    assert (await these.views.get(broken)).status is RunStatus.IN_PROGRESS
    assert (await these.views.get(other)).status is RunStatus.COMPLETED
