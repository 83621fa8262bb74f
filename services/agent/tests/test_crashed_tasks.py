"""Workers that die around what a task hands on and has reviewed, and others that finish what they began."""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from loremesh.agent.v1 import approval_pb2
from loremesh.agent.v1 import task_pb2 as pb
from loremesh_agent.adapters import postgres_runs
from loremesh_agent.ports import ModelEvent, ModelRequest
from loremesh_kit.jobs import Job
from loremesh_kit.loops import background

from .order_doubles import COMPLETED, approvals, decide, deliver, facts, order, task
from .replicas import Mesh, Replica, Script, check, kinds, words
from .test_crashed_runs import Fate, answers_kept, bury
from .test_delegation import hands_on

pytestmark = pytest.mark.steelthread

SECONDS = 120
STAGES: Sequence[Script] = [
    hands_on(("delegate_work", "Ada", "One."), ("ask_coworker", "Bob", "Two?")),
    words("A draft."),
    words("Another draft."),
]
CREW = [pb.Coworker(name="Ada"), pb.Coworker(name="Bob")]
_TAG = re.compile(r"#(\d+)")


class World:
    """Model, coworkers and human of many tasks, each with its fate."""

    name = "staged"

    def __init__(self, mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fates: dict[str, Fate] = {}
        mesh.provider = self  # type: ignore[assignment]
        for name in ("commit", "park", "finish"):
            monkeypatch.setattr(postgres_runs.PostgresRuns, name, self._mortal(name))

    def _mortal(self, name: str) -> Any:
        act = getattr(postgres_runs.PostgresRuns, name)

        async def acting(runs: Any, job: Job, *given: Any, **more: Any) -> Any:
            fate = await self.of(job.id)
            await fate.point(f"before {name}")
            result = await act(runs, job, *given, **more)
            await fate.point(f"after {name}")
            return result

        return acting

    async def of(self, run: str) -> Fate:
        while run not in self.fates:  # noqa: ASYNC110 - it is written down a moment after it was accepted
            await asyncio.sleep(0.01)
        return self.fates[run]

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        fate = await self.of(next(found[1] for each in request.messages if (found := _TAG.search(each.content))))
        fate.asked += 1
        stage = sum(message.role == "assistant" for message in request.messages)
        await fate.point(f"model {stage} is asked")
        for event in STAGES[stage]:
            yield event  # type: ignore[misc]


async def work(replica: Replica) -> None:
    """Does what is handed on, sends the first draft back and accepts the second."""
    while True:
        rows = await replica.database.fetch(
            "SELECT tasks.id AS task_id, delegations.id FROM delegations JOIN tasks USING (tenant, run_id)"
            " WHERE answer_time IS NULL"
        )
        for row in rows:
            for output in ("so", "otherwise"):
                await deliver(replica, row["id"], output, task_id=row["task_id"])
        for approval in await approvals(replica, page_size=1000):
            if approval.output == "A draft.":
                await decide(replica, approval, "DENY", comment="Again.")
            else:
                await decide(replica, approval, "APPROVE")
        await asyncio.sleep(0.1)


async def live(world: World, replica: Replica, at: int | None) -> Fate:
    """A task whose worker dies at a place, and what must hold of it whichever that was."""
    fate, tag = Fate(at), str(len(world.fates))
    task_id = f"r{tag}.1"
    world.fates[tag] = fate
    made = await order(replica, task_id, f"Do it. #{tag}", coworkers=CREW, review=pb.OutputReview(), root_run_id=tag)
    world.fates[made.run_id] = fate
    async with background() as group:
        burying = group.create_task(bury(replica, fate, made.run_id))
        while not (await task(replica, task_id)).HasField("finish_time"):  # noqa: ASYNC110 - it is seen by asking
            await asyncio.sleep(0.2)
        events = await replica.watch(made.run_id)
        known, asked = await burying if fate.died.is_set() else (0, 0)
        burying.cancel()
    place = fate.places[at] if at is not None and at < len(fate.places) else "nowhere"
    check(events)
    assert kinds(events)[-1] == "completed", place
    done = await task(replica, task_id)
    assert (done.state, done.output) == (COMPLETED, "Another draft."), place
    asked_of_humans = await replica.approvals.ListApprovals(
        approval_pb2.ListApprovalsRequest(run_id=tag, state=approval_pb2.APPROVAL_STATE_DENIED)
    )
    assert [each.output for each in asked_of_humans.approvals] == ["A draft."], place
    rows = await replica.database.fetch(
        "SELECT output FROM delegations WHERE run_id = %s ORDER BY number", [made.run_id]
    )
    assert [row["output"] for row in rows] == ["so", "so"], place
    assert (await facts(replica, "WorkDelegated")).count(task_id) == 1, place
    # What was kept of the model's answers when the worker died was not asked for again.
    assert fate.asked - asked == await answers_kept(replica, made.run_id) - known, place
    return fate


async def test_wherever_a_worker_dies_its_task_is_finished_and_nothing_is_asked_or_handed_on_twice(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(mesh, monkeypatch)
    async with (
        # Leases outlast a stall of the machine: who is dead, the test says.
        mesh.replica(job_concurrency=64, job_lease_seconds=60) as replica,
        asyncio.timeout(SECONDS),
        background() as group,
    ):
        working = group.create_task(work(replica))
        places = (await live(world, replica, None)).places
        assert places.count("after park") >= 3
        async with asyncio.TaskGroup() as runs:
            for at in range(len(places)):
                runs.create_task(live(world, replica, at))
        working.cancel()
