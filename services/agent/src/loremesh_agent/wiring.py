"""Puts the use cases together over what is outside."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loremesh.agent.v1.agent_pb2_grpc import add_AgentServiceServicer_to_server
from loremesh.agent.v1.approval_pb2_grpc import add_ApprovalServiceServicer_to_server
from loremesh.agent.v1.chat_job_pb2_grpc import add_ChatJobServiceServicer_to_server
from loremesh.agent.v1.chat_pb2_grpc import add_ChatServiceServicer_to_server
from loremesh.agent.v1.conversation_pb2_grpc import add_ConversationServiceServicer_to_server
from loremesh.agent.v1.grounding_pb2_grpc import add_GroundingServiceServicer_to_server
from loremesh.agent.v1.memory_pb2_grpc import add_MemoryServiceServicer_to_server
from loremesh.agent.v1.tool_pb2_grpc import add_ToolServerServiceServicer_to_server
from loremesh_kit.clock import SystemClock
from loremesh_kit.events import Bus
from loremesh_kit.jobs import Handler
from loremesh_kit.outbox import OUTBOX, Relay
from loremesh_kit.postgres import Database, Row
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.worker import JobWorker
from psycopg import AsyncConnection

from loremesh_agent import protos
from loremesh_agent.adapters.grpc_tools import GrpcToolServers
from loremesh_agent.adapters.mcp_http import McpHttpServers
from loremesh_agent.adapters.mcp_stdio import McpPrograms
from loremesh_agent.adapters.memory import MemoryToolbox
from loremesh_agent.adapters.memory_index import PostgresRecallIndex
from loremesh_agent.adapters.postgres_agents import PostgresAgents
from loremesh_agent.adapters.postgres_approvals import PostgresApprovals
from loremesh_agent.adapters.postgres_chat_jobs import KIND, PostgresChatJobs
from loremesh_agent.adapters.postgres_chat_work import PostgresChatWork
from loremesh_agent.adapters.postgres_conversations import PostgresConversations
from loremesh_agent.adapters.postgres_memories import EMBED, PostgresMemories
from loremesh_agent.adapters.postgres_memory_receipts import FORGET, PostgresMemoryWork
from loremesh_agent.adapters.postgres_quotations import PostgresQuotations
from loremesh_agent.adapters.postgres_tool_servers import PostgresToolServers
from loremesh_agent.adapters.postgres_turns import PostgresTurns
from loremesh_agent.agent_servicer import AgentServicer
from loremesh_agent.approval_servicer import ApprovalServicer
from loremesh_agent.chat_job_servicer import ChatJobServicer
from loremesh_agent.consumers import DocumentDeletions
from loremesh_agent.domain.tool_servers import Kind
from loremesh_agent.engine.agents import AgentEngine
from loremesh_agent.engine.answering import Answering
from loremesh_agent.engine.approvals import AlarmClock, Approvals
from loremesh_agent.engine.asking import Patience, PatientProvider
from loremesh_agent.engine.chat import ChatEngine, Pace
from loremesh_agent.engine.chat_jobs import ChatJobs, Purge
from loremesh_agent.engine.conversations import ConversationEngine
from loremesh_agent.engine.directory import Directory
from loremesh_agent.engine.grounding import Grounding
from loremesh_agent.engine.lanes import Lanes
from loremesh_agent.engine.memories import Memories
from loremesh_agent.engine.memory_jobs import Embedding, Forgetting, MemoryPurge
from loremesh_agent.engine.operator_servers import OperatorServers
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.engine.tool_checks import ToolChecks
from loremesh_agent.engine.tool_servers import ServerTools, ToolServers
from loremesh_agent.engine.vetting import Vetting
from loremesh_agent.errors import ToolNotFound
from loremesh_agent.grounding_servicer import GroundingServicer
from loremesh_agent.memory_servicer import MemoryServicer
from loremesh_agent.ports import (
    DocumentRegistry,
    ModelCatalogue,
    ModelSource,
    PassageIndex,
    PromptLibrary,
    TextEmbedder,
    ToolServerClient,
    TurnStore,
    VectorStoreRegistry,
)
from loremesh_agent.servicer import ChatServicer, ConversationServicer
from loremesh_agent.settings import AgentSettings
from loremesh_agent.tool_server_servicer import ToolServerServicer

SERVICE = "agent"

_AGENTS = "loremesh.agent.v1.AgentService"
_CHAT = "loremesh.agent.v1.ChatService"
_CONVERSATIONS = "loremesh.agent.v1.ConversationService"
_CHAT_JOBS = "loremesh.agent.v1.ChatJobService"
_APPROVALS = "loremesh.agent.v1.ApprovalService"
_GROUNDING = "loremesh.agent.v1.GroundingService"
_MEMORIES = "loremesh.agent.v1.MemoryService"
_TOOL_SERVERS = "loremesh.agent.v1.ToolServerService"
# Those of Chat, CreateChatJob and CreateToolServer are kept with the turn, the job and the server.
_IDEMPOTENT = frozenset(
    f"/{service}/{rpc}"
    for service, rpcs in (
        (_AGENTS, ("CreateAgent", "UpdateAgent", "DeleteAgent", "RollbackAgent")),
        (_CONVERSATIONS, ("CreateConversation", "UpdateConversation", "DeleteConversation", "SetMessageFeedback")),
        (_APPROVALS, ("DecideApproval",)),
        (_MEMORIES, ("CreateMemory", "ForgetMemories")),
    )
    for rpc in rpcs
)


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What the service is connected to."""

    database: Database
    bus: Bus
    index: PassageIndex
    documents: DocumentRegistry
    vector_stores: VectorStoreRegistry
    model: ModelSource
    models: ModelCatalogue
    prompts: PromptLibrary
    # None: memories are found by their words alone.
    embedder: TextEmbedder | None = None
    lanes: Lanes = field(default_factory=Lanes)
    probes: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)


