"""Puts the use cases together over what is outside."""

import json
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
from loremesh.agent.v1.task_pb2_grpc import add_TaskServiceServicer_to_server
from loremesh.agent.v1.tool_pb2_grpc import add_ToolServerServiceServicer_to_server
from loremesh_kit.clock import SystemClock
from loremesh_kit.events import Bus
from loremesh_kit.jobs import Handler
from loremesh_kit.outbox import OUTBOX, Relay
from loremesh_kit.postgres import Database
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.worker import JobWorker

from loremesh_agent import protos, task_protos
from loremesh_agent.adapters.memory_index import PostgresRecallIndex
from loremesh_agent.adapters.postgres_agents import PostgresAgents
from loremesh_agent.adapters.postgres_approvals import PostgresApprovals
from loremesh_agent.adapters.postgres_chat_jobs import KIND, PostgresChatJobs, resume
from loremesh_agent.adapters.postgres_chat_work import PostgresChatWork
from loremesh_agent.adapters.postgres_conversations import PostgresConversations
from loremesh_agent.adapters.postgres_delegations import PostgresDelegations
from loremesh_agent.adapters.postgres_memories import EMBED, PostgresMemories
from loremesh_agent.adapters.postgres_memory_receipts import FORGET, PostgresMemoryWork
from loremesh_agent.adapters.postgres_minutes import PostgresMinutes
from loremesh_agent.adapters.postgres_quotations import PostgresQuotations
from loremesh_agent.adapters.postgres_runs import Allowance, PostgresRuns
from loremesh_agent.adapters.postgres_tasks import PostgresTasks
from loremesh_agent.adapters.postgres_turns import PostgresTurns
from loremesh_agent.adapters.task_callers import WaitingCallers
from loremesh_agent.adapters.toolbox import Toolboxes
from loremesh_agent.agent_servicer import AgentServicer
from loremesh_agent.approval_servicer import ApprovalServicer
from loremesh_agent.chat_job_servicer import ChatJobServicer
from loremesh_agent.consumers import DocumentDeletions
from loremesh_agent.domain.tools import ToolCall
from loremesh_agent.engine.agents import AgentEngine
from loremesh_agent.engine.answering import Answering
from loremesh_agent.engine.approvals import AlarmClock, Approvals
from loremesh_agent.engine.asking import Patience, PatientProvider
from loremesh_agent.engine.chat import ChatEngine, Pace
from loremesh_agent.engine.chat_jobs import ChatJobs, Purge, Queue
from loremesh_agent.engine.conversations import ConversationEngine
from loremesh_agent.engine.directory import Directory
from loremesh_agent.engine.grounding import Grounding
from loremesh_agent.engine.lanes import Lanes
from loremesh_agent.engine.means import Means
from loremesh_agent.engine.memories import Memories
from loremesh_agent.engine.memory_jobs import Embedding, Forgetting, MemoryPurge
from loremesh_agent.engine.orders import Orders
from loremesh_agent.engine.preparing import Preparing
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.engine.running import Running
from loremesh_agent.engine.talking import Talking
from loremesh_agent.engine.tasks import Tasks
from loremesh_agent.engine.tools import ToolDesk
from loremesh_agent.engine.vetting import Vetting
from loremesh_agent.grounding_servicer import GroundingServicer
from loremesh_agent.memory_servicer import MemoryServicer
from loremesh_agent.ports import (
    AgentDirectory,
    DocumentRegistry,
    ModelCatalogue,
    ModelSource,
    PassageIndex,
    PromptLibrary,
    TextEmbedder,
    Toolbox,
    TurnStore,
    VectorStoreRegistry,
)
from loremesh_agent.servicer import ChatServicer, ConversationServicer
from loremesh_agent.settings import AgentSettings
from loremesh_agent.task_servicer import TaskServicer
from loremesh_agent.tool_server_servicer import ToolServerServicer
from loremesh_agent.tool_wiring import external_tools

SERVICE = "agent"

