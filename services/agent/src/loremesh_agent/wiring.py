"""Puts the use cases together over what is outside."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from loremesh.agent.v1.approval_pb2_grpc import add_ApprovalServiceServicer_to_server
from loremesh.agent.v1.chat_job_pb2_grpc import add_ChatJobServiceServicer_to_server
from loremesh.agent.v1.chat_pb2_grpc import add_ChatServiceServicer_to_server
from loremesh.agent.v1.conversation_pb2_grpc import add_ConversationServiceServicer_to_server
from loremesh_kit.clock import SystemClock
from loremesh_kit.events import Bus
from loremesh_kit.outbox import OUTBOX, Relay
from loremesh_kit.postgres import Database
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.worker import JobWorker

from loremesh_agent import protos
from loremesh_agent.adapters.configured import ConfiguredAgents
from loremesh_agent.adapters.memory import NoPrices, NoTools
from loremesh_agent.adapters.postgres_approvals import PostgresApprovals
from loremesh_agent.adapters.postgres_chat_jobs import KIND, PostgresChatJobs, resume
from loremesh_agent.adapters.postgres_chat_work import PostgresChatWork
from loremesh_agent.adapters.postgres_conversations import PostgresConversations
from loremesh_agent.adapters.postgres_quotations import PostgresQuotations
from loremesh_agent.adapters.postgres_runs import Allowance, PostgresRuns
from loremesh_agent.adapters.postgres_turns import PostgresTurns
from loremesh_agent.approval_servicer import ApprovalServicer
from loremesh_agent.chat_job_servicer import ChatJobServicer
from loremesh_agent.consumers import DocumentDeletions
from loremesh_agent.domain.tools import ToolCall
from loremesh_agent.engine.answering import Answering
from loremesh_agent.engine.approvals import AlarmClock, Approvals
from loremesh_agent.engine.asking import Patience, PatientProvider
from loremesh_agent.engine.chat import ChatEngine, Pace
from loremesh_agent.engine.chat_jobs import ChatJobs, Purge, Queue
from loremesh_agent.engine.conversations import ConversationEngine
from loremesh_agent.engine.preparing import Preparing
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.engine.running import Means, Running
from loremesh_agent.engine.talking import Talking
from loremesh_agent.engine.tools import ToolDesk
from loremesh_agent.ports import (
    AgentDirectory,
    DocumentRegistry,
    ModelProvider,
    Models,
    PassageIndex,
    Recollection,
    Toolbox,
    TurnStore,
)
from loremesh_agent.servicer import ChatServicer, ConversationServicer
from loremesh_agent.settings import AgentSettings

SERVICE = "agent"

_CHAT = "loremesh.agent.v1.ChatService"
_CONVERSATIONS = "loremesh.agent.v1.ConversationService"
_CHAT_JOBS = "loremesh.agent.v1.ChatJobService"
_APPROVALS = "loremesh.agent.v1.ApprovalService"
# Those of Chat and CreateChatJob are kept with the turn and the job.
_IDEMPOTENT = frozenset(
    f"/{_CONVERSATIONS}/{rpc}"
    for rpc in ("CreateConversation", "UpdateConversation", "DeleteConversation", "SetMessageFeedback")
) | {f"/{_APPROVALS}/DecideApproval"}


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What the service is connected to."""

    database: Database
    bus: Bus
    index: PassageIndex
    documents: DocumentRegistry
    model: ModelProvider
    # None: the one agent of the environment.
    agents: AgentDirectory | None = None
    models: Models = field(default_factory=NoPrices)
    toolbox: Toolbox = field(default_factory=NoTools)
    recollection: Recollection | None = None
    probes: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)


