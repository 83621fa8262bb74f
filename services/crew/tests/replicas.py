"""Replicas of the service in this process, on a real Postgres and NATS, with an agent service in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from grpc import aio
from loremesh.crew.v1 import crew_pb2, crew_pb2_grpc, run_pb2_grpc
from loremesh.crew.v1 import run_pb2 as pb
from loremesh_crew.adapters.memory_tasks import MemoryTasks
from loremesh_crew.domain.definitions import Crew, CrewAgent, Flow, ToolUse
from loremesh_crew.domain.machine import TaskOutcome, TaskRequest, TaskStatus, Usage
from loremesh_crew.settings import CrewSettings
from loremesh_crew.wiring import Outside, assemble
from loremesh_kit import identity
from loremesh_kit.events import Bus, connect
from loremesh_kit.ids import new_id
from loremesh_kit.loops import background
from loremesh_kit.postgres import Database, open_database
from loremesh_kit.server import Role, Wired
from loremesh_kit.testing import DatabaseUrls, serving

SECONDS = 30
CREW = {
    "id": "press",
    "name": "Press",
    "agents": [
        {"name": "researcher", "role": "Researcher", "goal": "Find facts about {topic}"},
        {"name": "writer", "role": "Writer", "goal": "Write well"},
    ],
    "tasks": [
        {"name": "research", "description": "Find three facts about {topic}.", "agent": "researcher"},
        {"name": "write", "description": "Write about {topic}.", "agent": "writer", "output_file": "text.md"},
    ],
}


@dataclass
class KnownAgents:
    """See ports.AgentRegistry: everything is right, and the agents there are have one revision."""

    known: set[str] = field(default_factory=lambda: {"known"})

    async def faults(
        self, agent: CrewAgent, *, tools: tuple[ToolUse, ...] = (), output_schema: Any = None
    ) -> list[Any]:
        del agent, tools, output_schema
        return []

    async def revision(self, agent_id: str, *, revision: int = 0) -> int | None:
        return 3 if agent_id in self.known and revision in (0, 3) else None


@dataclass
class Replica:
    """One process of the service."""

    wired: Wired
    database: Database
    channel: aio.Channel
    tasks: MemoryTasks
    agent_bus: Bus

    def __post_init__(self) -> None:
        self.crews = crew_pb2_grpc.CrewServiceStub(self.channel)
        self.runs = run_pb2_grpc.RunServiceStub(self.channel)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Its workers, which die at the end of the block without a word."""
        async with background() as group:
            dying = [group.create_task(worker.run(asyncio.Event())) for worker in self.wired.workers]
            yield
            for each in dying:
                each.cancel()

    async def create(self, **fields: Any) -> crew_pb2.Crew:
        return await self.crews.CreateCrew(crew_pb2.CreateCrewRequest(crew=crew_pb2.Crew(**{**CREW, **fields})))

    async def kickoff(self, crew_id: str = "press", *, key: str = "", **inputs: Any) -> pb.Run:
        request = crew_pb2.KickoffCrewRequest(crew_id=crew_id)
        request.inputs.update(inputs or {"topic": "tea"})
        return await self.crews.KickoffCrew(request, metadata=[("idempotency-key", key)] if key else None)

    async def run(self, run_id: str) -> pb.Run:
        return await self.runs.GetRun(pb.GetRunRequest(run_id=run_id))

    async def watch(self, run_id: str, *, after_seq: int = 0, **more: Any) -> list[pb.RunEvent]:
        request = pb.WatchRunRequest(run_id=run_id, after_seq=after_seq)
        return [event async for event in self.runs.WatchRun(request, timeout=SECONDS, **more) if event.seq]

    async def events(self, run_id: str) -> list[str]:
        found = await self.runs.ListRunEvents(pb.ListRunEventsRequest(run_id=run_id, page_size=1000))
        return kinds(found.events)

    async def begun(self, name: str) -> str:
        """The id of the task of this name, once the agent service has it."""
        while True:
            for task_id, request in self.tasks.requests.items():
                if request.name == name and self.tasks.standings[task_id].outcome is None:
                    return task_id
            await asyncio.sleep(0.02)

    async def finish(self, name: str, output: str = "", **fields: Any) -> str:
        """Finish a task, as soon as it is begun, and say so."""
        async with asyncio.timeout(SECONDS):
            task_id = await self.begun(name)
        self.tasks.finish(task_id, outcome(output or f"about {name}", **fields))
        await self.say("TaskFinished", task_id)
        return task_id

    async def say(self, fact: str, task_id: str) -> None:
        await self.agent_bus.publish(
            f"loremesh.agent.events.{fact}",
            json.dumps({"task_id": task_id}).encode(),
            message_id=new_id(),
            headers={identity.TENANT_HEADER: identity.current().tenant, identity.PRINCIPAL_HEADER: "ada"},
        )


def outcome(output: str, **fields: Any) -> TaskOutcome:
    given = {"status": TaskStatus.COMPLETED, "usage": Usage(input_tokens=30, output_tokens=20, steps=1)}
    return TaskOutcome(output=output, **{**given, **fields})


def at_once(task_id: str, request: TaskRequest) -> TaskOutcome:
    """What a quick agent says."""
    del task_id
    return outcome(f"about {request.name}")


def kinds(events: Any) -> list[str]:
    return [str(event.WhichOneof("payload")) for event in events]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await holds():  # noqa: ASYNC110 - it is seen by asking
            await asyncio.sleep(0.03)


@dataclass
class Mesh:
    """Makes replicas over one database, and one agent service."""

    urls: DatabaseUrls
    nats_url: str
    tasks: MemoryTasks = field(default_factory=MemoryTasks)
    agents: KnownAgents = field(default_factory=KnownAgents)
    # Those built in.
    crews: Mapping[str, Crew] = field(default_factory=dict)
    flows: Mapping[str, Flow] = field(default_factory=dict)

    @asynccontextmanager
    async def replica(self, *, role: Role = "all", **settings: Any) -> AsyncIterator[Replica]:
        configured = CrewSettings(
            database_url=self.urls.plain,
            nats_url=self.nats_url,
            agent_target="127.0.0.1:1",
            drain_seconds=0,
            grace_seconds=1,
            job_lease_seconds=1.5,
            **settings,
        )
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(open_database(configured))
            bus = await stack.enter_async_context(connect(self.nats_url, service="crew"))
            agent_bus = await stack.enter_async_context(connect(self.nats_url, service="agent"))
            async with asyncio.timeout(SECONDS):
                while not agent_bus.is_connected:  # noqa: ASYNC110 - it is seen by asking
                    await asyncio.sleep(0.01)
            await agent_bus.ensure_service_stream()
            outside = Outside(
                database=database, bus=bus, agents=self.agents, tasks=self.tasks, crews=self.crews, flows=self.flows
            )
            wired = assemble(outside, settings=configured)
            channel = await stack.enter_async_context(serving(wired, service="crew", settings=configured, role=role))
            yield Replica(wired, database, channel, self.tasks, agent_bus)
