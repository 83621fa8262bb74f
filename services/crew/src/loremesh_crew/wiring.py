"""Puts the use cases together over what is outside."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from loremesh.crew.v1 import run_pb2
from loremesh.crew.v1.crew_pb2_grpc import add_CrewServiceServicer_to_server
from loremesh.crew.v1.flow_pb2_grpc import add_FlowServiceServicer_to_server
from loremesh.crew.v1.run_pb2_grpc import add_RunServiceServicer_to_server
from loremesh_kit.clock import Clock, SystemClock
from loremesh_kit.events import Bus
from loremesh_kit.outbox import OUTBOX, Relay
from loremesh_kit.postgres import Database
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.worker import JobWorker

from loremesh_crew import run_protos
from loremesh_crew.adapters.postgres_definitions import PostgresDefinitions
from loremesh_crew.adapters.postgres_run_copies import PostgresRunCopies
from loremesh_crew.adapters.postgres_run_views import PostgresRunViews
from loremesh_crew.adapters.postgres_runs import PostgresRuns
from loremesh_crew.consumers import TaskFacts
from loremesh_crew.crew_servicer import CrewServicer
from loremesh_crew.domain.crew_machine import CrewMachine
from loremesh_crew.domain.definitions import Crew, Flow
from loremesh_crew.domain.flow_machine import FlowMachine
from loremesh_crew.domain.machine import RunKind
from loremesh_crew.engine.crews import CrewEngine
from loremesh_crew.engine.errands import Errands
from loremesh_crew.engine.flow_vetting import FlowVetting
from loremesh_crew.engine.flows import FlowEngine
from loremesh_crew.engine.forking import Forking
from loremesh_crew.engine.hearing import Hearing, Inquiry
from loremesh_crew.engine.kickoff import Kickoff
from loremesh_crew.engine.library import DefinitionLibrary
from loremesh_crew.engine.replaying import Replaying
from loremesh_crew.engine.running import Running
from loremesh_crew.engine.runs import Purge, Runs
from loremesh_crew.engine.vetting import Vetting
from loremesh_crew.flow_servicer import FlowServicer
from loremesh_crew.ports import AgentRegistry, AgentTasks, Machines
from loremesh_crew.run_servicer import RunServicer
from loremesh_crew.settings import CrewSettings

SERVICE = "crew"
# A change of what one of them decides is a new version beside it, for as long as runs of the old one are kept.
MACHINES: Machines = {(RunKind.CREW, 1): CrewMachine(), (RunKind.FLOW, 1): FlowMachine()}

_CREWS = "loremesh.crew.v1.CrewService"
_FLOWS = "loremesh.crew.v1.FlowService"
_RUNS = "loremesh.crew.v1.RunService"
_IDEMPOTENT = frozenset(
    f"/{service}/{rpc}"
    for service, rpcs in (
        (
            _CREWS,
            (
                "CreateCrew",
                "UpdateCrew",
                "DeleteCrew",
                "RollbackCrew",
                "ImportCrew",
                "KickoffCrew",
                "KickoffCrewForEach",
            ),
        ),
        (_FLOWS, ("CreateFlow", "UpdateFlow", "DeleteFlow", "RollbackFlow", "KickoffFlow")),
        (_RUNS, ("ForkRun",)),
    )
    for rpc in rpcs
)


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What the service is connected to."""

    database: Database
    bus: Bus
    agents: AgentRegistry
    tasks: AgentTasks
    # Those that come with the service, by their ids.
    crews: Mapping[str, Crew] = field(default_factory=dict)
    flows: Mapping[str, Flow] = field(default_factory=dict)
    machines: Machines = field(default_factory=lambda: MACHINES)
    clock: Clock = field(default_factory=SystemClock)
    probes: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)