def assemble(outside: Outside, *, settings: AgentSettings) -> Wired:
    """Servicers, workers and relay."""
    outside.database.listen(lambda topic: _wake_watchers(outside.bus, topic))
    jobs = PostgresChatJobs(
        database=outside.database, waiting_limit=settings.chat_jobs_waiting, seconds=settings.chat_job_seconds
    )
    approvals = PostgresApprovals(database=outside.database, bus=outside.bus, resume=resume)
    return Wired(
        servicers=[*_servicers(outside, jobs, settings), _approvals(outside, approvals, settings)],
        workers=[
            _worker(outside, settings),
            Purge(store=jobs),
            Queue(store=jobs),
            DocumentDeletions(bus=outside.bus, quotations=PostgresQuotations(database=outside.database)),
            AlarmClock(alarms=approvals),
        ],
        background=[Relay(database=outside.database, bus=outside.bus, service=SERVICE)],
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
        agents=_agents(outside, settings),
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
    talking = Talking(chat=chat, jobs=chat_jobs)
    return [
        Servicer(add=add_ChatServiceServicer_to_server, servicer=ChatServicer(engine=talking), name=_CHAT),
        Servicer(
            add=add_ConversationServiceServicer_to_server,
            servicer=ConversationServicer(engine=conversations),
            name=_CONVERSATIONS,
        ),
        Servicer(add=add_ChatJobServiceServicer_to_server, servicer=ChatJobServicer(engine=chat_jobs), name=_CHAT_JOBS),
    ]


def _approvals(outside: Outside, store: PostgresApprovals, settings: AgentSettings) -> Servicer:
    desk = ToolDesk(toolbox=outside.toolbox)

    async def check(tool: str, arguments: Mapping[str, Any]) -> None:
        spec = (await outside.toolbox.find(tool)).spec
        desk.check(spec, ToolCall(id="", name=tool, arguments=json.dumps(dict(arguments))))

    engine = Approvals(store=store, check=check, heartbeat=settings.heartbeat_seconds)
    return Servicer(
        add=add_ApprovalServiceServicer_to_server, servicer=ApprovalServicer(engine=engine), name=_APPROVALS
    )


def _worker(outside: Outside, settings: AgentSettings) -> JobWorker:
    work = PostgresChatWork(database=outside.database)

    def engine(turns: TurnStore) -> ChatEngine:
        return _chat(outside, turns, settings, patience=settings.patience_of_jobs(), pace=settings.pace_of_jobs())

    answering = Answering(
        work=work,
        agents=_agents(outside, settings),
        running=_running(outside, settings),
        engine=engine,
        read=protos.read_question,
        group_seconds=settings.group_seconds,
    )
    return JobWorker(
        database=outside.database,
        bus=outside.bus,
        service=SERVICE,
        handlers={KIND: answering},
        on_dead=work.give_up,
        concurrency=settings.job_concurrency,
        lease=settings.job_lease_seconds,
        grace=settings.grace_seconds,
    )


def _agents(outside: Outside, settings: AgentSettings) -> AgentDirectory:
    return outside.agents or ConfiguredAgents(default=settings.default_agent())


def _running(outside: Outside, settings: AgentSettings) -> Running:
    tools, quoting = ToolDesk(toolbox=outside.toolbox), Quoting(documents=outside.documents)
    allowance = Allowance(tokens=settings.tenant_monthly_tokens, cost_micros=settings.tenant_monthly_micros)
    preparing = Preparing(
        agents=_agents(outside, settings),
        index=outside.index,
        tools=tools,
        recollection=outside.recollection,
        quoting=quoting,
        floors=settings.floors(),
        budget=settings.budget(),
    )
    means = Means(
        work=PostgresRuns(database=outside.database, allowance=allowance),
        preparing=preparing,
        provider=PatientProvider(provider=outside.model, patience=settings.patience_of_jobs()),
        models=outside.models,
        tools=tools,
        quoting=quoting,
        group_seconds=settings.group_seconds,
    )
    return Running(means)


def _chat(outside: Outside, turns: TurnStore, settings: AgentSettings, *, patience: Patience, pace: Pace) -> ChatEngine:
    return ChatEngine(
        agents=_agents(outside, settings),
        index=outside.index,
        provider=PatientProvider(provider=outside.model, patience=patience),
        turns=turns,
        quoting=Quoting(documents=outside.documents),
        clock=SystemClock(),
        floors=settings.floors(),
        pace=pace,
    )
