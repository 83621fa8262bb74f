"""Puts the use cases together over what is outside."""

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
from loremesh_kit.postgres import Database, Row
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.worker import JobWorker
from psycopg import AsyncConnection

from loremesh_agent import protos
from loremesh_agent.adapters.configured import ConfiguredAgents
from loremesh_agent.adapters.postgres_approvals import PostgresApprovals
from loremesh_agent.adapters.postgres_chat_jobs import KIND, PostgresChatJobs
from loremesh_agent.adapters.postgres_chat_work import PostgresChatWork
from loremesh_agent.adapters.postgres_conversations import PostgresConversations
from loremesh_agent.adapters.postgres_quotations import PostgresQuotations
from loremesh_agent.adapters.postgres_turns import PostgresTurns
from loremesh_agent.approval_servicer import ApprovalServicer
from loremesh_agent.chat_job_servicer import ChatJobServicer
from loremesh_agent.consumers import DocumentDeletions
from loremesh_agent.engine.answering import Answering
from loremesh_agent.engine.approvals import AlarmClock, Approvals
from loremesh_agent.engine.asking import Patience, PatientProvider
from loremesh_agent.engine.chat import ChatEngine, Pace
from loremesh_agent.engine.chat_jobs import ChatJobs, Purge
from loremesh_agent.engine.conversations import ConversationEngine
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.errors import ToolNotFound
from loremesh_agent.ports import DocumentRegistry, ModelProvider, PassageIndex, TurnStore
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
    probes: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)


def assemble(outside: Outside, *, settings: AgentSettings) -> Wired:
    """Servicers, workers and relay."""
    outside.database.listen(lambda topic: _wake_watchers(outside.bus, topic))
    jobs = PostgresChatJobs(
        database=outside.database, waiting_limit=settings.chat_jobs_waiting, seconds=settings.chat_job_seconds
    )
    approvals = PostgresApprovals(database=outside.database, bus=outside.bus, resume=_resume)
    return Wired(
        servicers=[*_servicers(outside, jobs, settings), _approvals(approvals, settings)],
        workers=[
            _worker(outside, settings),
            Purge(store=jobs),
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
        agents=ConfiguredAgents(default=settings.default_agent()),
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
        Servicer(add=add_ChatServiceServicer_to_server, servicer=ChatServicer(engine=chat), name=_CHAT),
        Servicer(
            add=add_ConversationServiceServicer_to_server,
            servicer=ConversationServicer(engine=conversations),
            name=_CONVERSATIONS,
        ),
        Servicer(add=add_ChatJobServiceServicer_to_server, servicer=ChatJobServicer(engine=chat_jobs), name=_CHAT_JOBS),
    ]


def _approvals(store: PostgresApprovals, settings: AgentSettings) -> Servicer:
    engine = Approvals(store=store, check=_check, heartbeat=settings.heartbeat_seconds)
    return Servicer(
        add=add_ApprovalServiceServicer_to_server, servicer=ApprovalServicer(engine=engine), name=_APPROVALS
    )


async def _resume(connection: AsyncConnection[Row], run_id: str) -> None:
    del connection, run_id


async def _check(tool: str, arguments: Mapping[str, Any]) -> None:
    del arguments
    raise ToolNotFound(tool)


def _worker(outside: Outside, settings: AgentSettings) -> JobWorker:
    work = PostgresChatWork(database=outside.database)

    def engine(turns: TurnStore) -> ChatEngine:
        return _chat(outside, turns, settings, patience=settings.patience_of_jobs(), pace=settings.pace_of_jobs())

    answering = Answering(work=work, engine=engine, read=protos.read_question, group_seconds=settings.group_seconds)
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


def _chat(outside: Outside, turns: TurnStore, settings: AgentSettings, *, patience: Patience, pace: Pace) -> ChatEngine:
    return ChatEngine(
        agents=ConfiguredAgents(default=settings.default_agent()),
        index=outside.index,
        provider=PatientProvider(provider=outside.model, patience=patience),
        turns=turns,
        quoting=Quoting(documents=outside.documents),
        clock=SystemClock(),
        floors=settings.floors(),
        pace=pace,
    )
