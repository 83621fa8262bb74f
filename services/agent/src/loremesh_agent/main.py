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
from loremesh_agent.adapters.prices import load
from loremesh_agent.adapters.prompt_file import PromptFile
from loremesh_agent.adapters.providers import Providers
from loremesh_agent.adapters.retrieval import RetrievalClient
from loremesh_agent.engine.lanes import Lanes
from loremesh_agent.ports import PromptLibrary
from loremesh_agent.settings import AgentSettings
from loremesh_agent.tool_wiring import built_in_tools
from loremesh_agent.wiring import SERVICE, Outside, assemble, memories


@asynccontextmanager
async def wire(settings: AgentSettings) -> AsyncIterator[Wired]:
    """The service, with connections to all that it needs."""
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings))
        bus = await stack.enter_async_context(events.connect(settings.nats_url, service=SERVICE))
        index = RetrievalClient(channel=await stack.enter_async_context(open_channel(settings.retrieval_target)))
        ingestion = await stack.enter_async_context(open_channel(settings.ingestion_target))
        providers = await stack.enter_async_context(
            Providers.open(
                settings.endpoints(),
                connect_seconds=settings.connect_seconds,
                default=settings.default_profile(),
                profiles=settings.profiles(),
                prices=load(settings.prices_file),
            )
        )
        documents = IngestionClient(channel=ingestion)
        embedder = None
        if settings.embedding_target:
            # Not among the probes: without it memories are found by their words.
            embedder = EmbeddingClient(channel=await stack.enter_async_context(open_channel(settings.embedding_target)))
        toolbox = await stack.enter_async_context(
            built_in_tools(settings, index=index, texts=documents, recollection=memories(database, embedder, settings))
        )
        probes = {
            "postgres": database.probe,
            "nats": bus.probe,
            "retrieval": index.ping,
            "ingestion": documents.ping,
        }
        if settings.chosen_provider == "local":
            # Others are not ours to poll.
            probes["model"] = providers.ping
        outside = Outside(
            database=database,
            bus=bus,
            index=index,
            documents=documents,
            model=providers,
            models=providers,
            lanes=Lanes(settings.traffic()),
            vector_stores=documents,
            prompts=await stack.enter_async_context(_prompts(settings)),
            toolbox=toolbox,
            embedder=embedder,
            probes=probes,
        )
        yield assemble(outside, settings=settings)


@asynccontextmanager
async def _prompts(settings: AgentSettings) -> AsyncIterator[PromptLibrary]:
    """The file's, and before them those of Langfuse where that is configured."""
    kept = PromptFile.load(settings.prompts_file)
    if not settings.langfuse_public_key:
        yield kept
        return
    from loremesh_agent.adapters.langfuse import LangfusePrompts

    async with LangfusePrompts.open(
        base_url=settings.langfuse_base_url,
        public_key=settings.langfuse_public_key,
        secret_key=settings.langfuse_secret_key.get_secret_value(),
        otherwise=kept,
    ) as library:
        yield library


def main() -> None:
    """`loremesh-agent`."""
    serve(service=SERVICE, settings=AgentSettings, wire=wire, migrations=files("loremesh_agent") / "migrations")
