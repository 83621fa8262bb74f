"""Replicas of the service in this process, on a real Postgres and NATS, with a scripted model and their callers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from grpc import aio
from loremesh.agent.v1 import (
    agent_pb2_grpc,
    approval_pb2_grpc,
    chat_job_pb2_grpc,
    chat_pb2,
    chat_pb2_grpc,
    conversation_pb2,
    conversation_pb2_grpc,
    grounding_pb2_grpc,
    task_pb2_grpc,
)
from loremesh.agent.v1 import chat_job_pb2 as pb
from loremesh_agent.adapters.memory import MemoryDocuments, MemoryIndex, MemoryToolbox, Pause, ScriptedProvider
from loremesh_agent.adapters.prompt_file import PromptFile
from loremesh_agent.adapters.providers import Providers
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.events import FinishReason
from loremesh_agent.domain.passages import Found
from loremesh_agent.domain.prices import Prices
from loremesh_agent.ports import AgentDirectory, ModelCatalogue, ModelFinish, ModelText, ModelToolCall, Toolbox
from loremesh_agent.settings import AgentSettings
from loremesh_agent.wiring import Outside, assemble
from loremesh_kit.events import Bus, connect
from loremesh_kit.loops import background
from loremesh_kit.postgres import Database, open_database
from loremesh_kit.server import Role, Wired
from loremesh_kit.testing import DatabaseUrls, caller, serving

QUESTION = "How high is the lighthouse of Genoa?"
ANSWER = "It is 77 metres high [1]."
DONE = ModelFinish(reason=FinishReason.STOP, usage=Usage(input_tokens=9, output_tokens=3))
NAMES = {"provider": "scripted", "model": "a-model"}
SECONDS = 30
LEASE = 1.5

Script = list[ModelText | ModelToolCall | ModelFinish | Pause | Exception]


def words(text: str = ANSWER) -> Script:
    return [*(ModelText(piece) for piece in text.replace(" ", "\0 ").split("\0")), DONE]


@dataclass
class Replica:
    """One process of the service."""

    wired: Wired
    database: Database
    channel: aio.Channel

    def __post_init__(self) -> None:
        self.jobs = chat_job_pb2_grpc.ChatJobServiceStub(self.channel)
        self.chat = chat_pb2_grpc.ChatServiceStub(self.channel)
        self.approvals = approval_pb2_grpc.ApprovalServiceStub(self.channel)
        self.conversations = conversation_pb2_grpc.ConversationServiceStub(self.channel)
        self.grounding = grounding_pb2_grpc.GroundingServiceStub(self.channel)
        self.agents = agent_pb2_grpc.AgentServiceStub(self.channel)
        self.tasks = task_pb2_grpc.TaskServiceStub(self.channel)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """Its worker, which dies at the end of the block without a word."""
        async with background() as group:
            dying = group.create_task(self.wired.workers[0].run(asyncio.Event()))
            yield
            dying.cancel()

    async def create(self, message: str = QUESTION, **fields: Any) -> pb.CreateChatJobResponse:
        key = fields.pop("key", None)
        metadata = [("idempotency-key", key)] if key is not None else []
        return await self.jobs.CreateChatJob(chat_pb2.ChatRequest(message=message, **fields), metadata=metadata)

    async def watch(self, job_id: str, *, after_seq: int = 0, **more: Any) -> list[chat_pb2.ChatEvent]:
        request = pb.WatchChatJobRequest(job_id=job_id, after_seq=after_seq)
        return [event async for event in self.jobs.WatchChatJob(request, timeout=SECONDS, **more) if event.seq]

    async def has_said_something(self, job_id: str) -> bool:
        events = (await self.jobs.ListChatJobEvents(pb.ListChatJobEventsRequest(job_id=job_id))).events
        return "text_delta" in kinds(events)

    async def job(self, job_id: str) -> pb.ChatJob:
        return await self.jobs.GetChatJob(pb.GetChatJobRequest(job_id=job_id))

    async def messages(self, conversation_id: str) -> Sequence[conversation_pb2.Message]:
        request = conversation_pb2.ListMessagesRequest(conversation_id=conversation_id)
        return (await self.conversations.ListMessages(request)).messages


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await holds():  # noqa: ASYNC110 - it is seen by asking
            await asyncio.sleep(0.05)


def outside_of(
    settings: AgentSettings,
    *,
    database: Database,
    bus: Bus,
    found: Found,
    provider: ScriptedProvider,
    documents: MemoryDocuments,
    **more: Any,
) -> Outside:
    """Everything around the service in this process, but Postgres and NATS."""
    models = Providers(
        sources={"local": provider},
        default=settings.default_profile(),
        profiles=settings.profiles(),
        prices=Prices({}),
    )
    given = {"models": models, "toolbox": MemoryToolbox(), "prompts": PromptFile.load(), **more}
    return Outside(
        database=database,
        bus=bus,
        index=MemoryIndex({"default": found}),
        documents=documents,
        vector_stores=documents,
        model=provider,
        **given,
    )


@dataclass
class Mesh:
    """Everything around the replicas."""

    urls: DatabaseUrls
    nats_url: str
    found: Found
    provider: ScriptedProvider = field(default_factory=lambda: ScriptedProvider(words()))
    documents: MemoryDocuments = field(default_factory=MemoryDocuments)
    agents: AgentDirectory | None = None
    toolbox: Toolbox = field(default_factory=MemoryToolbox)
    # None: those of the settings.
    models: ModelCatalogue | None = None

    async def asked(self, times: int = 1) -> bool:
        return len(self.provider.requests) >= times

    async def closed(self, times: int = 1) -> bool:
        return self.provider.closed >= times

    @asynccontextmanager
    async def replica(self, role: Role = "all", **given: Any) -> AsyncIterator[Replica]:
        settings = AgentSettings(
            **{"drain_seconds": 0, "grace_seconds": 0.1, "job_lease_seconds": LEASE, "database_url": self.urls.plain}
            | {"nats_url": self.nats_url, "retrieval_target": "none", "ingestion_target": "none", "provider": "local"}
            | {"local_model_url": "none", "prompt": "full", "context_tokens": 4096, "prompt_tokens": 2048}
            | given
        )
        async with AsyncExitStack() as stack:
            database = await stack.enter_async_context(open_database(settings))
            bus = await stack.enter_async_context(connect(settings.nats_url, service="agent"))
            outside = outside_of(
                settings,
                database=database,
                bus=bus,
                found=self.found,
                provider=self.provider,
                documents=self.documents,
                toolbox=self.toolbox,
                **({"models": self.models} if self.models else {}),
            )
            wired = assemble(outside, settings=settings, agents=self.agents)
            channel = await stack.enter_async_context(serving(wired, service="agent", settings=settings, role=role))
            stack.enter_context(caller())
            yield Replica(wired, database, channel)


def kinds(events: Sequence[chat_pb2.ChatEvent]) -> list[str | None]:
    return [event.WhichOneof("payload") for event in events]


def text_of(events: Sequence[chat_pb2.ChatEvent], attempt: int) -> str:
    return "".join(event.text_delta.text for event in events if event.attempt == attempt)


def check(events: Sequence[chat_pb2.ChatEvent], *, after_seq: int = 0) -> None:
    """What every log keeps to: no gaps, attempts in order, one terminal event and that one last."""
    terminal = {"completed", "incomplete", "failed", "cancelled"}
    assert [event.seq for event in events] == list(range(after_seq + 1, after_seq + 1 + len(events)))
    assert [event.attempt for event in events] == sorted(event.attempt for event in events)
    assert [kind in terminal for kind in kinds(events)] == [False] * (len(events) - 1) + [True]
