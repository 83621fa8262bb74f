"""A proof must be able to fail: without its mechanism what is promised of runs is broken, and the verdict says so."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from loremesh_crew.consumers import TaskFacts
from loremesh_crew.domain.machine import TaskRequest
from loremesh_crew.engine.hearing import Inquiry
from loremesh_crew.ports import TaskStanding
from loremesh_kit.ids import new_id
from loremesh_kit.testing import caller

from .crash_lot import CREW, SECONDS, SMALL, WIDE, Lot, Wrong, lot
from .mortal import WHOLE, Aim, JobsAfterwards, Mortal, Twin
from .replicas import Mesh, outcome, until

pytestmark = pytest.mark.steelthread

# How long a twin is waited for, which may never end: the whole service takes a tenth of it.
PATIENCE = 4


def patience(here: Lot) -> float:
    return SECONDS if here.twin is WHOLE else PATIENCE


@dataclass
class Renaming:
    """The way to an agent service, to whom another attempt to begin a task is another task."""

    tasks: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tasks, name)

    async def create(self, task_id: str, request: TaskRequest, *, root_run_id: str, wait: float = 0.0) -> TaskStanding:
        own_id = new_id() if task_id in self.tasks.roots else task_id
        made = await self.tasks.create(own_id, request, root_run_id=root_run_id, wait=wait)
        self.tasks.standings[task_id] = replace(made, task_id=task_id)
        return self.tasks.standings[task_id]


NO_LOCK = Twin(
    rewrites=[
        (r"(FROM runs WHERE id = %s) FOR UPDATE", r"\1"),
        # The key of the history would notice, and undo the second decision of one number.
        (r"AS decided \(number, event, commands, last_seq\)", r"\g<0> ON CONFLICT DO NOTHING"),
    ]
)
NEW_IDS = Twin(tasks=Renaming)
JOBS_AFTERWARDS = Twin(database=JobsAfterwards)
NO_INQUIRY = Twin(works=lambda worker: not isinstance(worker, Inquiry))


async def two_replicas_hear_at_once(here: Lot) -> set[Wrong]:
    """Tasks of one run end together, and each is heard of by one of two processes."""
    other = await Mortal(here.mesh, here.twin).start()
    try:
        with caller(tenant=f"tenant-{new_id()}"):
            await here.kickoff(WIDE)

            async def all_begun() -> bool:
                return len(await here.begun()) == len(WIDE.tasks)

            await until(all_begun)
            begun = await here.begun()
            async with asyncio.TaskGroup() as group:
                for nth, task_id in enumerate(begun):
                    here.tasks.finish(task_id, outcome("It is done."))
                    group.create_task(hearing((here.process, other)[nth % 2]).hear([task_id]))
            return await here.verdict()
    finally:
        await other.end()


def hearing(process: Mortal) -> Any:
    return next(each._hearing for each in process.wired.workers if isinstance(each, TaskFacts))


def killed(point: str, when: Any) -> Callable[[Lot], Awaitable[set[Wrong]]]:
    async def ordeal(here: Lot) -> set[Wrong]:
        assert await here.play(CREW) == set()
        struck = here.process
        found = await here.play(CREW, Aim(point, when), seconds=patience(here))
        assert here.process is not struck
        return found

    return ordeal


async def facts_are_lost(here: Lot) -> set[Wrong]:
    """The agent service finishes a task, and nobody hears of it."""
    return await here.play(SMALL, seconds=patience(here))


CREATED = "tasks.create@start-task:errands._start_task#1"
CASES = {
    "decisions without a lock": (NO_LOCK, two_replicas_hear_at_once, Wrong.STUCK),
    "a task begun under another id": (NEW_IDS, killed(CREATED, "after"), Wrong.DOUBLED),
    "a decision before its jobs": (JOBS_AFTERWARDS, killed("commit@timer:running.apply#1", "after"), Wrong.STUCK),
    "nobody asks after lost facts": (NO_INQUIRY, facts_are_lost, Wrong.STUCK),
}


@pytest.mark.parametrize("name", CASES)
async def test_without_its_mechanism_a_promise_is_broken_and_with_it_kept(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, name
):
    monkeypatch.setattr("loremesh_kit.sweeper._PATIENCE", 0.5)
    twin, ordeal, wrong = CASES[name]
    facts = ordeal is not facts_are_lost
    async with lot(mesh, facts=facts) as here:
        assert await ordeal(here) == set()
    async with lot(mesh, twin, facts=facts) as here:
        assert wrong in await ordeal(here)
        assert not here.process.database.unused, "the twin is not the service without its mechanism any more"
