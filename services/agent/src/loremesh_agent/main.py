"""Connects the agent service to what it needs, and runs it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files

from loremesh_kit import events
from loremesh_kit.channel import open_channel
from loremesh_kit.postgres import open_database
from loremesh_kit.server import Wired
from loremesh_kit.server import main as serve

from loremesh_agent.adapters.embedding import EmbeddingClient
from loremesh_agent.adapters.ingestion import IngestionClient
from loremesh_agent.adapters.retrieval import RetrievalClient
from loremesh_agent.settings import AgentSettings
from loremesh_agent.wiring import SERVICE, Outside, assemble


@asynccontextmanager
async def wire(settings: AgentSettings) -> AsyncIterator[Wired]:
    """The service, with connections to all that it needs."""
    from loremesh_agent.adapters.openai import OpenAIProvider

    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        bus = await stack.enter_async_context(events.connect(settings.nats_url, service=SERVICE))
        index = RetrievalClient(channel=await stack.enter_async_context(open_channel(settings.retrieval_target)))
        ingestion = await stack.enter_async_context(open_channel(settings.ingestion_target))
        model = await stack.enter_async_context(
            OpenAIProvider.open(
                name=settings.chosen_provider,
                base_url=settings.base_url(),
                api_key=settings.api_key(),
                connect_seconds=settings.connect_seconds,
            )
        )
        documents = IngestionClient(channel=ingestion)
        embedder = None
        if settings.embedding_target:
            # Not among the probes: without it memories are found by their words.
            embedder = EmbeddingClient(channel=await stack.enter_async_context(open_channel(settings.embedding_target)))
        probes = {
            "postgres": database.probe,
            "nats": bus.probe,
            "retrieval": index.ping,
            "ingestion": documents.ping,
        }
        if settings.chosen_provider == "local":
            # Others are not ours to poll.
            probes["model"] = model.ping
        outside = Outside(
            database=database,
            bus=bus,
            index=index,
            documents=documents,
            model=model,
            embedder=embedder,
            probes=probes,
        )
        yield assemble(outside, settings=settings)


def main() -> None:
    """`loremesh-agent`."""
    serve(service=SERVICE, settings=AgentSettings, wire=wire, migrations=files("loremesh_agent") / "migrations")
