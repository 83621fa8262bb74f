"""Connects the crew service to what it needs, and runs it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files

from loremesh_kit import events
from loremesh_kit.channel import open_channel
from loremesh_kit.postgres import open_database
from loremesh_kit.server import Wired
from loremesh_kit.server import main as serve

from loremesh_crew.adapters.agent_tasks import AgentServiceTasks
from loremesh_crew.adapters.agents import GrpcAgents
from loremesh_crew.settings import CrewSettings
from loremesh_crew.wiring import SERVICE, Outside, assemble


@asynccontextmanager
async def wire(settings: CrewSettings) -> AsyncIterator[Wired]:
    """The service, with connections to all that it needs."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        bus = await stack.enter_async_context(events.connect(settings.nats_url, service=SERVICE))
        agent = await stack.enter_async_context(open_channel(settings.agent_target))
        tasks = AgentServiceTasks(channel=agent)
        outside = Outside(
            database=database,
            bus=bus,
            agents=GrpcAgents(channel=agent),
            tasks=tasks,
            probes={"postgres": database.probe, "nats": bus.probe, "agent": tasks.ping},
        )
        yield assemble(outside, settings=settings)


def main() -> None:
    """`loremesh-crew`."""
    serve(service=SERVICE, settings=CrewSettings, wire=wire, migrations=files("loremesh_crew") / "migrations")
