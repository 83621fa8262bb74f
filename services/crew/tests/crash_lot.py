"""One tenant's runs of a crew or a flow after another, whoever carries them out, and the verdict on them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from google.protobuf.struct_pb2 import Value
from loremesh.crew.v1 import crew_pb2, flow_pb2
from loremesh.crew.v1 import run_pb2 as pb
from loremesh_crew.adapters.memory_tasks import MemoryTasks
from loremesh_crew.adapters.postgres_run_views import PostgresRunViews
from loremesh_crew.adapters.postgres_runs import PostgresRuns
from loremesh_crew.domain import definitions as d
from loremesh_crew.domain.machine import RunStatus, StartTask, TaskEnded, TaskOutcome, TaskRequest, TaskStatus
from loremesh_crew.engine.hearing import run_of
from loremesh_crew.engine.replaying import Replaying
from loremesh_crew.engine.running import Running
from loremesh_crew.ports import AskedDelegation, RunRecord, TaskStanding
from loremesh_crew.wiring import MACHINES
from loremesh_kit import identity
from loremesh_kit.clock import SystemClock
from loremesh_kit.events import Bus, connect
from loremesh_kit.ids import new_id
from loremesh_kit.postgres import Database, open_database
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import caller

from .mortal import WHOLE, Aim, Mortal, Twin
from .replicas import Mesh, outcome

SECONDS = 30
_POLL_SECONDS = 0.02
_SILENCE_SECONDS = 0.3

CREW = d.Crew(
    id="team",
    process=d.Process.PARALLEL,
    agents=(d.CrewAgent(name="ann", role="Ann", allow_delegation=True), d.CrewAgent(name="ben", role="Ben")),
    tasks=(
        d.CrewTask(name="draft", description="Draft it.", agent="ben", retry=d.RetryPolicy(initial_pause=0.02)),
        d.CrewTask(name="lead", description="Lead.", agent="ann"),
    ),
)
WIDE = d.Crew(
    id="wide",
    process=d.Process.PARALLEL,
    agents=(d.CrewAgent(name="ben", role="Ben"),),
    tasks=tuple(d.CrewTask(name=f"part-{n}", description="Do it.", agent="ben") for n in range(8)),
)
SMALL = d.Crew(
    id="small",
    agents=(d.CrewAgent(name="ben", role="Ben"),),
    tasks=(d.CrewTask(name="text", description="Write.", agent="ben"),),
)
FLOW = d.Flow(
    id="release",
    states=(
        d.FlowState(id="write", initial=True, crew=d.CrewWork(crew_id="small")),
        d.FlowState(id="review", wait=d.WaitWork(signal="approved")),
        d.FlowState(id="pause", wait=d.WaitWork(seconds=0.02)),
        d.FlowState(id="done", final=True),
    ),
    transitions=tuple(
        d.Transition(from_state=one, to_state=other)
        for one, other in (("write", "review"), ("review", "pause"), ("pause", "done"))
    ),
)

# As if leases, messages and silences were over by which a dead process is known.
_PASS_TIME = (
    "UPDATE jobs SET lease_until = now() - interval '1 s' WHERE state = 'RUNNING'",
    "UPDATE jobs SET announced_at = announced_at - interval '1 h' WHERE state = 'QUEUED' AND announced_at IS NOT NULL",
    "UPDATE outbox SET held_until = now() WHERE held_until IS NOT NULL",
    "UPDATE run_tasks SET asked_time = asked_time - interval '1 h'",
)
_ROOTS = "SELECT id FROM runs WHERE parent_run_id = ''"
_OWED = "SELECT id FROM jobs WHERE state IN ('QUEUED', 'RUNNING')"


class Wrong(StrEnum):
    """What may be found."""

    STUCK = "a run is not completed, or something of it is still owed"
    TWICE = "something ended or began twice"
    DOUBLED = "the agent service has other tasks than were decided on"
    GAP = "events or decisions are not numbered one after the other"
    UNTRUE = "decided again from its history, a run is another"


class Agents(MemoryTasks):
    """An agent service: a draft fails once, who leads hands on two pieces of work, the second is never done."""

    async def create(self, task_id: str, request: TaskRequest, *, root_run_id: str, wait: float = 0.0) -> TaskStanding:
        known = task_id in self.standings
        standing = await super().create(task_id, request, root_run_id=root_run_id, wait=wait)
        if request.name == "lead" and not known:
            asked = (AskedDelegation(id=n, coworker="ben", description=f"Find {n}.") for n in ("one", "two"))
            self.wait(task_id, delegations=tuple(asked))
        return standing if known else self.standings[task_id]


def says(tasks: Agents, task_id: str, request: TaskRequest) -> TaskOutcome | None:
    """What comes of a task at once."""
    match request.name:
        case "draft":
            run_id = run_of(task_id)
            first = not any(run_of(id_) == run_id and each.name == "draft" for id_, each in tasks.requests.items())
            failed = TaskOutcome(status=TaskStatus.FAILED, reason="PROVIDER_UNAVAILABLE", retryable=True)
            return failed if first else outcome("A draft.")
        case "lead/ben-1":
            return outcome("Found.")
        case _:
            return None


@dataclass
class Lot:
    """Runs of a tenant, one process at a time, and an immortal look at what is kept."""

    mesh: Mesh
    database: Database
    agent_bus: Bus
    twin: Twin = WHOLE
    # Whether the agent service says that tasks are finished.
    facts: bool = True
    signalled: set[str] = field(default_factory=set)
    process: Mortal = field(init=False)

    @property
    def tasks(self) -> Any:
        return self.mesh.tasks

    async def start(self) -> Mortal:
        silence = 60.0 if self.facts else _SILENCE_SECONDS
        self.process = await Mortal(self.mesh, self.twin, silence=silence).start()
        return self.process

    async def play(self, of: d.Crew | d.Flow, aim: Aim | None = None, *, seconds: float = SECONDS) -> set[Wrong]:
        """A run of a new tenant, its process taken over from when it dies; the verdict at its end."""
        with caller(tenant=f"tenant-{new_id()}"):
            self.process.life.aim(aim)
            try:
                async with asyncio.timeout(seconds):
                    while not await self.is_over():
                        await self.step(of)
                        await asyncio.sleep(_POLL_SECONDS)
            except TimeoutError:
                pass
            if self.process.life.died.is_set():
                await self.succeed()
            return await self.verdict()

    async def succeed(self) -> None:
        """Have another process come after a dead one."""
        await self.process.end()
        for statement in _PASS_TIME:
            await self.database.fetch_across_tenants(statement)
        await self.start()

    async def is_over(self) -> bool:
        (run_id,) = await self.roots() or [""]
        if not run_id or (await self.views.get(run_id)).finish_time is None:
            return False
        return not await self.database.fetch(_OWED)

    async def step(self, of: d.Crew | d.Flow) -> None:
        """What clients and agents do next."""
        if self.process.life.died.is_set():
            await self.succeed()
        if not (roots := await self.roots()):
            await self.kickoff(of)
            return
        await self.finish_tasks()
        run = await self.views.get(roots[0])
        view = MACHINES[run.pinned.kind, 1].view(run.pinned, run.state)
        if view.current_state == "review" and run.id not in self.signalled:
            request = pb.SignalRunRequest(
                run_id=run.id, signal="approved", signal_id="s", payload=Value(bool_value=True)
            )
            if await self.process.ask(self.servicer(2).SignalRun(request, None)):
                self.signalled.add(run.id)

    async def kickoff(self, of: d.Crew | d.Flow) -> None:
        if isinstance(of, d.Crew):
            call = self.servicer(0).KickoffCrew(crew_pb2.KickoffCrewRequest(crew_id=of.id), None)
        else:
            call = self.servicer(1).KickoffFlow(flow_pb2.KickoffFlowRequest(flow_id=of.id), None)
        await self.process.ask(call)

    async def finish_tasks(self) -> None:
        begun = await self.begun()
        names = {self.tasks.requests[task_id].name for task_id in begun}
        for task_id in begun:
            name, answered = self.tasks.requests[task_id].name, (task_id, "one") in self.tasks.answers
            is_ready = name == "text" or (name == "lead" and answered and "lead/ben-2" in names)
            if is_ready and self.tasks.standings[task_id].outcome is None:
                self.tasks.finish(task_id, outcome(f"The {name}."))
                if self.facts:
                    await self.say(task_id)

    async def begun(self) -> list[str]:
        """Tasks that the agent service is known to have."""
        rows = await self.database.fetch("SELECT id FROM run_tasks WHERE begun AND NOT cancelled ORDER BY id")
        return [row["id"] for row in rows if row["id"] in self.tasks.requests]

    async def say(self, task_id: str) -> None:
        headers = {identity.TENANT_HEADER: identity.current().tenant, identity.PRINCIPAL_HEADER: "ada"}
        data = f'{{"task_id": "{task_id}"}}'.encode()
        await self.agent_bus.publish("loremesh.agent.events.TaskFinished", data, message_id=new_id(), headers=headers)

    async def roots(self) -> list[str]:
        return [row["id"] for row in await self.database.fetch(_ROOTS)]

    def servicer(self, nth: int) -> Any:
        return self.process.wired.servicers[nth].servicer

    @property
    def views(self) -> PostgresRunViews:
        return PostgresRunViews(database=self.database, machines=MACHINES)

    async def verdict(self) -> set[Wrong]:
        """What is wrong with the tenant's run and those below it."""
        roots = await self.roots()
        found = {Wrong.TWICE} if len(roots) > 1 else set()
        if not roots or await self.database.fetch(_OWED) or await self.database.fetch("SELECT id FROM run_tasks"):
            found.add(Wrong.STUCK)
        begun: list[str] = []
        for root in roots:
            for run in await self.views.tree(root, limit=99):
                begun += await self._judge(run, found)
            if sorted(begun) != sorted(id_ for id_, of in self.tasks.roots.items() if of == root):
                found.add(Wrong.DOUBLED)
        return found

    async def _judge(self, run: RunRecord, found: set[Wrong]) -> list[str]:
        """Add to what is found; the tasks that were decided on."""
        if run.status is not RunStatus.COMPLETED:
            found.add(Wrong.STUCK)
        history = await self.views.history(run.id, after=0, limit=999)
        events = await self.views.events(run.id, after_seq=0, limit=999)
        if [each.seq for each in events] != list(range(1, run.last_seq + 1)):
            found.add(Wrong.GAP)
        if [each.number for each in history] != list(range(1, run.decisions + 1)):
            found.add(Wrong.GAP)
        told = Counter((each.kind, tuple(each.path), each.attempt, str(each.payload)) for each in events)
        finished = Counter(each.path[0] for each in events if each.kind == "task_finished")
        ended = Counter(each.event.task_id for each in history if isinstance(each.event, TaskEnded))
        if any(count > 1 for counter in (told, finished, ended) for count in counter.values()):
            found.add(Wrong.TWICE)
        machine = MACHINES[run.pinned.kind, run.engine_version]
        running = Running(
            database=self.database,
            store=PostgresRuns(database=self.database, machines=MACHINES),
            machines=MACHINES,
            clock=SystemClock(),
        )
        replaying = Replaying(database=self.database, views=self.views, running=running, limit=1)
        _, differences = await replaying.replay(run.id)
        state, begun = machine.begin(run.pinned), []
        for each in history:
            state, commands = machine.decide(run.pinned, state, each.event)
            begun += [command.task_id for command in commands if isinstance(command, StartTask)]
        if differences or state != run.state:
            found.add(Wrong.UNTRUE)
        return begun


@asynccontextmanager
async def lot(mesh: Mesh, twin: Twin = WHOLE, *, facts: bool = True) -> AsyncIterator[Lot]:
    """A lot with a process on it; whatever process it has at the end is ended."""
    mesh.tasks = agents = Agents()
    agents.script = lambda task_id, request: says(agents, task_id, request)
    mesh.crews, mesh.flows = {each.id: each for each in (CREW, WIDE, SMALL)}, {FLOW.id: FLOW}
    settings = ServiceSettings(database_url=mesh.urls.plain, nats_url=mesh.nats_url)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        bus = await stack.enter_async_context(connect(mesh.nats_url, service="agent"))
        async with asyncio.timeout(SECONDS):
            while not bus.is_connected:  # noqa: ASYNC110 - it is seen by asking
                await asyncio.sleep(0.01)
        await bus.ensure_service_stream()
        made = Lot(mesh, database, bus, twin, facts)
        await made.start()
        try:
            yield made
        finally:
            await made.process.end()
