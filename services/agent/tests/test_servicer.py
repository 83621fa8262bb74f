"""ConversationService through gRPC, on real Postgres; and events as they go over the wire."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from google.protobuf.struct_pb2 import Struct
from grpc import aio
from loremesh.agent.v1 import chat_pb2
from loremesh.agent.v1 import conversation_pb2 as pb
from loremesh.agent.v1 import conversation_pb2_grpc as rpc
from loremesh_agent import protos
from loremesh_agent.adapters.memory import MemoryAgents, MemoryDocuments
from loremesh_agent.adapters.postgres_conversations import PostgresConversations
from loremesh_agent.adapters.postgres_turns import PostgresTurns
from loremesh_agent.domain.agents import Agent
from loremesh_agent.domain.conversations import State
from loremesh_agent.domain.events import Event, Failed, Heartbeat, SourcesFound, TextStart
from loremesh_agent.engine.conversations import ConversationEngine
from loremesh_agent.engine.quoting import Quoting
from loremesh_agent.errors import ConversationBusy
from loremesh_agent.ports import FinishedTurn, NewTurn
from loremesh_agent.servicer import ConversationServicer
from loremesh_kit.channel import reason_of
from loremesh_kit.ids import new_id
from loremesh_kit.postgres import open_database
from loremesh_kit.server import Servicer, Wired
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import DatabaseUrls, caller, serving

pytestmark = pytest.mark.steelthread


@dataclass(frozen=True)
class Service:
    stub: rpc.ConversationServiceStub
    turns: PostgresTurns

    async def chatted(self, times: int = 1) -> NewTurn:
        first = last = None
        for number in range(times):
            last = NewTurn(
                run_id=new_id(), question_id=new_id(), answer_id=new_id(), text=f"question {number}",
                agent_id="default", conversation_id=first and first.new_conversation_id, new_conversation_id=new_id(),
            )  # fmt: skip
            await self.turns.begin(last)
            await self.turns.finish(last, FinishedTurn(content=f"answer {number}", state=State.COMPLETED))
            first = first or last
        assert first
        return first


@pytest.fixture
async def service(database_urls: DatabaseUrls, make_agent: Callable[..., Agent]) -> AsyncIterator[Service]:
    async with open_database(ServiceSettings(database_url=database_urls.plain)) as database:
        engine = ConversationEngine(
            store=PostgresConversations(database=database),
            agents=MemoryAgents(default=make_agent()),
            quoting=Quoting(documents=MemoryDocuments()),
        )
        wired = Wired(
            servicers=[
                Servicer(
                    add=rpc.add_ConversationServiceServicer_to_server,
                    servicer=ConversationServicer(engine=engine),
                    name="loremesh.agent.v1.ConversationService",
                )
            ]
        )
        async with serving(wired, service="agent") as channel:
            with caller():
                yield Service(rpc.ConversationServiceStub(channel), PostgresTurns(database=database, lease=9))


async def refusal(call: "aio.UnaryUnaryCall[object, object]") -> str | None:
    with pytest.raises(aio.AioRpcError) as refused:
        await call
    return reason_of(refused.value)


def attributes(**values: object) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


async def test_a_conversation_is_made_read_changed_and_deleted(service: Service) -> None:
    stub = service.stub
    wanted = pb.Conversation(title="T\x00", attributes=attributes(lang="th", tags=["a", 1, True]))
    made = await stub.CreateConversation(pb.CreateConversationRequest(conversation=wanted))
    assert (made.title, made.agent_id, made.attributes) == ("T", "default", wanted.attributes)
    assert made.create_time == made.update_time
    assert await stub.GetConversation(pb.GetConversationRequest(conversation_id=made.id)) == made
    change = pb.UpdateConversationRequest(conversation=pb.Conversation(id=made.id, title="U", etag=made.etag))
    changed = await stub.UpdateConversation(change)
    assert (changed.title, changed.attributes) == ("U", made.attributes)
    assert await refusal(stub.UpdateConversation(change)) == "ETAG_MISMATCH"
    clear = pb.UpdateConversationRequest(conversation=pb.Conversation(id=made.id))
    clear.update_mask.paths[:] = ["attributes", "title"]
    assert await stub.UpdateConversation(clear)
    emptied = await stub.GetConversation(pb.GetConversationRequest(conversation_id=made.id))
    assert (emptied.title, emptied.attributes) == ("", Struct())
    await stub.DeleteConversation(pb.DeleteConversationRequest(conversation_id=made.id))
    gone = stub.DeleteConversation(pb.DeleteConversationRequest(conversation_id=made.id))
    assert await refusal(gone) == "CONVERSATION_NOT_FOUND"


async def test_what_cannot_be_kept_is_refused_with_its_reason(service: Service) -> None:
    stub = service.stub

    def create(**fields: object) -> "aio.UnaryUnaryCall[object, object]":
        conversation = pb.Conversation(**fields)  # type: ignore[arg-type]
        return stub.CreateConversation(pb.CreateConversationRequest(conversation=conversation))

    assert await refusal(create(agent_id="nobody")) == "AGENT_NOT_FOUND"
    assert await refusal(create(title="x" * 201)) == "INVALID_FIELD"
    for wrong in (
        {"a": None},
        {"a": {"b": 1}},
        {"": 1},
        {"a" * 65: 1},
        {str(n): n for n in range(65)},
        {"a": "x" * 20_000},
    ):
        assert await refusal(create(attributes=attributes(**wrong))) == "ATTRIBUTES_INVALID"  # fmt: skip
    made = await create(title="T")
    change = pb.UpdateConversationRequest(conversation=pb.Conversation(id=made.id))  # type: ignore[attr-defined]
    change.update_mask.paths.append("agent_id")
    assert await refusal(stub.UpdateConversation(change)) == "INVALID_FIELD"
    nameless = pb.UpdateConversationRequest(conversation=pb.Conversation(title="T"))
    assert await refusal(stub.UpdateConversation(nameless)) == "INVALID_FIELD"


async def test_messages_and_conversations_come_in_pages(service: Service) -> None:
    stub, first = service.stub, await service.chatted(times=3)
    texts: list[str] = []
    request = pb.ListMessagesRequest(conversation_id=first.new_conversation_id, page_size=4)
    while True:
        page = await stub.ListMessages(request)
        texts += [message.content for message in page.messages]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert texts == [f"{kind} {number}" for number in range(3) for kind in ("question", "answer")]
    other = await service.chatted()
    request.conversation_id = other.new_conversation_id
    assert await refusal(stub.ListMessages(request)) == "PAGE_TOKEN_INVALID"
    listed = await stub.ListConversations(pb.ListConversationsRequest(page_size=1))
    assert [each.id for each in listed.conversations] == [other.new_conversation_id]
    following = pb.ListConversationsRequest(page_size=1, page_token=listed.next_page_token)
    last = await stub.ListConversations(following)
    assert [each.id for each in last.conversations] == [first.new_conversation_id]
    assert not last.next_page_token
    garbage = pb.ListConversationsRequest(page_token="garbage")
    assert await refusal(stub.ListConversations(garbage)) == "PAGE_TOKEN_INVALID"
    unknown = pb.ListMessagesRequest(conversation_id="x")
    assert await refusal(stub.ListMessages(unknown)) == "CONVERSATION_NOT_FOUND"


async def test_feedback_is_given_and_taken_back(service: Service) -> None:
    stub, turn = service.stub, await service.chatted()
    said = pb.Feedback(rating=pb.RATING_BAD, comment="no\x00")
    request = pb.SetMessageFeedbackRequest(message_id=turn.answer_id, feedback=said)
    rated = await stub.SetMessageFeedback(request)
    assert rated.feedback == pb.Feedback(rating=pb.RATING_BAD, comment="no")
    request.feedback.Clear()
    request.feedback.SetInParent()
    assert not (await stub.SetMessageFeedback(request)).HasField("feedback")
    request.message_id = turn.question_id
    assert await refusal(stub.SetMessageFeedback(request)) == "MESSAGE_NOT_FOUND"


def test_every_event_shows_its_payload_even_an_empty_one() -> None:
    time = datetime(2026, 11, 22, tzinfo=UTC)
    failed = Failed(ConversationBusy("c", retry_after=1))
    for payload, name in (
        (Heartbeat(), "heartbeat"),
        (SourcesFound(()), "sources"),
        (TextStart(), "text_start"),
        (failed, "failed"),
    ):
        event = protos.event(Event(run_id="r", seq=1, time=time, payload=payload))
        assert event.WhichOneof("payload") == name
        assert (event.run_id, event.seq, event.attempt, event.time.ToDatetime(UTC)) == ("r", 1, 1, time)
    assert event.failed == chat_pb2.RunFailed(
        reason="CONVERSATION_BUSY",
        message="The conversation is answering another message.",
        retryable=True,
        metadata={"conversation_id": "c"},
    )
