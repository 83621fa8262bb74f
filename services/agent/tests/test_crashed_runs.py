"""Workers that die before or after each durable step of a run, and others that finish what they began."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from loremesh.agent.v1 import approval_pb2
from loremesh.agent.v1 import chat_job_pb2 as pb
from loremesh_agent.adapters import postgres_runs
from loremesh_agent.domain.tools import ApprovalPolicy, Effect, ToolResult, ToolSpec, ToolUse
from loremesh_agent.ports import ModelEvent, ModelRequest, Tool
from loremesh_kit.loops import background

from .replicas import SECONDS, Mesh, Replica, Script, check, kinds, words
from .tool_doubles import CountingTool, calls, give

pytestmark = pytest.mark.steelthread


@dataclass
class Fate:
    """Lets a worker die at the n-th place where it may; None: never."""

    at: int | None = None
    passed: list[str] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def point(self, name: str) -> None:
        self.passed.append(name)
        if self.at is not None and len(self.passed) == self.at + 1:
            self.reached.set()
            # Dead is who never goes on; whoever waits for us to die ends this.
            await asyncio.Event().wait()


class StagedProvider:
    """Says what the run's stage wants, whoever asks: as many scripts as there were rounds of calls."""

    name = "staged"

    def __init__(self, stages: Sequence[Script], fate: Fate) -> None:
        self.stages, self.fate = stages, fate
        self.asked: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        stage = sum(bool(message.tool_calls) for message in request.messages)
        self.asked[stage] += 1
        await self.fate.point(f"model {stage} is asked")
        for event in self.stages[stage]:
            yield event  # type: ignore[misc]
        self.ended[stage] += 1


# A dead worker's job is taken up after so long.
LEASE = {"job_lease_seconds": 0.6}

STAGES: Sequence[Script] = [
    calls(("read", "a"), ("put", "b"), ("log", "c"), text="Let me see."),
    calls(("pay", "d"), text="Now I pay."),
    words("It is done."),
]


@pytest.fixture
def fate(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> Fate:
    fate = Fate()
    whole = postgres_runs.PostgresRuns

    def mortal(name: str) -> Any:
        act = getattr(whole, name)

        async def dying(self: Any, *given: Any, **more: Any) -> Any:
            await fate.point(f"before {name}")
            result = await act(self, *given, **more)
            await fate.point(f"after {name}")
            return result

        return dying

    for name in ("commit", "park", "finish"):
        monkeypatch.setattr(whole, name, mortal(name))
    del mesh
    return fate


def tools(fate: Fate) -> list[CountingTool]:
    effects = {
        "read": Effect.READ_ONLY, "put": Effect.IDEMPOTENT, "log": Effect.SIDE_EFFECTING, "pay": Effect.SIDE_EFFECTING,
    }  # fmt: skip

    def made(name: str, effect: Effect) -> CountingTool:
        async def answer(arguments: Any) -> ToolResult:
            await fate.point(f"{name} is done")
            return ToolResult(content=f"{name} {arguments['x']}")

        return CountingTool(name=name, effect=effect, answers=answer)

    return [made(name, effect) for name, effect in effects.items()]


class World:
    """Model and tools that change from run to run behind the same connections."""

    name = "staged"

    def __init__(self, mesh: Mesh) -> None:
        self.tools: dict[str, CountingTool] = {}
        self.provider: StagedProvider | None = None
        give(mesh, *tools(Fate()), uses=USES)
        mesh.toolbox = self
        mesh.provider = self  # type: ignore[assignment]

    def stand_in(self, given: Sequence[CountingTool], provider: StagedProvider) -> None:
        self.tools = {tool.name: tool for tool in given}
        self.provider = provider

    async def specs(self) -> Sequence[ToolSpec]:
        return [tool.spec for tool in self.tools.values()]

    async def find(self, name: str) -> Tool:
        return self.tools[name]

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        assert self.provider is not None
        return self.provider.stream(request)


USES = {
    "log": ToolUse(name="log", approval=ApprovalPolicy.NEVER),
    "pay": ToolUse(name="pay", approval=ApprovalPolicy.ALWAYS),
}


@asynccontextmanager
async def human(replica: Replica, job_id: str, reviewed: list[str]) -> AsyncIterator[None]:
    """Approves what is asked, and of calls with an unknown end says what they answered."""

    async def decide() -> None:
        while True:
            request = approval_pb2.ListApprovalsRequest(run_id=job_id)
            for approval in (await replica.approvals.ListApprovals(request)).approvals:
                decision = approval_pb2.DecideApprovalRequest(
                    approval_id=approval.id, decision=approval_pb2.DECISION_APPROVE
                )
                if approval.kind == approval_pb2.APPROVAL_KIND_REVIEW:
                    reviewed.append(approval.tool_name)
                    decision.decision, decision.answer = approval_pb2.DECISION_ANSWER, "It went well."
                await replica.approvals.DecideApproval(decision)
            await asyncio.sleep(0.05)

    async with background() as group:
        deciding = group.create_task(decide())
        yield
        deciding.cancel()


async def done_models(replica: Replica, job_id: str) -> set[int]:
    kept = (await replica.jobs.ListRunSteps(pb.ListRunStepsRequest(job_id=job_id))).steps
    return {step.number for step in kept if step.kind == pb.STEP_KIND_MODEL and step.state == pb.STEP_STATE_DONE}


async def live_and_die(world: World, fate: Fate, one: Replica, other: Replica, at: int | None) -> None:
    """A run whose first worker dies at a place, and what must hold of it whichever that was."""
    fate.at, fate.passed, fate.reached = at, [], asyncio.Event()
    given = tools(fate)
    provider = StagedProvider(STAGES, fate)
    world.stand_in(given, provider)
    made = await one.create()
    reviewed: list[str] = []
    async with asyncio.timeout(SECONDS), human(one, made.job_id, reviewed), background() as group:
        watching = group.create_task(other.watch(made.job_id))
        known: set[int] = set()
        asked: Counter[int] = Counter()
        if at is not None:
            async with one.worker():
                await fate.reached.wait()
                known, asked = await done_models(one, made.job_id), provider.asked.copy()
            fate.at = None
        async with other.worker():
            events = await watching
    place = fate.passed[at] if at is not None else "nowhere"
    check(events)
    assert kinds(events)[-1] == "completed", place
    assert events[-1].completed.response == "It is done."
    for tool in given:
        assert len({context.idempotency_key for _, context in tool.calls}) <= 1, place
        if tool.effect is Effect.SIDE_EFFECTING:
            assert len(tool.calls) <= 1, place
        # Of a call that was intended and perhaps never made a human says how it ended.
        assert tool.calls or tool.name in reviewed, place
    # What was kept of the model's answers when the first worker died was not asked for again.
    again = sum((provider.asked - asked).values())
    assert again == len(await done_models(one, made.job_id)) - len(known), place


async def test_wherever_a_worker_dies_its_run_is_finished_and_nothing_is_done_twice(mesh: Mesh, fate: Fate) -> None:
    world = World(mesh)
    async with mesh.replica("server", **LEASE) as one, mesh.replica("server", **LEASE) as other:
        await live_and_die(world, fate, one, other, None)
        places = list(fate.passed)
        assert {"model 0 is asked", "log is done", "before park", "after park", "after finish"} <= set(places)
        for at in range(len(places)):
            await live_and_die(world, fate, one, other, at)