def assemble(outside: Outside, *, settings: AgentSettings) -> Wired:
    """Servicers, workers and relay."""
    outside.database.listen(lambda topic: _wake_watchers(outside.bus, topic))
    jobs = PostgresChatJobs(
        database=outside.database, waiting_limit=settings.chat_jobs_waiting, seconds=settings.chat_job_seconds
    )
    approvals = PostgresApprovals(database=outside.database, bus=outside.bus, resume=_resume)
    external = _external_tools(outside.database, settings)
    return Wired(
        servicers=[
            *_servicers(outside, jobs, settings),
            _approvals(approvals, settings),
            _grounding(outside),
            external.servicer,
        ],
        workers=[
            _worker(outside, settings),
            Purge(store=jobs),
            MemoryPurge(store=_memory_store(outside, settings)),
            DocumentDeletions(bus=outside.bus, quotations=PostgresQuotations(database=outside.database)),
            AlarmClock(alarms=approvals),
        ],
        background=[
            Relay(database=outside.database, bus=outside.bus, service=SERVICE),
            external.programs,
            external.checks,
        ],
        probes=outside.probes,
        long_lived=frozenset({f"/{_CHAT_JOBS}/WatchChatJob", f"/{_APPROVALS}/WatchApprovals"}),
        idempotent=_IDEMPOTENT,
        database=outside.database,
    )


def _wake_watchers(bus: Bus, topic: str) -> None:
    # Each process relays what it has written itself: of the outbox nobody else needs to hear.
    if topic != OUTBOX:
        bus.nudge(topic)


def _servicers(outside: Outside, jobs: PostgresChatJobs, settings: AgentSettings) -> list[Servicer]:
    database, quoting = outside.database, Quoting(documents=outside.documents)
    turns = PostgresTurns(database=database, lease=settings.lease_seconds)
    chat = _chat(outside, turns, settings, patience=settings.patience(), pace=settings.pace())
    conversations = ConversationEngine(
        store=PostgresConversations(database=database),
        agents=_directory(outside),
        quoting=quoting,
    )
    chat_jobs = ChatJobs(
        store=jobs,
        chat=chat,
        quoting=quoting,
        database=database,
        bus=outside.bus,
        heartbeat=settings.heartbeat_seconds,
    )
    return [
        Servicer(
            add=add_AgentServiceServicer_to_server,
            servicer=AgentServicer(engine=_agents(outside)),
            name=_AGENTS,
        ),
        Servicer(add=add_ChatServiceServicer_to_server, servicer=ChatServicer(engine=chat), name=_CHAT),
        Servicer(
            add=add_ConversationServiceServicer_to_server,
            servicer=ConversationServicer(engine=conversations),
            name=_CONVERSATIONS,
        ),
        Servicer(add=add_ChatJobServiceServicer_to_server, servicer=ChatJobServicer(engine=chat_jobs), name=_CHAT_JOBS),
        Servicer(
            add=add_MemoryServiceServicer_to_server,
            servicer=MemoryServicer(engine=memories(outside, settings)),
            name=_MEMORIES,
        ),
    ]


def _agents(outside: Outside) -> AgentEngine:
    toolbox = MemoryToolbox()
    return AgentEngine(
        store=PostgresAgents(database=outside.database),
        vetting=Vetting(
            directory=_directory(outside),
            models=outside.models,
            toolbox=toolbox,
            vector_stores=outside.vector_stores,
        ),
        toolbox=toolbox,
        providers=outside.models,
    )


