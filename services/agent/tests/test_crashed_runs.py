"""Workers that die before or after each durable step of a run, and others that finish what they began."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from loremesh.agent.v1 import approval_pb2
from loremesh.agent.v1 import chat_job_pb2 as pb
from loremesh_agent.adapters import postgres_runs
from loremesh_agent.adapters.toolbox import FixedToolbox
from loremesh_agent.domain.tools import ApprovalPolicy, CallContext, Effect, ToolResult, ToolUse
from loremesh_agent.ports import ModelEvent, ModelRequest
from loremesh_kit.jobs import Job
from loremesh_kit.loops import background

from .replicas import Mesh, Replica, Script, check, kinds, words
from .tool_doubles import CountingTool, calls, give

pytestmark = pytest.mark.steelthread

SECONDS = 120
STAGES: Sequence[Script] = [
    calls(("read", "a"), ("put", "b"), ("log", "c"), text="Let me see."),
    calls(("pay", "d"), text="Now I pay."),
    words("It is done."),
]
EFFECTS = {
    "read": Effect.READ_ONLY,
    "put": Effect.IDEMPOTENT,
    "log": Effect.SIDE_EFFECTING,
    "pay": Effect.SIDE_EFFECTING,
}
USES = {
    "log": ToolUse(name="log", approval=ApprovalPolicy.NEVER),
    "pay": ToolUse(name="pay", approval=ApprovalPolicy.ALWAYS),
}
_TAG = re.compile(r"#(\d+)")


@dataclass
class Fate:
    """A run whose worker dies at the n-th place where it may, once; None: nowhere."""

    at: int | None
    places: list[str] = field(default_factory=list)
    died: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    calls: list[tuple[str, str]] = field(default_factory=list)
    reviewed: list[str] = field(default_factory=list)

    async def point(self, place: str) -> None:
        self.places.append(place)
        if self.at is not None and len(self.places) == self.at + 1:
            self.at = None
            # Who dies once the job is parked or over held it no more: there is nothing to bury.
            if place not in ("after park", "after finish"):
                self.died.set()
            # Dead is who never goes on: the worker ends this once the job is another's.
            await asyncio.Event().wait()


class World:
    """Model, tools and human of many runs, each with its fate."""

    name = "staged"

    def __init__(self, mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fates: dict[str, Fate] = {}
        give(mesh, *(CountingTool(name=name, effect=effect) for name, effect in EFFECTS.items()), uses=USES)
        mesh.toolbox = FixedToolbox([_Tool(self, name) for name in EFFECTS])
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
        tag = next(found[1] for message in request.messages if (found := _TAG.search(message.content)))
        fate = await self.of(tag)
        fate.asked += 1
        stage = sum(bool(message.tool_calls) for message in request.messages)
        await fate.point(f"model {stage} is asked")
        for event in STAGES[stage]:
            yield event  # type: ignore[misc]


class _Tool(CountingTool):
    def __init__(self, world: World, name: str) -> None:
        super().__init__(name=name, effect=EFFECTS[name])
        self.world = world

    async def call(self, arguments: Any, context: CallContext) -> ToolResult:
        fate = await self.world.of(context.run_id)
        fate.calls.append((self.name, context.idempotency_key))
        await fate.point(f"{self.name} is done")
        return await super().call(arguments, context)


async def decide(world: World, replica: Replica) -> None:
    """Approves what is asked, and of calls with an unknown end says what they answered."""
    while True:
        found = await replica.approvals.ListApprovals(approval_pb2.ListApprovalsRequest(page_size=1000))
        for approval in found.approvals:
            decision = approval_pb2.DecideApprovalRequest(
                approval_id=approval.id, decision=approval_pb2.DECISION_APPROVE
            )
            if approval.kind == approval_pb2.APPROVAL_KIND_REVIEW:
                (await world.of(approval.run_id)).reviewed.append(approval.tool_name)
                decision.decision, decision.answer = approval_pb2.DECISION_ANSWER, "It went well."
            await replica.approvals.DecideApproval(decision)
        await asyncio.sleep(0.1)


async def answers_kept(replica: Replica, job_id: str) -> int:
    kept = (await replica.jobs.ListRunSteps(pb.ListRunStepsRequest(job_id=job_id))).steps
    return sum(step.kind == pb.STEP_KIND_MODEL and step.state == pb.STEP_STATE_DONE for step in kept)


async def bury(replica: Replica, fate: Fate, job_id: str) -> tuple[int, int]:
    """Let another worker have the job of a dead one; what was kept of the model's answers then, and was asked."""
    await fate.died.wait()
    known, asked = await answers_kept(replica, job_id), fate.asked
    await replica.database.fetch(
        "UPDATE jobs SET state = 'QUEUED', lease_until = NULL, announced_at = NULL WHERE id = %s AND state = 'RUNNING'",
        [job_id],
    )
    return known, asked


async def live(world: World, replica: Replica, at: int | None) -> Fate:
    """A run whose worker dies at a place, and what must hold of it whichever that was."""
    fate = Fate(at)
    tag = str(len(world.fates))
    world.fates[tag] = fate
    made = await replica.create(f"Do it. #{tag}")
    world.fates[made.job_id] = fate
    async with background() as group:
        burying = group.create_task(bury(replica, fate, made.job_id))
        events = await replica.watch(made.job_id)
        known, asked = await burying if fate.died.is_set() else (0, 0)
        burying.cancel()
    place = fate.places[at] if at is not None and at < len(fate.places) else "nowhere"
    check(events)
    assert kinds(events)[-1] == "completed", place
    assert events[-1].completed.response == "It is done."
    made_calls = Counter(name for name, _ in fate.calls)
    assert len(set(fate.calls)) == len(made_calls), f"{place}: one key for each call"
    for name, effect in EFFECTS.items():
        if effect is Effect.SIDE_EFFECTING:
            assert made_calls[name] <= 1, place
        # Of a call that was intended and perhaps never made a human says how it ended.
        assert made_calls[name] or name in fate.reviewed, place
    # What was kept of the model's answers when the worker died was not asked for again.
    assert fate.asked - asked == await answers_kept(replica, made.job_id) - known, place
    return fate


async def test_wherever_a_worker_dies_its_run_is_finished_and_nothing_is_done_twice(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(mesh, monkeypatch)
    async with (
        # Leases outlast a stall of the machine: who is dead, the test says.
        mesh.replica(job_concurrency=64, job_lease_seconds=60) as replica,
        asyncio.timeout(SECONDS),
        background() as group,
    ):
        deciding = group.create_task(decide(world, replica))
        places = (await live(world, replica, None)).places
        assert {"model 0 is asked", "log is done", "before park", "after park", "after finish"} <= set(places)
        async with asyncio.TaskGroup() as runs:
            for at in range(len(places)):
                runs.create_task(live(world, replica, at))
        deciding.cancel()
