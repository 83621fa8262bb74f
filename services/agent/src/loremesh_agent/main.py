"""Builds the agent service and runs it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files

from loremesh.agent.v1 import chat_pb2, conversation_pb2
from loremesh.agent.v1.chat_pb2_grpc import add_ChatServiceServicer_to_server
from loremesh.agent.v1.conversation_pb2_grpc import add_ConversationServiceServicer_to_server
from loremesh_kit.channel import open_channel
from loremesh_kit.clock import SystemClock
from loremesh_kit.postgres import open_database
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.server import main as serve

from loremesh_agent.adapters.configured import ConfiguredAgents
from loremesh_agent.adapters.postgres_conversations import PostgresConversations
from loremesh_agent.adapters.postgres_turns import PostgresTurns
from loremesh_agent.adapters.retrieval import RetrievalClient
from loremesh_agent.engine.asking import PatientProvider
from loremesh_agent.engine.chat import ChatEngine
from loremesh_agent.engine.conversations import ConversationEngine
from loremesh_agent.servicer import ChatServicer, ConversationServicer
from loremesh_agent.settings import AgentSettings

_CONVERSATIONS = conversation_pb2.DESCRIPTOR.services_by_name["ConversationService"].full_name
_IDEMPOTENT = frozenset(
    f"/{_CONVERSATIONS}/{rpc}"
    for rpc in ("CreateConversation", "UpdateConversation", "DeleteConversation", "SetMessageFeedback")
)


@asynccontextmanager
async def wire(settings: AgentSettings) -> AsyncIterator[Wired]:
    """Everything the service is made of."""
    from loremesh_agent.adapters.openai import OpenAIProvider

    provider = OpenAIProvider.open(
        name=settings.chosen_provider,
        base_url=settings.base_url(),
        api_key=settings.api_key(),
        connect_seconds=settings.connect_seconds,
    )
    retrieval = open_channel(settings.retrieval_target)
    async with retrieval as channel, open_database(settings) as database, provider as model:
        agents = ConfiguredAgents(default=settings.default_agent())
        index = RetrievalClient(channel=channel)
        chat = ChatEngine(
            agents=agents,
            index=index,
            provider=PatientProvider(provider=model, patience=settings.patience()),
            turns=PostgresTurns(database=database, lease=settings.lease_seconds),
            clock=SystemClock(),
            floors=settings.floors(),
            pace=settings.pace(),
        )
        conversations = ConversationEngine(store=PostgresConversations(database=database), agents=agents)
        probes = {"postgres": database.probe, "retrieval": index.ping}
        if settings.chosen_provider == "local":
            # Others are not ours to poll.
            probes["model"] = model.ping
        yield Wired(
            servicers=[
                Servicer(
                    add=add_ChatServiceServicer_to_server,
                    servicer=ChatServicer(engine=chat),
                    name=chat_pb2.DESCRIPTOR.services_by_name["ChatService"].full_name,
                ),
                Servicer(
                    add=add_ConversationServiceServicer_to_server,
                    servicer=ConversationServicer(engine=conversations),
                    name=_CONVERSATIONS,
                ),
            ],
            probes=probes,
            idempotent=_IDEMPOTENT,
            database=database,
        )


def main() -> None:
    """`loremesh-agent`."""
    serve(service="agent", settings=AgentSettings, wire=wire, migrations=files("loremesh_agent") / "migrations")