def assemble(outside: Outside, *, settings: CrewSettings) -> Wired:
    """Servicers, workers and relay."""
    parts = _Parts(outside, settings=settings)
    return Wired(
        servicers=parts.servicers(),
        workers=[
            parts.worker(),
            TaskFacts(bus=outside.bus, hearing=parts.hearing),
            Inquiry(store=parts.store, hearing=parts.hearing, seconds=settings.silence_seconds),
            Purge(views=parts.views),
        ],
        background=[Relay(database=outside.database, bus=outside.bus, service=SERVICE)],
        probes=outside.probes,
        long_lived=frozenset({f"/{_RUNS}/WatchRun"}),
        idempotent=_IDEMPOTENT,
        database=outside.database,
    )


class _Parts:
    """What several of them share is made once."""

    def __init__(self, outside: Outside, *, settings: CrewSettings) -> None:
        database, bus, machines = outside.database, outside.bus, outside.machines
        database.listen(lambda topic: _wake_watchers(bus, topic))
        self._outside = outside
        self._settings = settings
        self._crews = PostgresDefinitions(database=database, kind=RunKind.CREW, type_=Crew)
        self._flows = PostgresDefinitions(database=database, kind=RunKind.FLOW, type_=Flow)
        self._library = DefinitionLibrary(
            crews=self._crews, flows=self._flows, built_in_crews=outside.crews, built_in_flows=outside.flows
        )
        self.store = PostgresRuns(database=database, machines=machines)
        self.views = PostgresRunViews(database=database, machines=machines)
        self._running = Running(database=database, store=self.store, machines=machines, clock=outside.clock)
        self.hearing = Hearing(running=self._running, tasks=outside.tasks, clock=outside.clock)
        self._kickoff = Kickoff(
            database=database,
            library=self._library,
            agents=outside.agents,
            running=self._running,
            views=self.views,
            limit=settings.runs_at_once,
        )
        self._runs = Runs(
            database=database,
            bus=bus,
            views=self.views,
            running=self._running,
            heartbeat=settings.heartbeat_seconds,
        )

    def servicers(self) -> list[Servicer]:
        """One for each service."""
        vetting = Vetting(agents=self._outside.agents)
        crews = CrewEngine(
            store=self._crews,
            built_in=self._outside.crews,
            library=self._library,
            vetting=vetting,
            kickoffs=self._kickoff,
        )
        flows = FlowEngine(
            store=self._flows,
            built_in=self._outside.flows,
            library=self._library,
            vetting=FlowVetting(library=self._library, vetting=vetting),
            kickoffs=self._kickoff,
        )
        forking = Forking(
            views=self.views,
            copies=PostgresRunCopies(),
            running=self._running,
            kickoff=self._kickoff,
            agents=self._outside.agents,
        )
        replaying = Replaying(views=self.views, running=self._running)
        return [
            Servicer(
                add=add_CrewServiceServicer_to_server,
                servicer=CrewServicer(engine=crews, show=self._show),
                name=_CREWS,
            ),
            Servicer(
                add=add_FlowServiceServicer_to_server,
                servicer=FlowServicer(engine=flows, show=self._show),
                name=_FLOWS,
            ),
            Servicer(
                add=add_RunServiceServicer_to_server,
                servicer=RunServicer(runs=self._runs, forking=forking, replaying=replaying),
                name=_RUNS,
            ),
        ]

    def worker(self) -> JobWorker:
        """Of what runs owe."""
        errands = Errands(
            database=self._outside.database,
            store=self.store,
            views=self.views,
            running=self._running,
            tasks=self._outside.tasks,
            make_child=self._kickoff.child,
            clock=self._outside.clock,
        )
        return JobWorker(
            database=self._outside.database,
            bus=self._outside.bus,
            service=SERVICE,
            handlers=errands.handlers(),
            on_dead=errands.give_up,
            concurrency=self._settings.job_concurrency,
            lease=self._settings.job_lease_seconds,
            grace=self._settings.grace_seconds,
        )

    async def _show(self, run_id: str) -> run_pb2.Run:
        return run_protos.run(*await self._runs.get(run_id))


def _wake_watchers(bus: Bus, topic: str) -> None:
    # Each process relays what it has written itself: of the outbox nobody else needs to hear.
    if topic != OUTBOX:
        bus.nudge(topic)