def _directory(outside: Outside) -> Directory:
    return Directory(store=PostgresAgents(database=outside.database), models=outside.models, prompts=outside.prompts)


def _approvals(store: PostgresApprovals, settings: AgentSettings) -> Servicer:
    engine = Approvals(store=store, check=_check, heartbeat=settings.heartbeat_seconds)
    return Servicer(
        add=add_ApprovalServiceServicer_to_server, servicer=ApprovalServicer(engine=engine), name=_APPROVALS
    )


def _grounding(outside: Outside) -> Servicer:
    engine = Grounding(
        conversations=PostgresConversations(database=outside.database), quoting=Quoting(documents=outside.documents)
    )
    return Servicer(
        add=add_GroundingServiceServicer_to_server, servicer=GroundingServicer(engine=engine), name=_GROUNDING
    )


async def _resume(connection: AsyncConnection[Row], run_id: str) -> None:
    del connection, run_id


async def _check(tool: str, arguments: Mapping[str, Any]) -> None:
    del arguments
    raise ToolNotFound(tool)


def memories(outside: Outside, settings: AgentSettings) -> Memories:
    """What is remembered: for MemoryService, and as the Recollection of tools and loop."""
    return Memories(
        store=_memory_store(outside, settings),
        index=PostgresRecallIndex(database=outside.database),
        embedder=outside.embedder,
        clock=SystemClock(),
        floor=settings.far_similarity,
    )


def _memory_store(outside: Outside, settings: AgentSettings) -> PostgresMemories:
    return PostgresMemories(
        database=outside.database, limit=settings.memories_per_scope, embeds=outside.embedder is not None
    )


def _memory_handlers(outside: Outside) -> dict[str, Handler]:
    work = PostgresMemoryWork(database=outside.database)
    handlers: dict[str, Handler] = {FORGET: Forgetting(work=work)}
    if outside.embedder:
        index = PostgresRecallIndex(database=outside.database)
        handlers[EMBED] = Embedding(index=index, embedder=outside.embedder, work=work)
    return handlers


@dataclass(frozen=True, kw_only=True)
class _ExternalTools:
    """What brings the tools of others."""

    servicer: Servicer
    tools: ServerTools
    programs: McpPrograms
    checks: ToolChecks


def _external_tools(database: Database, settings: AgentSettings) -> _ExternalTools:
    hosts, programs = settings.allowed_tool_hosts(), McpPrograms()
    clients: Mapping[Kind, ToolServerClient] = {
        Kind.GRPC: GrpcToolServers(hosts=hosts),
        Kind.MCP_HTTP: McpHttpServers(hosts=hosts),
        Kind.MCP_STDIO: programs,
    }
    store = PostgresToolServers(database=database)
    operator = OperatorServers(named=settings.named_tool_servers(), store=store)
    servers = ToolServers(store=store, operator=operator, clients=clients)
    return _ExternalTools(
        servicer=Servicer(
            add=add_ToolServerServiceServicer_to_server,
            servicer=ToolServerServicer(engine=servers),
            name=_TOOL_SERVERS,
        ),
        tools=ServerTools(servers=servers, clients=clients),
        programs=programs,
        checks=ToolChecks(store=store, operator=operator, clients=clients),
    )


def _worker(outside: Outside, settings: AgentSettings) -> JobWorker:
    work = PostgresChatWork(database=outside.database)

    def engine(turns: TurnStore) -> ChatEngine:
        return _chat(outside, turns, settings, patience=settings.patience_of_jobs(), pace=settings.pace_of_jobs())

    answering = Answering(work=work, engine=engine, read=protos.read_question, group_seconds=settings.group_seconds)
    return JobWorker(
        database=outside.database,
        bus=outside.bus,
        service=SERVICE,
        handlers={KIND: answering, **_memory_handlers(outside)},
        on_dead=work.give_up,
        concurrency=settings.job_concurrency,
        lease=settings.job_lease_seconds,
        grace=settings.grace_seconds,
    )


def _chat(outside: Outside, turns: TurnStore, settings: AgentSettings, *, patience: Patience, pace: Pace) -> ChatEngine:
    return ChatEngine(
        agents=_directory(outside),
        index=outside.index,
        provider=PatientProvider(provider=outside.model, patience=patience, lanes=outside.lanes),
        turns=turns,
        quoting=Quoting(documents=outside.documents),
        clock=SystemClock(),
        floors=settings.floors(),
        pace=pace,
    )
