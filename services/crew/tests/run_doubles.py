"""Machines small enough to see through, and replicas of what runs them, on a real Postgres and NATS."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from loremesh_crew.adapters.memory_tasks import MemoryTasks
from loremesh_crew.adapters.postgres_run_views import PostgresRunViews
from loremesh_crew.adapters.postgres_runs import PostgresRuns
from loremesh_crew.consumers import TaskFacts
from loremesh_crew.domain.definitions import Crew, CrewAgent, Flow, MemorySettings, RunLimits
from loremesh_crew.domain.machine import (
    AnswerDelegation,
    CancelAsked,
    CancelTask,
    ChildEnded,
    End,
    Event,
    PauseAsked,
    Pinned,
    ResumeAsked,
    RunKind,
    RunStatus,
    StartChild,
    Started,
    StartTask,
    StartTimer,
    SteerChild,
    TaskEnded,
    TaskOutcome,
    TaskRequest,
    TaskStatus,
    TaskView,
    Tell,
    TimerFired,
    Usage,
    View,
)
from loremesh_crew.engine.errands import Errands
from loremesh_crew.engine.hearing import Hearing, Inquiry
from loremesh_crew.engine.running import Running
from loremesh_crew.ports import NewRecord, RunRecord
from loremesh_kit.clock import SystemClock
from loremesh_kit.events import Bus, connect
from loremesh_kit.ids import new_id
from loremesh_kit.jobs import Job
from loremesh_kit.outbox import Relay, emit
from loremesh_kit.postgres import Database, open_database
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.worker import JobWorker

SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LineState:
    status: RunStatus = RunStatus.QUEUED
    done: tuple[str, ...] = ()
    at_work: tuple[str, ...] = ()
    outputs: dict[str, str] = field(default_factory=dict)
    begun: int = 0
    usage: Usage = field(default_factory=Usage)
    end: End | None = None


REMEMBERING = (
    CrewAgent(name="ann", memory=MemorySettings(extract=True)),
    CrewAgent(name="bob"),
    CrewAgent(name="cid", agent_id="kept", memory=MemorySettings(extract=True)),
)


@dataclass(frozen=True)
class Lines:
    """Does `inputs["tasks"]` tasks, `inputs["at_once"]` at a time; a timer before, a child after, where asked for."""

    version: int = 1
    state: type[LineState] = LineState

    def begin(self, run: Pinned) -> LineState:
        del run
        return LineState()

    def decide(self, run: Pinned, state: LineState, event: Event) -> tuple[LineState, Sequence[Any]]:  # noqa: C901, PLR0911 - one for each event
        match event:
            case Started():
                state = replace(state, status=RunStatus.IN_PROGRESS)
                told = Tell(kind="run_started", data={"kind": f"RUN_KIND_{run.kind}", "names": ["a", "b"]})
                if seconds := run.inputs.get("pause"):
                    return state, [told, StartTimer(timer="pause", seconds=seconds)]
                after, commands = self._more(run, state)
                answers = [AnswerDelegation(task_id=each, delegation_id="d") for each in after.at_work]
                return after, [told, *commands, *(answers if run.inputs.get("answer") else ())]
            case TaskEnded() if run.inputs.get("breaks"):
                raise ValueError("it is broken")
            case TimerFired(timer="pause") if not state.begun:
                return self._more(run, state)
            case TaskEnded(task_id=task_id, outcome=outcome) if task_id in state.at_work:
                return self._ended(run, state, task_id, outcome)
            case ChildEnded(child_run_id=child, output=output) if child in state.at_work:
                outcome = TaskOutcome(status=TaskStatus.COMPLETED, output=output)
                return self._ended(run, state, child, outcome)
            case CancelAsked(comment=comment) if state.status is not RunStatus.CANCELLING:
                state = replace(state, status=RunStatus.CANCELLING)
                if not state.at_work:
                    state = replace(state, status=RunStatus.CANCELLED, end=End(status=RunStatus.CANCELLED))
                told = Tell(kind="cancelling", data={"comment": comment})
                return state, [told, *(self._stop(run, each) for each in state.at_work)]
            case PauseAsked() if state.status is RunStatus.IN_PROGRESS:
                steers = [
                    SteerChild(child_run_id=each, action="pause") for each in state.at_work if self._is_child(run, each)
                ]
                return replace(state, status=RunStatus.INTERRUPTED), [Tell(kind="paused"), *steers]
            case ResumeAsked() if state.status is RunStatus.INTERRUPTED:
                after, commands = self._more(run, replace(state, status=RunStatus.IN_PROGRESS))
                return after, [Tell(kind="resumed"), *commands]
        return state, []

    def view(self, run: Pinned, state: LineState) -> View:
        names = [f"{run.run_id}.{n}" for n in range(1, state.begun + 1)]
        return View(
            status=state.status,
            tasks=tuple(
                TaskView(
                    name=name.rpartition(".")[2],
                    status=TaskStatus.COMPLETED if name in state.done else TaskStatus.IN_PROGRESS,
                    output=state.outputs.get(name, ""),
                )
                for name in names
            ),
            usage=state.usage,
            output=state.end.output if state.end else "",
        )

    def _is_child(self, run: Pinned, id_: str) -> bool:
        return bool(run.inputs.get("child")) and id_ == f"{run.run_id}.{run.inputs['tasks'] + 1}"

    def _stop(self, run: Pinned, id_: str) -> Any:
        if self._is_child(run, id_):
            return SteerChild(child_run_id=id_, action="cancel")
        return CancelTask(task_id=id_)

    def _ended(self, run: Pinned, state: LineState, id_: str, outcome: TaskOutcome) -> tuple[LineState, list[Any]]:
        state = replace(
            state,
            at_work=tuple(each for each in state.at_work if each != id_),
            done=(*state.done, id_),
            outputs={**state.outputs, id_: outcome.output or outcome.reason},
            usage=state.usage + outcome.usage,
        )
        told = Tell(kind="task_finished", data={"name": id_.rpartition(".")[2], "output": outcome.output}, path=("t",))
        if state.status is RunStatus.CANCELLING and not state.at_work:
            return replace(state, status=RunStatus.CANCELLED, end=End(status=RunStatus.CANCELLED)), [told]
        if state.status is not RunStatus.IN_PROGRESS:
            return state, [told]
        after, commands = self._more(run, state)
        return after, [told, *commands]

    def _more(self, run: Pinned, state: LineState) -> tuple[LineState, list[Any]]:
        commands: list[Any] = []
        while state.begun < run.inputs["tasks"] and len(state.at_work) < run.inputs.get("at_once", 1):
            task_id = f"{run.run_id}.{state.begun + 1}"
            message = f"{run.inputs.get('topic', '')} {state.begun + 1}"
            commands += [
                Tell(kind="task_started", data={"agent": "ada"}, path=("t",)),
                StartTask(task_id=task_id, request=TaskRequest(name="t", message=message)),
            ]
            state = replace(state, begun=state.begun + 1, at_work=(*state.at_work, task_id))
        if not state.at_work and run.inputs.get("child") and state.begun == run.inputs["tasks"]:
            child = f"{run.run_id}.{state.begun + 1}"
            crew = Crew(id="below", name="below", agents=REMEMBERING if run.inputs["child"].get("memory") else ())
            commands.append(
                StartChild(child_run_id=child, state="s", kind=RunKind.CREW, crew=crew, inputs=run.inputs["child"])
            )
            state = replace(state, begun=state.begun + 1, at_work=(child,))
        if not state.at_work:
            output = " ".join(state.outputs.values())
            state = replace(state, status=RunStatus.COMPLETED, end=End(status=RunStatus.COMPLETED, output=output))
        return state, commands


MACHINES = {(RunKind.CREW, 1): Lines(), (RunKind.FLOW, 1): Lines()}


def done(output: str = "good") -> TaskOutcome:
    return TaskOutcome(status=TaskStatus.COMPLETED, output=output, usage=Usage(input_tokens=3, output_tokens=2))


def new_record(
    *, run_id: str = "", principal: str = "ada", crew: Crew | None = None, flow: Flow | None = None, **inputs: Any
) -> NewRecord:
    run_id = run_id or new_id()
    limits = RunLimits(max_seconds=inputs.pop("max_seconds", None))
    crew = None if flow else crew or Crew(id="c")
    kind = RunKind.FLOW if flow else RunKind.CREW
    pinned = Pinned(run_id=run_id, root_run_id=run_id, kind=kind, crew=crew, flow=flow, inputs=inputs, limits=limits)
    return NewRecord(pinned=pinned, name="a crew", principal=principal, definition_id="c", revision=1)


async def a_child(parent: RunRecord, command: StartChild) -> NewRecord:
    """As Kickoff.child, of what the command brings along."""
    pinned = Pinned(
        run_id=command.child_run_id,
        root_run_id=parent.pinned.root_run_id,
        kind=command.kind,
        crew=command.crew,
        inputs=command.inputs,
        depth=parent.pinned.depth + 1,
    )
    return NewRecord(
        pinned=pinned, name="below", principal=parent.principal, definition_id="", revision=0,
        parent_run_id=parent.id, parent_state=command.state,
    )  # fmt: skip


@dataclass
class Parts:
    """What runs runs, in one process."""

    database: Database
    bus: Bus
    tasks: MemoryTasks
    unheard: float = 60.0

    def __post_init__(self) -> None:
        clock = SystemClock()
        self.store = PostgresRuns(database=self.database, machines=MACHINES)
        self.views = PostgresRunViews(database=self.database, machines=MACHINES)
        self.running = Running(database=self.database, store=self.store, machines=MACHINES, clock=clock)
        self.errands = Errands(
            database=self.database,
            store=self.store,
            views=self.views,
            running=self.running,
            tasks=self.tasks,
            make_child=a_child,
            clock=clock,
        )
        self.hearing = Hearing(running=self.running, tasks=self.tasks, clock=clock)
        self.facts = TaskFacts(bus=self.bus, hearing=self.hearing)
        self.inquiry = Inquiry(store=self.store, hearing=self.hearing, seconds=self.unheard)
        self.relay = Relay(database=self.database, bus=self.bus, service="crew")

    def worker(self) -> JobWorker:
        return JobWorker(
            database=self.database,
            bus=self.bus,
            service="crew",
            handlers=self.errands.handlers(),
            on_dead=self.errands.give_up,
            concurrency=8,
            lease=1.5,
            grace=0.1,
        )

    async def begin(self, **inputs: Any) -> str:
        record = new_record(**inputs)
        async with self.database.transaction() as connection:
            await self.running.begin(connection, record)
        return record.pinned.run_id

    async def job(self, kind: str, *, nth: int = 0) -> Job:
        """A job as a worker has it, taken out of turn."""
        rows = await self.database.fetch(
            "UPDATE jobs SET state = 'RUNNING', fence = fence + 1, attempt = 1, lease_until = now() + interval '1 min'"
            " WHERE id = (SELECT id FROM jobs WHERE kind = %s AND state IN ('QUEUED', 'RUNNING')"
            " ORDER BY id OFFSET %s LIMIT 1)"
            " RETURNING id, tenant, principal, request_id, kind, payload, attempt, fence, max_attempts, subject_id",
            [kind, nth],
        )
        return Job(**rows[0])

    async def do(self, kind: str, *, nth: int = 0) -> None:
        job = await self.job(kind, nth=nth)
        await self.errands.handlers()[kind](job)

    async def owed(self) -> list[str]:
        rows = await self.database.fetch("SELECT kind FROM jobs WHERE state = 'QUEUED' ORDER BY id")
        return [row["kind"] for row in rows]

    async def kinds(self, run_id: str) -> list[str]:
        return [event.kind for event in await self.views.events(run_id, after_seq=0, limit=1000)]


@asynccontextmanager
async def parts(plain_url: str, nats_url: str, tasks: MemoryTasks, **more: Any) -> AsyncIterator[Parts]:
    settings = ServiceSettings(database_url=plain_url, nats_url=nats_url)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        bus = await stack.enter_async_context(connect(nats_url, service="crew"))
        yield Parts(database, bus, tasks, **more)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await holds():  # noqa: ASYNC110 - it is seen by asking
            await asyncio.sleep(0.03)


__all__ = ["MACHINES", "Lines", "Parts", "done", "emit", "new_record", "parts", "until"]