_AGENTS = "loremesh.agent.v1.AgentService"
_APPROVALS = "loremesh.agent.v1.ApprovalService"
_CHAT = "loremesh.agent.v1.ChatService"
_CHAT_JOBS = "loremesh.agent.v1.ChatJobService"
_CONVERSATIONS = "loremesh.agent.v1.ConversationService"
_GROUNDING = "loremesh.agent.v1.GroundingService"
_MEMORIES = "loremesh.agent.v1.MemoryService"
_TASKS = "loremesh.agent.v1.TaskService"
_TOOL_SERVERS = "loremesh.agent.v1.ToolServerService"
# Those of Chat, CreateChatJob and CreateToolServer are kept with the turn, the job and the server.
_IDEMPOTENT = frozenset(
    f"/{service}/{rpc}"
    for service, rpcs in (
        (_AGENTS, ("CreateAgent", "UpdateAgent", "DeleteAgent", "RollbackAgent")),
        (_APPROVALS, ("DecideApproval", "ReassignApproval")),
        (_CONVERSATIONS, ("CreateConversation", "UpdateConversation", "DeleteConversation", "SetMessageFeedback")),
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
    # The tools that are built in.
    toolbox: Toolbox
    # None: memories are found by their words alone.
    embedder: TextEmbedder | None = None
    lanes: Lanes = field(default_factory=Lanes)
    probes: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)


def assemble(outside: Outside, *, settings: AgentSettings, agents: AgentDirectory | None = None) -> Wired:
    """Servicers, workers and relay; `agents` in place of those that are kept."""
    parts = _Parts(outside, settings=settings, agents=agents)
    return Wired(
        servicers=parts.servicers(),
        workers=[
            parts.worker(),
            Purge(store=parts.jobs),
            Queue(store=parts.jobs),
            MemoryPurge(store=memory_store(outside.database, outside.embedder, settings)),
            DocumentDeletions(bus=outside.bus, quotations=PostgresQuotations(database=outside.database)),
            AlarmClock(alarms=parts.approvals),
        ],
        background=[
            Relay(database=outside.database, bus=outside.bus, service=SERVICE),
            parts.external.programs,
            parts.external.checks,
        ],
        probes=outside.probes,
        long_lived=frozenset({f"/{_CHAT_JOBS}/WatchChatJob", f"/{_APPROVALS}/WatchApprovals", f"/{_TASKS}/CreateTask"}),
        idempotent=_IDEMPOTENT,
        database=outside.database,
    )


def memories(database: Database, embedder: TextEmbedder | None, settings: AgentSettings) -> Memories:
    """What is remembered: for MemoryService, and as the Recollection of tools and loop."""
    return Memories(
        store=memory_store(database, embedder, settings),
        index=PostgresRecallIndex(database=database),
        embedder=embedder,
        clock=SystemClock(),
        floor=settings.far_similarity,
    )


def memory_store(database: Database, embedder: TextEmbedder | None, settings: AgentSettings) -> PostgresMemories:
    """Where it is kept."""
    return PostgresMemories(database=database, limit=settings.memories_per_scope, embeds=embedder is not None)


class _Parts:
    """What several of them share is made once."""

    def __init__(self, outside: Outside, *, settings: AgentSettings, agents: AgentDirectory | None) -> None:
        database, bus = outside.database, outside.bus
        database.listen(lambda topic: _wake_watchers(bus, topic))
        self._outside = outside
        self._settings = settings
        self._agents = PostgresAgents(database=database)
        self._kept = Directory(store=self._agents, models=outside.models, prompts=outside.prompts)
        self._directory = agents or self._kept
        self._orders = Orders(directory=self._kept)
        self._quoting = Quoting(documents=outside.documents)
        self._callers = WaitingCallers()
        self._conversations = PostgresConversations(database=database)
        self._memories = memories(database, outside.embedder, settings)
        self.jobs = PostgresChatJobs(
            database=database, waiting_limit=settings.chat_jobs_waiting, seconds=settings.chat_job_seconds
        )
        self.approvals = PostgresApprovals(database=database, bus=bus, resume=resume)
        self.external = external_tools(database, settings)
        self._toolbox = Toolboxes(outside.toolbox, self.external.tools)
        self._desk = ToolDesk(toolbox=self._toolbox)

    def servicers(self) -> list[Servicer]:
        """One for each service."""
        chat, jobs = self._talking()
        return [
            Servicer(
                add=add_AgentServiceServicer_to_server,
                servicer=AgentServicer(engine=self._agent_engine()),
                name=_AGENTS,
            ),
            Servicer(
                add=add_ApprovalServiceServicer_to_server,
                servicer=ApprovalServicer(
                    engine=Approvals(
                        store=self.approvals, check=self._check, heartbeat=self._settings.heartbeat_seconds
                    )
                ),
                name=_APPROVALS,
            ),
            Servicer(
                add=add_ChatServiceServicer_to_server,
                servicer=ChatServicer(engine=Talking(chat=chat, jobs=jobs)),
                name=_CHAT,
            ),
            Servicer(add=add_ChatJobServiceServicer_to_server, servicer=ChatJobServicer(engine=jobs), name=_CHAT_JOBS),
            Servicer(
                add=add_ConversationServiceServicer_to_server,
                servicer=ConversationServicer(
                    engine=ConversationEngine(store=self._conversations, agents=self._directory, quoting=self._quoting)
                ),
                name=_CONVERSATIONS,
            ),
            Servicer(
                add=add_GroundingServiceServicer_to_server,
                servicer=GroundingServicer(engine=Grounding(conversations=self._conversations, quoting=self._quoting)),
                name=_GROUNDING,
            ),
            Servicer(
                add=add_MemoryServiceServicer_to_server, servicer=MemoryServicer(engine=self._memories), name=_MEMORIES
            ),
            Servicer(add=add_TaskServiceServicer_to_server, servicer=TaskServicer(engine=self._tasks()), name=_TASKS),
            Servicer(
                add=add_ToolServerServiceServicer_to_server,
                servicer=ToolServerServicer(engine=self.external.servers),
                name=_TOOL_SERVERS,
            ),
        ]

    def worker(self) -> JobWorker:
        """Of chat jobs and what memories owe."""
        work, settings = PostgresChatWork(database=self._outside.database), self._settings

        def engine(turns: TurnStore) -> ChatEngine:
            return self._chat(turns, patience=settings.patience_of_jobs(), pace=settings.pace_of_jobs())

        answering = Answering(
            work=work,
            agents=self._directory,
            orders=self._orders,
            running=self._running(),
            engine=engine,
            read=protos.read_question,
            read_order=task_protos.read_order,
            group_seconds=settings.group_seconds,
        )
        return JobWorker(
            database=self._outside.database,
            bus=self._outside.bus,
            service=SERVICE,
            handlers={KIND: answering, **self._memory_handlers()},
            on_dead=work.give_up,
            concurrency=settings.job_concurrency,
            lease=settings.job_lease_seconds,
            grace=settings.grace_seconds,
        )

    def _talking(self) -> tuple[ChatEngine, ChatJobs]:
        settings = self._settings
        turns = PostgresTurns(database=self._outside.database, lease=settings.lease_seconds)
        chat = self._chat(turns, patience=settings.patience(), pace=settings.pace())
        jobs = ChatJobs(
            store=self.jobs,
            chat=chat,
            quoting=self._quoting,
            database=self._outside.database,
            bus=self._outside.bus,
            heartbeat=settings.heartbeat_seconds,
        )
        return chat, jobs

    def _agent_engine(self) -> AgentEngine:
        return AgentEngine(
            store=self._agents, vetting=self._vetting(), toolbox=self._toolbox, providers=self._outside.models
        )

    def _vetting(self) -> Vetting:
        outside = self._outside
        return Vetting(
            directory=self._kept, models=outside.models, toolbox=self._toolbox, vector_stores=outside.vector_stores
        )

    def _tasks(self) -> Tasks:
        settings = self._settings
        return Tasks(
            store=PostgresTasks(
                database=self._outside.database,
                waiting_limit=settings.chat_jobs_waiting,
                seconds=settings.chat_job_seconds,
            ),
            delegations=PostgresDelegations(database=self._outside.database, resume=resume),
            orders=self._orders,
            vetting=self._vetting(),
            toolbox=self._toolbox,
            tools=self._desk,
            quoting=self._quoting,
            callers=self._callers,
            clock=SystemClock(),
        )

    async def _check(self, tool: str, arguments: Mapping[str, Any]) -> None:
        spec = (await self._toolbox.find(tool)).spec
        self._desk.check(spec, ToolCall(id="", name=tool, arguments=json.dumps(dict(arguments))))

    def _memory_handlers(self) -> dict[str, Handler]:
        work = PostgresMemoryWork(database=self._outside.database)
        handlers: dict[str, Handler] = {FORGET: Forgetting(work=work)}
        if self._outside.embedder:
            index = PostgresRecallIndex(database=self._outside.database)
            handlers[EMBED] = Embedding(index=index, embedder=self._outside.embedder, work=work)
        return handlers

    def _running(self) -> Running:
        outside, settings = self._outside, self._settings
        allowance = Allowance(tokens=settings.tenant_monthly_tokens, cost_micros=settings.tenant_monthly_micros)
        preparing = Preparing(
            agents=self._directory,
            orders=self._orders,
            index=outside.index,
            tools=self._desk,
            recollection=self._memories,
            quoting=self._quoting,
            floors=settings.floors(),
            budget=settings.budget(),
        )
        means = Means(
            work=PostgresRuns(database=outside.database, allowance=allowance, callers=self._callers),
            preparing=preparing,
            provider=self._provider(settings.patience_of_jobs()),
            models=outside.models,
            tools=self._desk,
            quoting=self._quoting,
            recollection=self._memories,
            metronome=PostgresMinutes(database=outside.database),
            group_seconds=settings.group_seconds,
        )
        return Running(means)

    def _chat(self, turns: TurnStore, *, patience: Patience, pace: Pace) -> ChatEngine:
        return ChatEngine(
            agents=self._directory,
            index=self._outside.index,
            provider=self._provider(patience),
            turns=turns,
            quoting=self._quoting,
            clock=SystemClock(),
            floors=self._settings.floors(),
            pace=pace,
        )

    def _provider(self, patience: Patience) -> PatientProvider:
        return PatientProvider(provider=self._outside.model, patience=patience, lanes=self._outside.lanes)


def _wake_watchers(bus: Bus, topic: str) -> None:
    # Each process relays what it has written itself: of the outbox nobody else needs to hear.
    if topic != OUTBOX:
        bus.nudge(topic)
